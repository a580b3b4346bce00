"""Whether the newest hour that must have been scored by now was, as the tables have it."""

import datetime

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.summaries import hours_with_summary
from batch_assets.database.schema.tables import pipeline_tables
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
