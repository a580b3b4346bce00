"""Scoring: batches of items in, batches of predictions out."""

import datetime
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.database.batches import Batch, FailedRow
from batch_assets.errors import ModelError
from batch_assets.inference.model import OnnxModel, check_sample
from batch_assets.inference.values import check_values

SAMPLE_ITEMS = 100


@dataclass
class Progress:
    """What scoring has done so far.

    Attributes:
        scored: Items with a prediction.
        codes: Items that failed, by code.
        seconds: Seconds of each phase: read, check, score.
        started_at: When it began, in UTC.
    """

    scored: int = 0
    codes: Counter[str] = field(default_factory=Counter)
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
            "started_at": self.started_at.isoformat(timespec="seconds"),
            **{f"{phase}_seconds": round(self.seconds[phase], 3) for phase in ("read", "check", "score")},
        }


def score(items: Iterable[Batch], model: OnnxModel, progress: Progress, *, sample_known: bool) -> Iterator[Batch]:
    """Scores items batch by batch; what cannot be scored is handed on with the reason, its neighbours are scored.

    Args:
        items: Batches with the columns `id` and `values` (JSON text).
        model: The model.
        progress: Is kept up to date.
        sample_known: Whether the model has scored a sample that stands for these items. If not, the first of
            them must be fit for it, be they ever so few: a model of another kind would fail them all.

    Yields:
        Batches with the columns `id`, `values` as they were read and `prediction` (JSON text), and the
        items that failed.

    Raises:
        ModelError: The model does not fit the items, or fails on a batch.
    """
    source, first = iter(items), True
    while True:
        start = time.perf_counter()
        batch = next(source, None)
        progress.seconds["read"] += time.perf_counter() - start
        if batch is None:
            return
        texts = batch.column("values")
        # A few items that do not fit may be bad ones; so many of them are of another kind, whatever the sample is.
        if not sample_known or (first and len(texts) >= SAMPLE_ITEMS):
            sample_known = check_sample(model, texts[:SAMPLE_ITEMS], "the items of the hour") > 0 or sample_known
        first = False
        yield _score_batch(batch.column("id"), texts, model, progress)


def _score_batch(ids: list[int], texts: list[str], model: OnnxModel, progress: Progress) -> Batch:
    start = time.perf_counter()
    if model.width is None:
        raise ModelError(
            f"The model {model.model_filepath.name} does not say how many numbers it takes: name a file with "
            "the values of a few items in SAMPLE_DATA_PATH."
        )
    checked = check_values(texts, model.width, model.dtype)
    checked_at = time.perf_counter()
    probabilities = model.probabilities(checked.features)
    finite = np.isfinite(probabilities).all(axis=1)
    predictions = _json_texts(probabilities)
    rows, failed = [], [FailedRow(ids[i], texts[i], code, message) for i, code, message in checked.bad]
    for position, text, fine in zip(checked.positions.tolist(), predictions, finite.tolist(), strict=True):
        if fine:
            rows.append((ids[position], texts[position], text))
        else:
            failed.append(
                FailedRow(ids[position], texts[position], "model_not_finite", f"the model's answer is {text}")
            )
    progress.seconds["check"] += checked_at - start
    progress.seconds["score"] += time.perf_counter() - checked_at
    progress.scored += len(rows)
    progress.codes.update(row.code for row in failed)
    return Batch(("id", "values", "prediction"), rows, failed)


def _json_texts(probabilities: NDArray[Any]) -> list[str]:
    """Writes each row as a JSON list with as many digits as its type holds."""
    text = orjson.dumps(np.ascontiguousarray(probabilities), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    # [[a,b],[c,d]]: numbers and nulls hold no brackets, so the rows are what stands between those.
    return [f"[{row}]" for row in text[2:-2].split("],[")] if len(probabilities) else []
