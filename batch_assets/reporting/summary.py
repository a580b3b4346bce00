"""The summary of an hour: counted from the rows that stand in the table, not from what a run believes."""

import datetime
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.reading import read_batches
from batch_assets.database.slices.replacing import replace_slice
from batch_assets.database.slices.table_slice import Keys, TableSlice, TimeWindows
from batch_assets.hours import Hour
from batch_assets.pipeline import ItemTable
from batch_assets.reporting.answers import Answers, Matrix, matrix_of, parsed_label, parsed_texts
from batch_assets.settings.items import Form

# A prediction that has another number of probabilities than the model in force has labels.
OTHER_LABELS = "(other labels)"


@dataclass
class Outcome:
    """What became of the items of an hour.

    Attributes:
        items: All of them.
        predicted: With a prediction.
        failed: Without one, since they cannot be scored.
        label_counts: Predicted items by their most probable label, every label of the model named.
        answers: What the numbers of the predictions are like.
    """

    items: int = 0
    predicted: int = 0
    failed: int = 0
    label_counts: Counter[str] = field(default_factory=Counter)
    answers: Answers = field(default_factory=Answers)

    @property
    def failed_share(self) -> float:
        """Failed items by all items, 0 for an hour without items."""
        return self.failed / self.items if self.items else 0.0

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
        by_model: How many predictions stem from which model.
    """

    pipeline: str
    hour: datetime.datetime
    outcome: Outcome
    scoring: Mapping[str, Any]
    by_model: Mapping[str, int] = field(default_factory=dict)

    @property
    def predicted_by_other_models(self) -> int:
        """How many predictions stem from another model than that of the run that last scored items of the hour."""
        version = self.scoring.get("model_version")
        return sum(count for model, count in self.by_model.items() if version and model != version)

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
            "failed_share": round(self.outcome.failed_share, 6),
            **self.outcome.answers.numbers(),
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
            "predicted_by_other_models": self.predicted_by_other_models,
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
    counted = dict.fromkeys((names.outputs[0], names.labelled_output or names.outputs[0]))
    for batch in batches:
        keys, answers = batch.column(names.key), batch.column(names.prediction)
        outcome.items += len(batch)
        outcome.predicted += len(answers) - answers.count(None)
        outcome.failed += sum(key in failed for key, text in zip(keys, answers, strict=True) if text is None)
        for output in counted:
            predictions = list(batch.column(output.column))
            keys_of_predictions = list(keys)
            if None in predictions:
                keys_of_predictions = [key for key, text in zip(keys, predictions, strict=True) if text is not None]
                predictions = [text for text in predictions if text is not None]
            documents = parsed_texts(predictions, output.form)
            matrix = matrix_of(documents) if output.form == "probabilities" else None
            outcome.answers.add(keys_of_predictions, documents, output.form, matrix)
            if output == names.labelled_output:
                outcome.label_counts.update(_count_labels(documents, output.form, labels, matrix))
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


def _count_labels(documents: Sequence[Any], form: Form, labels: Sequence[str], matrix: Matrix | None) -> Counter[str]:
    if form == "probabilities":
        return _count_winners(documents, labels, matrix)
    counted: Counter[str] = Counter()
    if form == "label":
        found = {text: parsed_label(text, labels) for text in set(documents)}
        names = [found[text] for text in documents]
    else:
        names = [document.get("label") if isinstance(document, dict) else None for document in documents]
    for label, count in Counter(name if isinstance(name, str) else None for name in names).items():
        counted[OTHER_LABELS if label is None or (labels and label not in labels) else label] += count
    return counted


def _count_winners(documents: Sequence[Any], labels: Sequence[str], matrix: Matrix | None) -> Counter[str]:
    if matrix is None or matrix.shape[1] != len(labels):
        known = [row for row in documents if isinstance(row, list) and row and len(row) == len(labels)]
        matrix = matrix_of([row for row in known if matrix_of([row]) is not None])
    counted: Counter[str] = Counter()
    if matrix is not None:
        winners = matrix.argmax(axis=1)
        counted.update({label: int(np.count_nonzero(winners == index)) for index, label in enumerate(labels)})
    others = len(documents) - (0 if matrix is None else len(matrix))
    if others:
        counted[OTHER_LABELS] = others
    return counted
