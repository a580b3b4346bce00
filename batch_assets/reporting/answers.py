"""What the numbers of the answers are like: finite, probabilities that sum to one, and how values are spread."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from batch_assets.monitoring.quality import Quality
from batch_assets.settings.items import Form

Matrix = npt.NDArray[np.float64]
_NUMBERS = {int, float}
# A probability of single precision is off by 1e-7, and there may be thousands of them.
SUM_TOLERANCE = 1e-3
# Named as examples.
IDS_NAMED = 10
# Of each batch: enough for the shape of a distribution, in memory that an hour of any size can have.
_VALUES_KEPT = 200


@dataclass
class Answers:
    """What the numbers of the predictions of an hour are like.

    Attributes:
        not_finite: Predictions in which something that should be a number is none, or is not finite.
        wrong_sums: Predictions whose probabilities are finite and do not sum to one.
        odd_ids: The first items that have either.
        values: A sample of single numbers, where that is what is written.
        count: How many single numbers there are.
        mean: Their mean.
        least: The least of them.
        most: The largest of them.
    """

    not_finite: int = 0
    wrong_sums: int = 0
    odd_ids: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    count: int = 0
    mean: float = 0.0
    least: float = math.inf
    most: float = -math.inf

    def numbers(self) -> dict[str, int | float]:
        """Returns what is worth a plot: the spread of the values only where values are written."""
        found: dict[str, int | float] = {"not_finite": self.not_finite, "wrong_sums": self.wrong_sums}
        if self.count:
            found |= {"least_value": self.least, "mean_value": self.mean, "largest_value": self.most}
        return found

    def add(self, keys: Sequence[int], documents: Sequence[Any], form: Form, matrix: Matrix | None) -> None:
        """Looks at the answers of a batch.

        Args:
            keys: The ids of the items.
            documents: Their answers, as `parsed_texts` returns them.
            form: What they are.
            matrix: The documents as `matrix_of` returns them, where that was asked.
        """
        if form in ("value", "probability"):
            self._add_values(keys, documents)
            return
        if form == "label_and_probabilities":
            documents = [
                document.get("probabilities") if isinstance(document, dict) else None for document in documents
            ]
            matrix = matrix_of(documents)
        elif form != "probabilities":
            return
        if matrix is not None and bool((np.abs(matrix.sum(axis=1) - 1) <= SUM_TOLERANCE).all()):
            return  # at a fraction of what it costs to ask each
        for key, document in zip(keys, documents, strict=True):
            finite = isinstance(document, list) and len(document) > 0 and all(map(_is_finite, document))
            if not finite or abs(sum(document) - 1) > SUM_TOLERANCE:
                self._add_odd(key, finite=finite)

    def _add_odd(self, key: int, *, finite: bool) -> None:
        self.not_finite += not finite
        self.wrong_sums += finite
        if len(self.odd_ids) < IDS_NAMED:
            self.odd_ids.append(key)

    def _add_values(self, keys: Sequence[int], documents: Sequence[Any]) -> None:
        values = []
        for key, document in zip(keys, documents, strict=True):
            if _is_finite(document):
                values.append(float(document))
            else:
                self._add_odd(key, finite=False)
        if values:
            self.count += len(values)
            share = len(values) / self.count
            # Of shares of it: the sum itself may be too large for a float.
            self.mean = self.mean * (1 - share) + math.fsum(value / self.count for value in values)
            self.least, self.most = min(self.least, *values), max(self.most, *values)
            self.values += values[:: max(1, len(values) // _VALUES_KEPT)]


def parsed_texts(texts: Sequence[Any], form: Form) -> list[Any]:
    """Returns answers as they are looked at: documents of JSON, and single numbers; labels remain texts."""
    if form in ("value", "probability"):
        return [_number(text) for text in texts]
    if form not in ("probabilities", "label_and_probabilities"):
        return list(texts)
    try:
        return [orjson.loads(text) for text in texts]
    except ValueError:  # of a column of text, which takes what JSON does not
        return [_document(text) for text in texts]


def parsed_label(text: str, labels: Sequence[str]) -> str | None:
    """Returns a label that stands in a column of text, or in one of JSON as a JSON text."""
    if text in labels or not text.startswith('"'):
        return text
    try:
        label = orjson.loads(text)
    except ValueError:
        return text
    return label if isinstance(label, str) else None


def matrix_of(documents: Sequence[Any]) -> Matrix | None:
    """Returns lists of as many numbers each as one matrix, None if they are something else."""
    if set(map(type, documents)) != {list} or len(set(map(len, documents))) != 1 or not documents[0]:
        return None
    if not set(map(type, chain.from_iterable(documents))) <= _NUMBERS:
        return None
    return np.asarray(documents, dtype=np.float64)


def add_answers(  # noqa: PLR0913, PLR0917 - a part of an hour
    quality: Quality,
    form: Form,
    answers: Sequence[Any],
    labels: Sequence[str],
    known_labels: Sequence[str | None],
    known_values: Sequence[float | None],
) -> None:
    """Counts predictions, and how right they were.

    Args:
        quality: Where they are counted.
        form: What they are.
        answers: What was predicted of each item, as `parsed_texts` returns it.
        labels: The labels in the order of the probabilities.
        known_labels: The label that came true of each item, None where it is not known.
        known_values: The number that came true of each item, None where it is not known.
    """
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


def _is_finite(number: Any) -> bool:
    return type(number) in _NUMBERS and math.isfinite(number)


def _document(text: Any) -> Any:
    try:
        return json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        return None


def _number(text: Any) -> Any:
    if isinstance(text, int | float):
        return text
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
