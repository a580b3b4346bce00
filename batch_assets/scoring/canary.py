"""The canary: a few recent items go the way of an hour, and everything is left as it was."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.records.recent_items import answers_to, failed_among, items_of_model, newest_items
from batch_assets.database.records.rights import check_rights
from batch_assets.database.records.values_to_score import slice_to_score
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.reflection import json_columns
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.update_statements import ColumnUpdate
from batch_assets.database.slices.updating import update_rows
from batch_assets.errors import CanaryError
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import Pipeline
from batch_assets.scoring.batches import Progress, score

CANARY_ITEMS = 100
# Another processor, or another number of threads, may round the last digits otherwise.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6
_IDS_NAMED = 10


@dataclass(frozen=True)
class CanaryResult:
    """What a canary has seen.

    Attributes:
        items: Recent items that were looked at.
        scored: Those that the model answers.
        failed: Those that it cannot answer, as an hour would record them.
        compared: Items whose answer was compared with the one that the same model has written for them.
        model: The model.
        model_version: Its SHA-256.
    """

    items: int
    scored: int
    failed: int
    compared: int
    model: str
    model_version: str


class _RolledBack(Exception):  # noqa: N818 - no fault: it ends a transaction that is not to be committed
    """Takes back what the canary wrote."""


def try_pipeline(engine: sa.Engine, pipeline: Pipeline, model: OnnxModel) -> CanaryResult:
    """Scores recent items and writes their predictions in a transaction that is rolled back.

    Args:
        engine: The database.
        pipeline: The pipeline.
        model: The model that the next hour would be scored with.

    Raises:
        DatabaseError: A table, a column or a right is missing, the server is away, or it does not take an answer.
        ModelError: The model does not fit the items.
        CanaryError: The model answers otherwise than it did when it scored the same items.
    """
    tables, names = pipeline_tables(pipeline), pipeline.items
    check_rights(engine)
    known = items_of_model(engine, tables, model.version, CANARY_ITEMS)
    values = newest_items(engine, tables, CANARY_ITEMS) | known
    progress, columns = Progress(), tuple(output.column for output in model.outputs)
    found: dict[int, tuple[Any, ...]] = {}

    def written(connection: sa.Connection, batch: Batch) -> None:
        found.update(answers_to(connection, tables, columns, batch.column(names.key)))
        raise _RolledBack

    with snapshot(engine) as connection:
        stored = answers_to(connection, tables, columns, known)
    items = Batch((names.key, names.values), list(values.items()))
    scored = score(
        [items] if len(items) else [],
        names,
        model,
        progress,
        sample_known=pipeline.model.sample_data_path is not None,
        failed_before=failed_among(engine, tables, values),
        json_columns=json_columns(engine, TableSlice(names.name)),
    )
    update = ColumnUpdate(names.key, columns, (names.values,))
    try:
        update_rows(engine, slice_to_score(tables.items), update, Batches(scored, in_transaction=written, at_once=True))
    except _RolledBack:
        _compare(stored, found, model)
    failed = sum(progress.codes.values())
    return CanaryResult(len(values), progress.scored, failed, len(stored), model.name, model.version)


def _compare(stored: Mapping[int, Sequence[Any]], found: Mapping[int, Sequence[Any]], model: OnnxModel) -> None:
    other = sorted(key for key, answers in stored.items() if not _is_close(answers, found.get(key, answers)))
    if not other:
        return
    first, ids = other[0], ", ".join(map(str, other[:_IDS_NAMED])) + (", ..." if len(other) > _IDS_NAMED else "")
    raise CanaryError(
        f"The model {model.name} has scored {len(stored):,} items, and answers {len(other):,} of them otherwise now "
        f"(items {ids}; of {first} it was {_shown(stored[first])} and is {_shown(found[first])}). Either the values of "
        "an item were changed and its prediction was left, or ONNX Runtime or the processor is another one: find out "
        "which before the next hour is scored."
    )


def _is_close(one: Any, other: Any) -> bool:
    one, other = _parsed(one), _parsed(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[name], other[name]) for name in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return bool(one == other)


def _parsed(answer: Any) -> Any:
    """Returns an answer as it is compared: JSON as what it stands for, numbers as floats."""
    if isinstance(answer, tuple):
        return list(answer)
    if isinstance(answer, str):
        try:
            answer = orjson.loads(answer)
        except ValueError:  # a label in a column of text
            return answer
    if isinstance(answer, bool) or not hasattr(answer, "__float__"):
        return answer
    return float(answer)


def _shown(answers: Sequence[Any]) -> str:
    return ", ".join(str(answer)[:100] for answer in answers)
