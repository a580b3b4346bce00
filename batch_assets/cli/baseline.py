"""`batch-assets baseline`: what the features and the answers are to look like."""

from pathlib import Path

import click

from batch_assets.cli.pipelines import chosen_pipeline, pipeline_option
from batch_assets.cli.register import item_texts, opened_file
from batch_assets.database.records.promotions import with_model_in_force
from batch_assets.hours import Hour, hour_of_key
from batch_assets.wording import counted


def _hours(
    _context: click.Context, _parameter: click.Parameter, keys: tuple[str, str] | None
) -> tuple[Hour, Hour] | None:
    if keys is None:
        return None
    first, last = map(hour_of_key, keys)
    if first is None or last is None or last.start < first.start:
        raise click.BadParameter(f"{' '.join(keys)} are not a first hour and a last one: write 2026-11-01-05:00.")
    return first, last


@click.command()
@click.option(
    "--hours", nargs=2, metavar="FIRST LAST", callback=_hours, help="Hours that were good, as 2026-11-01-05:00."
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    help="The items that the model was trained with, in the formats of `register`.",
)
@pipeline_option
def baseline(hours: tuple[Hour, Hour] | None, file: Path | None, name: str | None) -> None:
    """Store what the features and the answers are to look like, for the model that is in use.

    Each hour is then judged by it, and by how much earlier hours differed from it. Hours that were good are such
    earlier hours at once; after --file the first day is not judged. None of the items is kept.
    """
    if (hours is None) == (file is None):
        raise click.UsageError("Give either --hours FIRST LAST or --file FILE.")
    from batch_assets.reporting.drift import baseline_from_hours, baseline_from_items  # noqa: PLC0415 - imports SciPy

    pipeline = chosen_pipeline(name).load()
    if hours is not None:
        made = baseline_from_hours(pipeline, *hours)
    elif file is not None:
        with opened_file(file) as (stream, file_name, _):
            texts = item_texts(stream, file_name, pipeline.items)
            made = baseline_from_items(with_model_in_force(pipeline), texts, file_name)
    features = counted(len(made.sketches), "feature")
    click.echo(f"baseline of {features} made from {made.made_from}: {counted(made.items, 'item')}")
