"""Whether the newest hours are as they should be, as the tables have it."""

import datetime

import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.summaries import hours_with_summary, read_summaries, read_volumes
from batch_assets.database.schema.tables import PipelineTables, pipeline_tables
from batch_assets.hours import Hour
from batch_assets.monitoring.judgement import REFERENCE_AGE, Judgement
from batch_assets.monitoring.volume import judge_volume
from batch_assets.pipeline import Pipeline
from batch_assets.reporting.verdicts import Verdict, newest_due_hour, verdict_on_newest_hour


def newest_hour(pipeline: Pipeline, now: datetime.datetime) -> Verdict:
    """Returns whether the newest hour that must have been scored by now was.

    Args:
        pipeline: The pipeline.
        now: The present, in UTC without a zone.
    """
    due = newest_due_hour(now, pipeline.deadline_minutes)
    scored = bool(hours_with_summary(engine_for(pipeline.database), pipeline_tables(pipeline), [due]))
    return verdict_on_newest_hour(due, pipeline.first_hour, pipeline.deadline_minutes, scored=scored)


def newest_volume(engine: sa.Engine, tables: PipelineTables) -> tuple[Hour | None, Judgement | None]:
    """Returns the newest hour that was summed up, and whether it has as many items as usual; None if there is none.

    Args:
        engine: The database.
        tables: Those of the pipeline.
    """
    for row in read_summaries(engine, tables, None, 1):
        past = read_volumes(engine, tables, row.hour - REFERENCE_AGE, row.hour)
        return Hour(row.hour), judge_volume(row.hour, row._mapping["items"], past)
    return None, None
