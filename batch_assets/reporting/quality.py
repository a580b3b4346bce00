"""Measures how right the predictions of an hour were, as they stand in the table."""

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.actuals import MeasuredHour, read_answers_and_actuals, store_quality
from batch_assets.database.records.promotions import model_that_scored
from batch_assets.database.records.summaries import read_summary
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import Hour
from batch_assets.inference.model_files import labels_of
from batch_assets.monitoring.quality import Quality
from batch_assets.pipeline import Pipeline
from batch_assets.reporting.answers import matrix_of, parsed_label, parsed_texts
from batch_assets.settings.items import Form


def measure_hour(pipeline: Pipeline, hour: Hour, now: datetime.datetime) -> Quality:
    """Measures how right the predictions of an hour were, and stores it.

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
        _add(quality, output.form, parsed_texts(answers, output.form), labels, known_labels, known_values)
    measured = MeasuredHour(hour, quality, version, now)
    store_quality(engine, tables, measured)
    return quality


def _add(  # noqa: PLR0913, PLR0917 - a part of an hour
    quality: Quality,
    form: Form,
    answers: Sequence[Any],
    labels: Sequence[str],
    known_labels: Sequence[str | None],
    known_values: Sequence[float | None],
) -> None:
    if form in ("value", "probability"):
        numbers = [float("nan") if answer is None else float(answer) for answer in answers]
        finite = np.isfinite(numbers).tolist()
        quality.add_numbers(
            numbers, [value if holds else None for value, holds in zip(known_values, finite, strict=True)]
        )
        return
    if form == "label":
        quality.add_labels([parsed_label(answer, labels) for answer in answers], known_labels)
        return
    if form == "label_and_probabilities":
        answers = [answer.get("probabilities") if isinstance(answer, dict) else None for answer in answers]
    matrix = matrix_of(answers)
    if matrix is not None and matrix.shape[1] == len(labels):
        quality.add_probabilities(matrix, labels, known_labels)
    else:  # of another model: it is not known which label is which
        quality.add_labels([None] * len(answers), [None] * len(answers))
