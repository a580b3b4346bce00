"""A second model answers a sample of an hour, by the way that an hour is scored; nothing is published."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.challengers import (
    ChallengerAnswer,
    SampledItem,
    keys_to_sample,
    sample_of_hour,
)
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.database.slices.batch import Batch
from batch_assets.errors import ModelError, RegistryError
from batch_assets.hours import Hour
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.monitoring.samples import lowest_hashed
from batch_assets.pipeline import Pipeline
from batch_assets.scoring.batches import Progress, score

_ITEMS_AT_ONCE = 1_000


@dataclass(frozen=True)
class SampleAnswers:
    """What two models answer to a sample of an hour.

    Args:
        items: The sample, with what the model in force has written.
        answers: What the challenger answers to each of them, in the same order.
    """

    items: Sequence[SampledItem]
    answers: Sequence[ChallengerAnswer]


def answer_sample(pipeline: Pipeline, hour: Hour, predicted: int, most: int, model: OnnxModel) -> SampleAnswers:
    """Has a challenger answer the items of a sample of an hour. Nothing is written.

    Args:
        pipeline: The pipeline.
        hour: The hour.
        predicted: About how many of its items have a prediction.
        most: How many items the sample has at the most.
        model: The challenger.

    Raises:
        ModelError: The challenger does not fit the items.
        DatabaseError: A table is missing, or the server is away.
    """
    engine, tables, names = engine_for(pipeline.database), pipeline_tables(pipeline), pipeline.items
    keys = np.array(keys_to_sample(engine, tables, hour, predicted, most), np.int64)
    column = (names.labelled_output or names.outputs[0]).column
    items = sample_of_hour(engine, tables, hour, column, lowest_hashed(keys, most).tolist())
    columns = [output.column for output in names.outputs]
    answered: dict[int, ChallengerAnswer] = {}
    # As JSON, whatever the columns of the items are.
    for batch in score(_batches(pipeline, items), names, model, Progress(), sample_known=False, json_columns=columns):
        pairs = zip(batch.column(names.key), batch.column(column), strict=True)
        answered |= {key: ChallengerAnswer(key, answer) for key, answer in pairs}
        answered |= {row.key: ChallengerAnswer(row.key, None, row.code) for row in batch.failed}
    return SampleAnswers(items, [answered[item.item_id] for item in items])


def _batches(pipeline: Pipeline, items: Sequence[SampledItem]) -> Iterator[Batch]:
    names = (pipeline.items.key, pipeline.items.values)
    for start in range(0, len(items), _ITEMS_AT_ONCE):
        yield Batch(names, [(item.item_id, item.values) for item in items[start : start + _ITEMS_AT_ONCE]])


@contextmanager
def faults_of_challenger() -> Iterator[None]:
    """Has a fault of a model name the challenger, and the variables that say where it is.

    Raises:
        ModelError: With the fault of the model.
    """
    try:
        yield
    except RegistryError:  # which says nothing of these variables, and may be transient
        raise
    except ModelError as error:
        text = str(error).replace("LABEL_FILEPATH", "CHALLENGER_LABEL_FILEPATH")
        text = text.replace("MODEL_FILEPATH", "CHALLENGER_FILEPATH")
        raise ModelError(f"The challenger cannot be used. {text}") from error
