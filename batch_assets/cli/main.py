"""The command line `batch-assets`; hours are started with Dagster's own."""

import datetime
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_requests import reset_attempts
from batch_assets.database.records.remaining import failed_rows
from batch_assets.database.schema.tables import item_table
from batch_assets.errors import BatchAssetsError, RetryError, SettingsError
from batch_assets.hours import Hour, hour_of_key, utc_now
from batch_assets.pipeline import pipeline_from_environment
from batch_assets.settings.database import SQLiteSettings
from batch_assets.settings.environment import environment
from batch_assets.settings.folders import home_folder, is_wheel
from batch_assets.settings.retry import LEAVE


class _Sentences(click.Group):
    """Shows a fault as its sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BatchAssetsError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Sentences)
def main() -> None:
    """Hourly batch inference on Dagster and MySQL.

    The database is the one of MYSQL_SERVER, MYSQL_PORT, MYSQL_USER, MYSQL_PASSWORD and MYSQL_DATABASE, or an embedded
    SQLite file without MYSQL_SERVER.
    """


@main.command("init-db")
def init_db() -> None:
    """Create what is missing in the database; adopt an items table that is there."""
    from batch_assets.database.schema.setup import initialize_database  # noqa: PLC0415 - imports Alembic

    pipeline = pipeline_from_environment()
    done = initialize_database(engine_for(pipeline.database), item_table(pipeline.items))
    if isinstance(pipeline.database, SQLiteSettings):
        done += _make_home(home_folder(environment()))
    for sentence in done or ["nothing to do"]:
        click.echo(sentence)


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--created-at",
    metavar="TIME",
    help="When the items were created, in UTC, for example 2026-11-01T05:30; now without it.",
)
def register(file: Path, created_at: str | None) -> None:
    """Register the items of FILE: a JSON array, JSON Lines or CSV, - for standard input.

    All of them or, when one is malformed, none.
    """
    from batch_assets.database.records.register import register_items  # noqa: PLC0415
    from batch_assets.item_files.parser import read_items  # noqa: PLC0415

    pipeline, moment = pipeline_from_environment(), _utc(created_at) if created_at else None
    for sentence in _remarks(moment, pipeline.first_hour):
        click.echo(sentence, err=True)
    engine = engine_for(pipeline.database)
    with (
        _opened(file) as (stream, name, size),
        click.progressbar(length=size, label=name, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar,
    ):
        count = register_items(
            engine, item_table(pipeline.items), _advancing(read_items(stream, name), stream, bar, size), moment
        )
    click.echo(f"{count:,} items registered")


@main.command()
@click.option(
    "--hours",
    "count",
    type=click.IntRange(1, 1_000_000),
    default=48,
    show_default=True,
    help="How many hours back from now.",
)
@click.option("--failed", is_flag=True, help="Show the items that failed instead, the latest first.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="How many failed items to show."
)
def status(count: int, failed: bool, limit: int) -> None:
    """Show what became of the items of each hour that has any, and which hours and items are given up."""
    from rich.console import Console  # noqa: PLC0415 - what only one command needs, the others do not wait for

    from batch_assets.reporting.status import (  # noqa: PLC0415
        failed_remarks,
        failed_table,
        hours_status,
        status_table,
    )

    pipeline = pipeline_from_environment()
    engine = engine_for(pipeline.database)
    # A pipe has no width to fit the table to.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    if failed:
        rows = failed_rows(engine, item_table(pipeline.items), limit + 1, pipeline.retry.max_attempts)
        console.print(failed_table(rows[:limit]))
        remarks = failed_remarks(rows, limit)
    else:
        hours = hours_status(engine, pipeline, utc_now(), count)
        console.print(status_table(hours))
        remarks = hours.remarks
    for remark in remarks:
        click.echo(remark)


@main.command()
@click.argument("what", metavar="HOUR|ID...", nargs=-1, required=True)
def retry(what: tuple[str, ...]) -> None:
    """Put hours and failed items back, to be tried again as if they had never failed.

    HOUR is written as 2026-11-01-05:00, and stands for all its failed items; ID is that of a failed item, as
    `batch-assets status --failed` lists them. All that is named is put back or, when something cannot be, nothing.
    """
    pipeline = pipeline_from_environment()
    ids = [int(text) for text in what if _is_id(text)]
    hours = [_closed_hour(text, pipeline.first_hour) for text in what if not _is_id(text)]
    count, requested = reset_attempts(engine_for(pipeline.database), item_table(pipeline.items), hours, ids, utc_now())
    if count:
        click.echo(f"{count:,} failed item{' is' if count == 1 else 's are'} pending again.")
    keys = ", ".join(hour.key for hour in requested)
    if pipeline.retry.policy == LEAVE:
        click.echo(f"Materialise what is to be scored: BATCH_RETRY is 'leave', so nothing requests {keys} by itself.")
    else:
        click.echo(f"The sensor retry_hours requests within a minute, if the daemon runs: {keys}")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _closed_hour(text: str, first: Hour) -> Hour:
    hour = hour_of_key(text)
    if hour is None:
        raise RetryError(
            f"{text!r} is neither an hour nor the id of an item: write an hour of UTC as 2026-11-01-05:00. Nothing was "
            "put back."
        )
    if hour.end > utc_now():
        raise RetryError(f"The hour {text} has not ended: it is scored from {hour.end} UTC on. Nothing was put back.")
    if hour.start < first.start:
        raise RetryError(
            f"The hour {text} lies before the first one, {first.key}: set BATCH_FIRST_HOUR to {text} or earlier. "
            "Nothing was put back."
        )
    return hour


def _age(_context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime.timedelta | None:
    from batch_assets.database.records.pruning import LEAST_AGE  # noqa: PLC0415

    if text is None:
        return None
    written = re.fullmatch(r"([0-9]{1,5})([dh])", text)
    if not written:
        raise click.BadParameter(f"{text!r} is not an age: write days as 90d, or hours as 72h.")
    age = int(written[1]) * datetime.timedelta(hours=24 if written[2] == "d" else 1)
    if age < LEAST_AGE:
        raise click.BadParameter(
            f"{text!r} reaches into hours that the sensor may yet request, to score what is left of them: write "
            f"{LEAST_AGE.days}d or more."
        )
    return age


@main.command()
@click.option(
    "--items-older-than", "items_age", metavar="AGE", callback=_age, help="Remove hours older than this, as 90d or 72h."
)
@click.option(
    "--runs-older-than", "runs_age", metavar="AGE", callback=_age, help="Remove runs of Dagster that ended longer ago."
)
@click.option("--unscored-too", is_flag=True, help="Remove items that nobody has scored too.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(
    items_age: datetime.timedelta | None, runs_age: datetime.timedelta | None, unscored_too: bool, dry_run: bool
) -> None:
    """Remove old hours, and Dagster's old runs, in small steps beside the service.

    Of an hour its items go, then its rows in failed_items, run_summary and hour_requests: oldest hour first, in short
    transactions, at the pace of BATCH_MAX_ROWS_PER_SECOND, BATCH_MAX_LOAD and BATCH_REPLICAS. What was interrupted the
    next prune finishes. An hour stays while a run holds it or will yet write it, and while it has items that nobody
    has scored, unless these may go too.

    A run goes with its events and logs, from which the UI knows that an hour was materialised. So the last run of an
    hour stays, however old, until the hour itself is pruned, and that of an asset without hours for good. A pruned
    hour is shown as missing when its runs are gone.

    The status is 1 if something had to stay, and a sentence says what. DAGSTER_HOME names the instance.
    """
    if items_age is None and runs_age is None:
        raise click.UsageError("Nothing to remove: give --items-older-than, --runs-older-than or both.")
    if unscored_too and items_age is None:
        raise click.UsageError("--unscored-too is about items: give --items-older-than too.")
    from batch_assets.orchestration.prune import Prune, run_prune  # noqa: PLC0415 - imports Dagster

    now = utc_now()
    hours_before = (now - items_age).replace(minute=0, second=0, microsecond=0) if items_age else None
    run_prune(Prune(hours_before, now - runs_age if runs_age else None, unscored_too, dry_run), click.echo)


@main.command()
def serve() -> None:
    """Serve the web API, on API_HOST and API_PORT.

    It registers items and shows what became of them; http://127.0.0.1:8000/docs says how.
    """
    try:
        from batch_assets.api.server import serve  # noqa: PLC0415 - an optional dependency group
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"The API needs the package {error.name}, which is missing: install batch-assets with the extra `api`."
        ) from error
    serve(environment())


@main.command()
def demo() -> None:
    """Fill an empty database with 65,322 iris items of past hours and score them with `dagster job execute`."""
    from batch_assets.iris.demo import run_demo  # noqa: PLC0415 - imports scikit-learn

    if not environment().get("DAGSTER_HOME"):
        _make_home(home_folder(environment()))
    run_demo(click.echo)
    click.echo()
    click.get_current_context().invoke(status, count=48)
    instance = shlex.quote(environment().get("DAGSTER_HOME") or str(home_folder(environment())))
    ui = f"DAGSTER_HOME={instance} dagster dev -m batch_assets.definitions" if is_wheel() else "make ui"
    click.echo(f"\nThe same in Dagster's UI, where an hour can be materialised again and a range backfilled: {ui}")


def _make_home(home: Path) -> list[str]:
    """Makes the Dagster instance of the embedded default, which keeps its runs in the same folder."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "dagster.yaml").open("x") as settings:
            settings.write((Path(__file__).parents[1] / "embedded_dagster.yaml").read_text())
    except FileExistsError:
        return []
    except OSError as error:
        raise SettingsError(
            f"The folder {home} cannot be used ({error}): make it writable, or set BATCH_ASSETS_HOME to another one."
        ) from error
    folder = shlex.quote(str(home))
    return [f"made the Dagster instance {home}: export DAGSTER_HOME={folder} to use it"]


@contextmanager
def _opened(file: Path) -> Iterator[tuple[BinaryIO, str, int]]:
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
