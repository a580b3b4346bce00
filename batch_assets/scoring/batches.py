"""Scoring: batches of items in, batches of predictions out."""

import datetime
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.database.slices.batch import Batch, FailedRow
from batch_assets.errors import ModelError, ModelRunError
from batch_assets.inference.answer_forms import are_finite, not_finite_text, written
from batch_assets.inference.item_format import BadValues, CheckedValues
from batch_assets.inference.model_check import check_sample
from batch_assets.inference.model_outputs import Answers, joined
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import ItemTable
from batch_assets.wording import counted

SAMPLE_ITEMS = 100

# ONNX Runtime takes ten times as long to fail as to score: below this, further halving costs more than it saves.
ONE_BY_ONE_ITEMS = 8


@dataclass
class Progress:
    """What scoring has done so far.

    Attributes:
        scored: Items with a prediction.
        codes: Items that failed, by code.
        ignored_keys: Keys of scored items that name no feature.
        seconds: Seconds of each phase: read, check, score.
        started_at: When it began, in UTC.
    """

    scored: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    ignored_keys: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    started_at: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    @property
    def failed(self) -> int:
        """Items that could not be scored."""
        return self.codes.total()

    def metadata(self) -> Mapping[str, Any]:
        """Returns all of it as plain numbers, under the same keys for every hour."""
        return {
            "scored": self.scored,
            "failed": self.failed,
            "failed_by_code": dict(sorted(self.codes.items())),
            "ignored_keys": self.ignored_keys,
            "started_at": self.started_at.isoformat(timespec="seconds"),
            **{f"{phase}_seconds": round(self.seconds[phase], 3) for phase in ("read", "check", "score")},
        }


def score(  # noqa: PLR0913 - items and what is known of them, model, progress
    items: Iterable[Batch],
    names: ItemTable,
    model: OnnxModel,
    progress: Progress,
    *,
    sample_known: bool,
    failed_before: Collection[int] = (),
    json_columns: Collection[str] = (),
) -> Iterator[Batch]:
    """Scores items batch by batch; what cannot be scored is handed on with the reason, its neighbours are scored.

    Args:
        items: Batches with the key and the values (JSON text).
        names: How these columns are named.
        model: The model.
        progress: Is kept up to date.
        sample_known: Whether the model has scored a sample that stands for these items. If not, the first of
            them must be fit for it, be they ever so few: a model of another kind would fail them all.
        failed_before: Ids of items that say nothing about the model, since they have failed before.
        json_columns: Columns of JSON, which take a label or a number as JSON text.

    Yields:
        Batches with the key, the values as they were read and each column that the model's answer is written to, and
        the items that failed.

    Raises:
        ModelError: The model does not fit the items, or fails on every one of many.
    """
    source, first = iter(items), True
    while True:
        start = time.perf_counter()
        batch = next(source, None)
        progress.seconds["read"] += time.perf_counter() - start
        if batch is None:
            return
        ids, texts = batch.column(names.key), batch.column(names.values)
        known = (text for key, text in zip(ids, texts, strict=True) if key not in failed_before)
        sample = list(islice(known, SAMPLE_ITEMS))
        if model.width is None:  # which they must tell, whatever else they say
            sample = sample or texts[:SAMPLE_ITEMS]
        # A few items that do not fit may be bad ones; so many of them are of another kind, whatever the sample is.
        if (sample and not sample_known) or (first and len(sample) >= SAMPLE_ITEMS):
            sample_known = check_sample(model, sample, "the items of the hour") > 0 or sample_known
        first = False
        rows, failed = _score_batch(ids, texts, model, progress, json_columns)
        yield Batch((names.key, names.values, *(output.column for output in model.outputs)), rows, failed)


def _score_batch(
    ids: list[int], texts: list[str], model: OnnxModel, progress: Progress, json_columns: Collection[str]
) -> tuple[list[tuple[Any, ...]], list[FailedRow]]:
    start = time.perf_counter()
    if model.width is None:
        raise ModelError(
            f"The model {model.name} does not say how many numbers it takes: name a file with "
            "the values of a few items in SAMPLE_DATA_PATH."
        )
    checked = model.check(texts, model.width)
    checked_at = time.perf_counter()
    answers, reasons = _answers(model, checked.features)
    finite = are_finite(answers)
    failed: list[FailedRow] = []
    if len(finite) < len(texts) or not finite.all():
        faults = _faults(checked, reasons, answers, finite)
        failed = [FailedRow(ids[index], texts[index], code, message) for index, code, message in faults]
        without = {fault.index for fault in faults}
        scored = [position for position in range(len(texts)) if position not in without]
        ids, texts = [ids[position] for position in scored], [texts[position] for position in scored]
        answers = {name: rows[finite] for name, rows in answers.items()}
    columns = [
        written(model.read, answers, output.form, as_json=output.column in json_columns) for output in model.outputs
    ]
    rows: list[tuple[Any, ...]] = list(zip(ids, texts, *columns, strict=True))
    progress.seconds["check"] += checked_at - start
    progress.seconds["score"] += time.perf_counter() - checked_at
    progress.scored += len(rows)
    progress.ignored_keys += checked.ignored_keys
    progress.codes.update(row.code for row in failed)
    return rows, failed


def _faults(
    checked: CheckedValues, reasons: Mapping[int, str], answers: Answers, finite: NDArray[np.bool_]
) -> list[BadValues]:
    """Returns what has no prediction: bad values, items on which the model fails, and answers that are no numbers."""
    positions = checked.positions.tolist()
    answered = [position for row, position in enumerate(positions) if row not in reasons]
    not_finite = [
        BadValues(answered[row], "model_not_finite", f"the model's answer is {not_finite_text(answers, row)}")
        for row in np.flatnonzero(~finite).tolist()
    ]
    return [
        *checked.bad,
        *(BadValues(positions[row], "model_error", f"the model fails: {reason}") for row, reason in reasons.items()),
        *not_finite,
    ]


def _answers(model: OnnxModel, features: NDArray[Any]) -> tuple[Answers, dict[int, str]]:
    """Scores a batch; the items on which the model fails are left out.

    Returns:
        The answers to the other items, in their order; and for the index of each item that was left out, what the
        model says.

    Raises:
        ModelError: It fails on every one of the items, and they are too many for all of them to be to blame.
    """
    answers, reasons = _split(model, features)
    if len(reasons) == len(features) >= SAMPLE_ITEMS:
        raise ModelError(
            f"The model {model.name} fails on every one of {counted(len(features), 'item')}, on the "
            f"first of them with: {reasons[0]}. Nothing of this batch is written: use another model (MODEL_FILEPATH), "
            "or fix the items."
        )
    return answers, reasons


def _split(model: OnnxModel, features: NDArray[Any]) -> tuple[Answers, dict[int, str]]:
    """Scores a batch, or each half of it by itself if the model fails on it, down to the single item."""
    try:
        return model.answers(features), {}
    except ModelRunError as error:
        if len(features) == 1:
            return model.answers(features[:0]), {0: error.reason}
    step = 1 if len(features) <= ONE_BY_ONE_ITEMS else -(-len(features) // 2)
    parts, reasons = [], {}
    for start in range(0, len(features), step):
        answers, of_part = _split(model, features[start : start + step])
        parts.append(answers)
        reasons.update({start + row: reason for row, reason in of_part.items()})
    return joined(parts), reasons
