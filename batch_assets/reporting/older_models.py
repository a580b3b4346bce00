"""Which hours have predictions of another model than the one in force."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from rich.table import Table

from batch_assets.database.records.summaries import (
    count_hours_of_other_models,
    last_model,
    read_hours_of_other_models,
)
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import ModelError
from batch_assets.hours import Hour
from batch_assets.inference.model_version import version_in_force
from batch_assets.pipeline import Pipeline
from batch_assets.settings.model import RegisteredModel
from batch_assets.wording import counted, short_version


def older_models(engine: sa.Engine, pipeline: Pipeline) -> list[str]:
    """Says how many hours have predictions of another model, nothing if none has. One statement over `run_summary`.

    Args:
        engine: The database.
        pipeline: The pipeline, with the model in force.
    """
    try:
        version = _comparable_version(engine, pipeline)
    except ModelError as error:
        return [f"Which hours were scored last by another model cannot be told: {error}"]
    first = pipeline.first_hour
    hours = count_hours_of_other_models(engine, pipeline_tables(pipeline), first, version) if version else None
    if version is None or hours is None:
        return []
    when = hours.first.key if hours.count == 1 else f"from {hours.first.key} to {hours.last.key}"
    known = pipeline.model.sha256 is not None or not isinstance(pipeline.model, RegisteredModel)
    which = "the one in force" if known else "that of the last run"
    sentence = (
        f"{counted(hours.count, 'hour')} ({when}) {'was' if hours.count == 1 else 'were'} scored last by another model "
        f"than {which}, {short_version(version)}."
    )
    return [sentence, "To see which: batch-assets status --older-model"]


def hours_of_older_models(
    engine: sa.Engine, pipeline: Pipeline, count: int | None = None
) -> Sequence[sa.Row[Any, Any, Any, Any]]:
    """Returns the hours whose predictions stem from another model, the newest first.

    Args:
        engine: The database.
        pipeline: The pipeline, with the model in force.
        count: How many at the most; None for all.

    Raises:
        ModelError: The file of the model is missing.
    """
    version = _comparable_version(engine, pipeline)
    if version is None:
        return []
    return read_hours_of_other_models(engine, pipeline_tables(pipeline), pipeline.first_hour, version, count)


def _comparable_version(engine: sa.Engine, pipeline: Pipeline) -> str | None:
    """Returns the SHA-256 by which hours are compared: that of the file, or of the model of the run that ended last.

    A registry knows its models by versions and not by what `run_summary` has of them. To download the model would tell,
    but a command that shows the hours is not to wait for that, nor for a registry that is away.

    Args:
        engine: The database.
        pipeline: The pipeline, with the model in force.

    Raises:
        ModelError: The file of the model is missing.
    """
    if isinstance(pipeline.model, RegisteredModel):
        return pipeline.model.sha256 or last_model(engine, pipeline_tables(pipeline))
    return version_in_force(pipeline.model)


def older_models_table(rows: Sequence[sa.Row[Any, Any, Any, Any]]) -> Table:
    """Returns these hours as a table for the terminal."""
    table = Table()
    table.add_column("hour (UTC)", no_wrap=True)
    table.add_column("predicted", justify="right")
    table.add_column("model", no_wrap=True)
    table.add_column("scored at (UTC)", no_wrap=True)
    for row in rows:
        version = short_version(row.model_version)
        table.add_row(Hour(row.hour).key, f"{row.predicted:,}", version, f"{row.finished_at:%Y-%m-%d %H:%M}")
    return table
