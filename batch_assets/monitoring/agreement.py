"""How far the answers of two models to the same items agree, and how far they have shifted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batch_assets.monitoring.distances import population_stability_index

_PARTS = 10
# Of fewer numbers ten parts say nothing.
LEAST_NUMBERS = 10
# What an answer counts as in which no label can be found.
NO_LABEL = "(none)"


class LabelCounts(NamedTuple):
    """To how many items a label is the answer: that of the model, that of the challenger, and that of both."""

    model: int
    challenger: int
    both: int


@dataclass(frozen=True)
class Agreement:
    """How two models answer the same items.

    Attributes:
        compared: How many items.
        agreed: To how many of them both give the same label; None where the answers have none.
        labels: By label, in the order of those of the model.
        mean_absolute_difference: Between two numbers; None where the answers are none.
        correlation: Of the numbers; None where they are none, or do not vary.
        psi: The population stability index: of the labels, or of ten equal parts of the model's numbers.
        differing: The positions of items whose answers differ: numbers that differ most come first.
    """

    compared: int
    agreed: int | None = None
    labels: Mapping[str, LabelCounts] = field(default_factory=dict)
    mean_absolute_difference: float | None = None
    correlation: float | None = None
    psi: float | None = None
    differing: Sequence[int] = ()


def agreement_of_labels(
    model: Sequence[str | None], challenger: Sequence[str | None], labels: Sequence[str]
) -> Agreement:
    """Compares answers that have labels.

    Args:
        model: The label of each item from the model.
        challenger: That from the challenger.
        labels: The labels that come first, in their order.
    """
    pairs = [(one or NO_LABEL, other or NO_LABEL) for one, other in zip(model, challenger, strict=True)]
    counted = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    both = Counter(one for one, other in pairs if one == other)
    names = [*labels, *sorted((counted[0].keys() | counted[1].keys()) - set(labels))]
    found = {name: LabelCounts(counted[0][name], counted[1][name], both[name]) for name in names}
    return Agreement(
        len(pairs),
        both.total(),
        found,
        psi=psi_of_labels(found),
        differing=[position for position, (one, other) in enumerate(pairs) if one != other],
    )


def psi_of_labels(labels: Mapping[str, LabelCounts]) -> float | None:
    """Returns how far the labels of the challenger have shifted from those of the model; None without any item."""
    if not any(counts.model for counts in labels.values()):
        return None
    model, challenger, _ = (np.array(counts, float) for counts in zip(*labels.values(), strict=True))
    return population_stability_index(challenger, model)


def agreement_of_numbers(model: Sequence[float], challenger: Sequence[float]) -> Agreement:
    """Compares answers that are numbers, all of them finite."""
    one, other = np.array(model, float), np.array(challenger, float)
    if not len(one):
        return Agreement(0)
    differences = np.abs(one - other)
    in_order = np.argsort(-differences, kind="stable")
    vary = len(one) > 1 and bool(one.std()) and bool(other.std())
    return Agreement(
        len(one),
        mean_absolute_difference=float(differences.mean()),
        correlation=float(np.corrcoef(one, other)[0, 1]) if vary else None,
        psi=_psi_of_numbers(one, other),
        differing=[position for position in in_order.tolist() if differences[position]],
    )


def _psi_of_numbers(model: NDArray[np.float64], challenger: NDArray[np.float64]) -> float | None:
    if len(model) < LEAST_NUMBERS:
        return None
    edges = np.unique(np.quantile(model, np.arange(1, _PARTS) / _PARTS))
    found, expected = (
        np.bincount(np.searchsorted(edges, numbers, "right"), minlength=len(edges) + 1).astype(float)
        for numbers in (challenger, model)
    )
    return population_stability_index(found, expected)
