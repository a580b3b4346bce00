"""Measures how right the predictions of an hour were, as they stand in the table."""

import datetime

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.actuals import MeasuredHour, read_answers_and_actuals, store_quality
from batch_assets.database.records.promotions import model_that_scored
from batch_assets.database.records.summaries import read_summary
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import Hour
from batch_assets.inference.model_files import labels_of
from batch_assets.monitoring.quality import Quality
from batch_assets.pipeline import Pipeline
from batch_assets.reporting.answers import add_answers, parsed_texts
from batch_assets.reporting.challengers import measure_comparison


def measure_hour(pipeline: Pipeline, hour: Hour, now: datetime.datetime) -> Quality:
    """Measures how right the predictions of an hour were, and those of its challenger, and stores it.

    Args:
        pipeline: The pipeline.
        hour: The hour.
        now: The present, in UTC without a zone.

    Raises:
        ModelError: The labels of the model cannot be read.
        DatabaseError: A table is missing, or the server is away.
    """
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    output = pipeline.items.labelled_output or pipeline.items.outputs[0]
    summary = read_summary(engine, tables, hour)
    version = summary.model_version if summary else None
    labels = labels_of(model_that_scored(pipeline, version), pipeline.items)
    quality = Quality()
    for rows in read_answers_and_actuals(engine, tables, output.column, hour):
        answers, known_labels, known_values = zip(*rows, strict=True)
        add_answers(quality, output.form, parsed_texts(answers, output.form), labels, known_labels, known_values)
    measured = MeasuredHour(hour, quality, version, now)
    store_quality(engine, tables, measured)
    if pipeline.challenger:
        measure_comparison(pipeline, hour, now)
    return quality
