"""The summary of an hour: counted from the rows that stand in the table, not from what a run believes."""

import datetime
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.reading import read_batches
from batch_assets.database.slices.replacing import replace_slice
from batch_assets.database.slices.table_slice import Keys, TableSlice, TimeWindows
from batch_assets.hours import Hour
from batch_assets.pipeline import ItemTable
from batch_assets.settings.items import Output

# A prediction that has another number of probabilities than the model in force has labels.
OTHER_LABELS = "(other labels)"
_NUMBERS = {int, float}


@dataclass
class Outcome:
    """What became of the items of an hour.

    Attributes:
        items: All of them.
        predicted: With a prediction.
        failed: Without one, since they cannot be scored.
        label_counts: Predicted items by their most probable label, every label of the model named.
    """

    items: int = 0
    predicted: int = 0
    failed: int = 0
    label_counts: Counter[str] = field(default_factory=Counter)

    @property
    def pending(self) -> int:
        """Without a prediction and not failed."""
        return self.items - self.predicted - self.failed


@dataclass(frozen=True)
class Summary:
    """The row of an hour in `run_summary`.

    Args:
        pipeline: The name of the pipeline.
        hour: Start of the hour, in UTC without a zone.
        outcome: What became of its items.
        scoring: The run that last scored items of the hour: `run_id` and `finished_at`, and what it said of
            itself: `model_version`, `retry`, `started_at`, `scored`, `ignored_keys` and the seconds of its phases.
    """

    pipeline: str
    hour: datetime.datetime
    outcome: Outcome
    scoring: Mapping[str, Any]

    def batch(self) -> Batch:
        """Returns the row as it is stored."""
        started = self.scoring.get("started_at")
        row = {
            "pipeline": self.pipeline,
            "hour": self.hour,
            "label_counts": json.dumps(self.outcome.label_counts),
            "model_version": self.scoring.get("model_version"),
            "retry": self.scoring.get("retry"),
            "run_id": self.scoring["run_id"],
            "started_at": _in_seconds(datetime.datetime.fromisoformat(started)) if started else None,
            "finished_at": _in_seconds(self.scoring["finished_at"]),
            **self._counts(),
            **self._speeds(),
        }
        return Batch(tuple(row), [tuple(row.values())])

    def numbers(self) -> dict[str, int | float]:
        """Returns what is worth a plot; speeds are left out where nothing was scored."""
        return {
            **self._counts(),
            **{name: speed for name, speed in self._speeds().items() if speed is not None},
        }

    def _counts(self) -> dict[str, int]:
        outcome = self.outcome
        return {
            "items": outcome.items,
            "predicted": outcome.predicted,
            "failed": outcome.failed,
            "pending": outcome.pending,
            "ignored_keys": self.scoring.get("ignored_keys", 0),
        }

    def _speeds(self) -> dict[str, int | float | None]:
        rows = self.scoring.get("scored")
        speeds: dict[str, int | float | None] = {"scored": rows}
        for phase in ("", "read_", "check_", "score_", "write_"):
            seconds = self.scoring.get(f"{phase}seconds")
            speeds[f"{phase}rows_per_second"] = round(rows / seconds, 1) if rows and seconds else None
        return speeds


def count_outcome(
    batches: Iterable[Batch], names: ItemTable, failed: Collection[int], labels: Sequence[str]
) -> Outcome:
    """Counts the items of an hour by outcome and by label, if what is written has one.

    Args:
        batches: All items of the hour with the columns of `columns_to_count`.
        names: How these columns are named, and how predictions are written.
        failed: The ids of failed items.
        labels: The labels in the order of the probabilities; none where only the predictions name them.
    """
    outcome = Outcome(label_counts=Counter(dict.fromkeys(labels, 0)))
    for batch in batches:
        answers = batch.column(names.prediction)
        outcome.items += len(batch)
        outcome.predicted += len(answers) - answers.count(None)
        keys_and_answers = zip(batch.column(names.key), answers, strict=True)
        outcome.failed += sum(key in failed for key, text in keys_and_answers if text is None)
        if names.labelled_output is not None:
            predictions = [text for text in batch.column(names.labelled_output.column) if text is not None]
            outcome.label_counts.update(_count_labels(predictions, names.labelled_output, labels))
    return outcome


def columns_to_count(names: ItemTable) -> tuple[str, ...]:
    """Returns the columns that `count_outcome` looks at."""
    labelled = names.labelled_output or names.outputs[0]
    return tuple(dict.fromkeys((names.key, names.prediction, labelled.column)))


def read_predictions(engine: sa.Engine, items: ItemTable, hour: Hour) -> Iterator[Batch]:
    """Reads what `count_outcome` counts."""
    return read_batches(engine, _slice(items.name, items.created, hour, columns=columns_to_count(items)))


def store_summary(engine: sa.Engine, summary: Summary) -> None:
    """Puts the summary of an hour in the place of the one before."""
    of_hour = _slice("run_summary", "hour", Hour(summary.hour))
    of_pipeline = replace(of_hour, partitions=(Keys("pipeline", (summary.pipeline,)), *of_hour.partitions))
    replace_slice(engine, of_pipeline, Batches([summary.batch()]))


def _slice(table: str, column: str, hour: Hour, columns: tuple[str, ...] | None = None) -> TableSlice:
    window = (hour.start.replace(tzinfo=datetime.UTC), hour.end.replace(tzinfo=datetime.UTC))
    return TableSlice(table, partitions=(TimeWindows(column, (window,)),), columns=columns)


def _in_seconds(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(tzinfo=None, microsecond=0)


def _count_labels(predictions: Sequence[str], output: Output, labels: Sequence[str]) -> Counter[str]:
    if output.form == "probabilities":
        return _count_winners([orjson.loads(text) for text in predictions], labels)
    counted: Counter[str] = Counter()
    label_of = _label if output.form == "label" else _label_of_object
    for text, count in Counter(predictions).items():
        label = label_of(text, labels)
        counted[OTHER_LABELS if label is None or (labels and label not in labels) else label] += count
    return counted


def _label(text: str, labels: Sequence[str]) -> str | None:
    """Returns a label that stands in a column of text, or in one of JSON as a JSON text."""
    if text in labels or not text.startswith('"'):
        return text
    try:
        label = orjson.loads(text)
    except ValueError:
        return text
    return label if isinstance(label, str) else None


def _label_of_object(text: str, _labels: Sequence[str]) -> str | None:
    document = orjson.loads(text)
    label = document.get("label") if isinstance(document, dict) else None
    return label if isinstance(label, str) else None


def _count_winners(rows: Sequence[Any], labels: Sequence[str]) -> Counter[str]:
    known = [row for row in rows if isinstance(row, list) and row and len(row) == len(labels)]
    if not set(map(type, chain.from_iterable(known))) <= _NUMBERS:  # which a run does not write, but others may
        known = [row for row in known if set(map(type, row)) <= _NUMBERS]
    counted: Counter[str] = Counter()
    if known:
        winners = np.asarray(known, dtype=np.float64).argmax(axis=1)
        counted.update({label: int(np.count_nonzero(winners == index)) for index, label in enumerate(labels)})
    if len(known) < len(rows):
        counted[OTHER_LABELS] = len(rows) - len(known)
    return counted
