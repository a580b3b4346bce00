"""Scoring: batches of items in, batches of predictions out."""

import datetime
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from batch_assets.database.slices.batch import Batch, FailedRow
from batch_assets.errors import ModelError
from batch_assets.inference.model_check import check_sample
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.packed_lists import Values
from batch_assets.pipeline import ItemTable
from batch_assets.scoring.outcomes import Outcome
from batch_assets.scoring.workers import Part, Workers, in_order, local_workers
from batch_assets.wording import counted

SAMPLE_ITEMS = 100

# Of a model that takes long, so much is scored, written and committed at a time.
_PART_SECONDS = 1.0


@dataclass
class Progress:
    """What scoring has done so far.

    Attributes:
        scored: Items with a prediction.
        codes: Items that failed, by code.
        ignored_keys: Keys of scored items that name no feature.
        seconds: Seconds of each phase: read, check, score; of several workers, those of each.
        started_at: When it began, in UTC.
    """

    scored: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    ignored_keys: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    started_at: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def add(self, outcome: Outcome, scored: int) -> None:
        """Adds what became of a part.

        Args:
            outcome: The outcome.
            scored: How many of its items have a prediction.
        """
        self.scored += scored
        self.codes.update(fault.code for fault in outcome.faults)
        self.ignored_keys += outcome.ignored_keys
        self.seconds["check"] += outcome.check_seconds
        self.seconds["score"] += outcome.score_seconds

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


@dataclass
class _ItemTime:
    """How long an item takes, as far as it is known: so a model that takes long is given fewer items at a time."""

    seconds_per_item: float = 0.0

    def measured(self, seconds: float, items: int) -> None:
        self.seconds_per_item = seconds / items

    def items_at_a_time(self, items: int) -> int:
        """Returns into how many items each a batch is divided evenly; all of them where they are scored in no time."""
        parts = max(1, min(items, round(items * self.seconds_per_item / _PART_SECONDS)))
        return -(-items // parts)


def score(  # noqa: PLR0913 - items and what is known of them, model, workers, progress
    items: Iterable[Batch],
    names: ItemTable,
    model: OnnxModel,
    progress: Progress,
    *,
    sample_known: bool,
    failed_before: Collection[int] = (),
    json_columns: Collection[str] = (),
    workers: Callable[[], AbstractContextManager[Workers]] | None = None,
) -> Generator[Batch]:
    """Scores items batch by batch; what cannot be scored is handed on with the reason, its neighbours are scored.

    Args:
        items: Batches with the key and the values (JSON, or packed lists).
        names: How these columns are named.
        model: The model.
        progress: Is kept up to date.
        sample_known: Whether the model has scored a sample that stands for these items. If not, the first of
            them must be fit for it, be they ever so few: a model of another kind would fail them all.
        failed_before: Ids of items that say nothing about the model, since they have failed before.
        json_columns: Columns of JSON, which take a label or a number as JSON text.
        workers: Makes those ready who score; None for this thread, which then takes one batch after the other.

    Yields:
        Batches with the key, the values as they were read and each column that the model's answer is written to, and
        the items that failed. Of a model that takes long they are parts of those that were read.

    Raises:
        ModelError: The model does not fit the items, or fails on every one of many.
    """
    columns = (names.key, names.values, *(output.column for output in model.outputs))
    item_time = _ItemTime()

    def alone() -> AbstractContextManager[Workers]:
        return nullcontext(local_workers(model, json_columns))

    parts = _parts(items, names, model, progress, item_time, sample_known=sample_known, failed_before=failed_before)
    with closing(parts), closing(in_order(parts, workers or alone)) as outcomes:
        for part, outcome in _unless_all_are_refused(outcomes, model):
            if part.keys:
                item_time.measured(outcome.check_seconds + outcome.score_seconds, len(part.keys))
            batch = _batch(columns, part, outcome)
            progress.add(outcome, len(batch))
            yield batch


def _parts(  # noqa: PLR0913 - as of `score`
    items: Iterable[Batch],
    names: ItemTable,
    model: OnnxModel,
    progress: Progress,
    item_time: _ItemTime,
    *,
    sample_known: bool,
    failed_before: Collection[int],
) -> Generator[Part]:
    """Reads the items, has a sample of them scored where nothing is known of the model, and divides them into parts."""
    source, first = iter(items), True
    while True:
        start = time.perf_counter()
        batch = next(source, None)
        progress.seconds["read"] += time.perf_counter() - start
        if batch is None:
            return
        keys, values = batch.column(names.key), batch.column(names.values)
        known = (each for key, each in zip(keys, values, strict=True) if key not in failed_before)
        sample = list(islice(known, SAMPLE_ITEMS))
        if model.width is None:  # which they must tell, whatever else they say
            sample = sample or values[:SAMPLE_ITEMS]
        # A few items that do not fit may be bad ones; so many of them are of another kind, whatever the sample is.
        if (sample and not sample_known) or (first and len(sample) >= SAMPLE_ITEMS):
            start = time.perf_counter()
            sample_known = check_sample(model, sample, "the items of the hour") > 0 or sample_known
            if first:
                item_time.measured(time.perf_counter() - start, len(sample))
        first = False
        yield from _divided(keys, values, model, item_time)


def _divided(keys: Sequence[int], values: Sequence[Values], model: OnnxModel, item_time: _ItemTime) -> Iterator[Part]:
    if model.width is None:
        raise ModelError(
            f"The model {model.name} does not say how many numbers it takes: name a file with "
            "the values of a few items in SAMPLE_DATA_PATH."
        )
    step = max(1, item_time.items_at_a_time(len(keys)))
    for start in range(0, max(1, len(keys)), step):
        end = start + step
        yield Part(keys[start:end], values[start:end], model.width, is_last=end >= len(keys))


def _unless_all_are_refused(
    outcomes: Iterable[tuple[Part, Outcome]], model: OnnxModel
) -> Iterator[tuple[Part, Outcome]]:
    """Hands on what it is given, but no part of a batch before the model has scored an item of it.

    Raises:
        ModelError: The model fails on every item of a batch, and they are too many for all of them to be to blame.
    """
    held: list[tuple[Part, Outcome]] = []
    taken, refusals = 0, list[str]()
    for part, outcome in outcomes:
        held.append((part, outcome))
        taken += outcome.taken
        refusals += outcome.refusals
        if len(refusals) < taken or part.is_last:
            if len(refusals) == taken >= SAMPLE_ITEMS:
                raise ModelError(
                    f"The model {model.name} fails on every one of {counted(taken, 'item')}, on the "
                    f"first of them with: {refusals[0]}. Nothing of this batch is written: use another model "
                    "(MODEL_FILEPATH), or fix the items."
                )
            yield from held
            held = []
        if part.is_last:
            taken, refusals = 0, []


def _batch(columns: tuple[str, ...], part: Part, outcome: Outcome) -> Batch:
    keys, values = part.keys, part.values
    failed = [FailedRow(keys[index], values[index], code, message) for index, code, message in outcome.faults]
    if failed:
        without = {fault.index for fault in outcome.faults}
        scored = [position for position in range(len(values)) if position not in without]
        keys, values = [keys[position] for position in scored], [values[position] for position in scored]
    return Batch(columns, list(zip(keys, values, *outcome.columns, strict=True)), failed)
