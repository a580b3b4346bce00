"""`batch-assets register`: items from a file into the table."""

import datetime
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from batch_assets.cli.pipelines import chosen_pipeline, pipeline_option
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.tables import item_table
from batch_assets.hours import Hour, utc_now
from batch_assets.pipeline import ItemTable
from batch_assets.wording import counted


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--created-at",
    metavar="TIME",
    help="When the items were created, in UTC, for example 2026-11-01T05:30; now without it.",
)
@pipeline_option
def register(file: Path, created_at: str | None, name: str | None) -> None:
    """Register the items of FILE: a JSON array, JSON Lines or CSV, - for standard input.

    All of them or, when one is malformed, none. Where the features have names, an item is a JSON object of them.
    """
    from batch_assets.database.records.register import register_items  # noqa: PLC0415

    pipeline, moment = chosen_pipeline(name).load(), _utc(created_at) if created_at else None
    for sentence in _remarks(moment, pipeline.first_hour):
        click.echo(sentence, err=True)
    engine = engine_for(pipeline.database)
    with (
        opened_file(file) as (stream, file_name, size),
        click.progressbar(length=size, label=file_name, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar,
    ):
        texts = _advancing(item_texts(stream, file_name, pipeline.items), stream, bar, size)
        count = register_items(engine, item_table(pipeline.items), texts, moment)
    click.echo(f"{counted(count, 'item')} registered")


def item_texts(stream: BinaryIO, name: str, items: ItemTable) -> Iterator[str]:
    """Yields the values of each item as JSON text: a list where they are columns."""
    from batch_assets.item_files.parser import read_items, read_objects  # noqa: PLC0415

    if not items.features:
        yield from read_items(stream, name)
        return
    for item in read_objects(stream, name, [feature.name for feature in items.features]):
        yield json.dumps(list(item.values()) if items.from_columns else item, ensure_ascii=False)


@contextmanager
def opened_file(file: Path) -> Iterator[tuple[BinaryIO, str, int]]:
    """Opens a file; a pipe is read to its end first, so that no transaction waits for who writes to it."""
    if file.is_file():
        with file.open("rb") as stream:
            yield stream, file.name, file.stat().st_size
        return
    name = "standard input" if str(file) == "-" else file.name
    with tempfile.TemporaryFile() as copy:
        with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as pipe:
            shutil.copyfileobj(pipe, copy)
        size = copy.tell()
        copy.seek(0)
        yield copy, name, size


def _advancing(
    items: Iterator[str], stream: BinaryIO, bar: "click._termui_impl.ProgressBar[int]", size: int
) -> Iterator[str]:
    seen = 0
    for number, item in enumerate(items):
        yield item
        if number % 1000 == 0:
            position = stream.tell()
            bar.update(position - seen)
            seen = position
    bar.update(size - seen)


def _utc(text: str) -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(text)
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a time: write it as 2026-11-01T05:30.", param_hint="--created-at"
        ) from None
    # MySQL would round fractions of a second, into the next hour at worst.
    return moment.replace(microsecond=0)


def _remarks(created_at: datetime.datetime | None, first: Hour) -> Iterator[str]:
    if created_at is None:
        return
    hour = Hour(created_at.replace(minute=0, second=0))
    if hour.start < first.start:
        yield (
            f"{created_at} lies before the first hour, {first.key}: these items are not scored unless BATCH_FIRST_HOUR "
            f"is set to {hour.key} or earlier."
        )
    if created_at > utc_now():
        yield f"{created_at} UTC lies in the future: these items can be scored from {hour.end} on."
