"""How right the answers were, once it is known what came true; and how right they should be before.

Brier's score is that of several classes, the mean of the summed squares: 0 is right and sure, 2 is wrong and sure
(Brier 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2). The expected accuracy is the mean of the
largest probabilities, as NannyML's CBPE has it, and holds as far as the probabilities are calibrated (Bialek et al.
2024, https://arxiv.org/abs/2401.08348).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Of equal width, as a reliability diagram has them.
BINS = 10

Matrix = NDArray[np.float64]


@dataclass
class CalibrationBin:
    """The predictions whose largest probability lies in one of ten equal parts of 0 to 1.

    Attributes:
        items: How many of them have an actual.
        confidence: Their largest probabilities, summed up.
        right: How many of them came true.
    """

    items: int = 0
    confidence: float = 0.0
    right: int = 0


@dataclass
class Quality:
    """How right the predictions of some items were.

    Attributes:
        predicted: Items with a prediction.
        known: Those of them of which it is known what came true.
        unknown_labels: Those whose actual is none of the model's labels: they count as wrong.
        right: Those whose most probable label came true.
        squares: Brier's sum over those with probabilities.
        scored: How many these are.
        absolute: The absolute errors of numbers, summed up.
        measured: How many numbers were compared.
        confidence: The largest probability of every prediction, summed up.
        confident: How many predictions have probabilities.
        bins: By the largest probability.
    """

    predicted: int = 0
    known: int = 0
    unknown_labels: int = 0
    right: int = 0
    squares: float = 0.0
    scored: int = 0
    absolute: float = 0.0
    measured: int = 0
    confidence: float = 0.0
    confident: int = 0
    bins: list[CalibrationBin] = field(default_factory=lambda: [CalibrationBin() for _ in range(BINS)])

    @property
    def coverage(self) -> float | None:
        """Of how large a share of the predictions it is known what came true; None without predictions."""
        return self.known / self.predicted if self.predicted else None

    @property
    def accuracy(self) -> float | None:
        """The share of the known labels that were right; None where none is known."""
        labelled = self.known - self.measured
        return self.right / labelled if labelled else None

    @property
    def mean_absolute_error(self) -> float | None:
        """Of the known numbers; None where none is known."""
        return self.absolute / self.measured if self.measured else None

    @property
    def brier_score(self) -> float | None:
        """Of the known labels of predictions that are probabilities; None where there is none."""
        return self.squares / self.scored if self.scored else None

    @property
    def expected_accuracy(self) -> float | None:
        """What the accuracy of all predictions should be if their probabilities are calibrated."""
        return self.confidence / self.confident if self.confident else None

    def numbers(self) -> Mapping[str, int | float]:
        """Returns what is worth a plot: what is not known is left out."""
        found = {
            "coverage": self.coverage,
            "accuracy": self.accuracy,
            "mean_absolute_error": self.mean_absolute_error,
            "brier_score": self.brier_score,
            "expected_accuracy": self.expected_accuracy,
        }
        known = {name: round(value, 6) for name, value in found.items() if value is not None}
        return {"predicted": self.predicted, "known": self.known, **known}

    def add_probabilities(self, matrix: Matrix, labels: Sequence[str], actuals: Sequence[str | None]) -> None:
        """Counts predictions that are probabilities.

        Args:
            matrix: Probabilities, shape `[items, labels]`.
            labels: The labels, in their order.
            actuals: What came true of each item, None where it is not known yet.
        """
        winners, largest = matrix.argmax(axis=1), matrix.max(axis=1)
        self.predicted += len(matrix)
        self.confidence += float(largest.sum())
        self.confident += len(matrix)
        places = {label: place for place, label in enumerate(labels)}
        known = np.array([row for row, actual in enumerate(actuals) if actual is not None], np.int64)
        if not len(known):
            return
        # One that the model does not know lies at no place: it is wrong whatever the model says.
        came_true = np.array([places.get(str(actuals[row]), -1) for row in known])
        right = winners[known] == came_true
        chosen = np.zeros((len(known), len(labels)))
        chosen[np.flatnonzero(came_true >= 0), came_true[came_true >= 0]] = 1.0
        self.known += len(known)
        self.unknown_labels += int((came_true < 0).sum())
        self.right += int(right.sum())
        self.squares += float(((matrix[known] - chosen) ** 2).sum())
        self.scored += len(known)
        for place, confidence, hit in zip(
            _bins_of(largest[known]), largest[known].tolist(), right.tolist(), strict=True
        ):
            of_bin = self.bins[place]
            of_bin.items += 1
            of_bin.confidence += confidence
            of_bin.right += hit

    def add_labels(self, predicted: Sequence[str | None], actuals: Sequence[str | None]) -> None:
        """Counts predictions that are labels alone.

        Args:
            predicted: The label of each item, None where the prediction has none.
            actuals: What came true of each item, None where it is not known yet.
        """
        self.predicted += len(predicted)
        for label, actual in zip(predicted, actuals, strict=True):
            if actual is not None:
                self.known += 1
                self.right += label == actual

    def add_numbers(self, predicted: Sequence[float], actuals: Sequence[float | None]) -> None:
        """Counts predictions that are numbers.

        Args:
            predicted: The number of each item.
            actuals: What came true of each item, None where it is not known yet.
        """
        self.predicted += len(predicted)
        for number, actual in zip(predicted, actuals, strict=True):
            if actual is not None:
                self.known += 1
                self.measured += 1
                self.absolute += abs(number - actual)


def _bins_of(confidences: Matrix) -> list[int]:
    bins: list[int] = np.minimum((confidences * BINS).astype(np.int64), BINS - 1).tolist()
    return bins
