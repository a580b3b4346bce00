"""Whether the newest hours are as they should be, as the tables have it."""

import datetime
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.summaries import hours_with_summary, read_summaries, read_volumes
from batch_assets.database.schema.tables import PipelineTables, pipeline_tables
from batch_assets.hours import Hour
from batch_assets.monitoring.judgement import REFERENCE_AGE, Judgement
from batch_assets.monitoring.volume import judge_volume
from batch_assets.pipeline import Pipeline
from batch_assets.reporting.verdicts import Verdict, newest_due_hour, verdict_on_newest_hour


@dataclass(frozen=True)
class VolumeOfHour:
    """How many items an hour has, and whether that is as usual.

    Args:
        hour: The hour.
        items: How many it has.
        judgement: The judgement of that.
    """

    hour: Hour
    items: int
    judgement: Judgement


def newest_hour(pipeline: Pipeline, now: datetime.datetime) -> Verdict:
    """Returns whether the newest hour that must have been scored by now was.

    Args:
        pipeline: The pipeline.
        now: The present, in UTC without a zone.
    """
    due = newest_due_hour(now, pipeline.deadline_minutes)
    scored = bool(hours_with_summary(engine_for(pipeline.database), pipeline_tables(pipeline), [due]))
    return verdict_on_newest_hour(due, pipeline.first_hour, pipeline.deadline_minutes, scored=scored)


def newest_volume(engine: sa.Engine, tables: PipelineTables) -> VolumeOfHour | None:
    """Returns whether the newest hour that was summed up has as many items as usual, None if none was.

    Args:
        engine: The database.
        tables: Those of the pipeline.
    """
    for row in read_summaries(engine, tables, None, 1):
        past = read_volumes(engine, tables, row.hour - REFERENCE_AGE, row.hour)
        items = row._mapping["items"]
        return VolumeOfHour(Hour(row.hour), items, judge_volume(row.hour, items, past))
    return None
