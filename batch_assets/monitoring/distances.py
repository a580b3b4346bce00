"""How far the values of an hour lie from what is expected: a test, which says whether chance may do, and two sizes.

Kolmogorov-Smirnov compares the cumulative shares of numbers, chi-square the counts of texts. The population stability
index weighs how the shares of ten equal parts, or of the texts, have moved. The Wasserstein distance is how far the
values must be moved on the average, in standard deviations; of texts, the share that must become another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch_assets.monitoring.sketches import Column, Sketch, quantiles_of, sketch_of

_PARTS = 10
# A part in which there is nothing counts as half an item, where its logarithm would be infinite.
_HALF_AN_ITEM = 0.5
# The approximation of chi-square holds from so many on.
_LEAST_EXPECTED = 5.0
# A test of numbers needs some.
LEAST_NUMBERS = 10


@dataclass(frozen=True)
class Distance:
    """How far a feature lies from what is expected.

    Args:
        statistic: That of the test: the largest difference of the cumulative shares, or chi-square.
        p: How likely chance is to make as much of it.
        psi: The population stability index.
        wasserstein: The Wasserstein distance, in standard deviations of what is expected.
    """

    statistic: float
    p: float
    psi: float
    wasserstein: float


def distance(column: Column, expected: Sketch) -> Distance:
    """Returns how far the values of an hour lie from what is expected, both of numbers or both of texts."""
    if expected.quantiles is None:
        return _of_texts(column, expected)
    return _of_numbers(column, expected, expected.quantiles)


def average(sketches: Sequence[Sketch]) -> Sketch:
    """Returns what lies in the middle of several sketches of one feature.

    Of numbers the quantiles are averaged, which is the distribution nearest to all of them by the Wasserstein distance.
    """
    count, nulls = sum(sketch.count for sketch in sketches), sum(sketch.nulls for sketch in sketches)
    quantiles = [sketch.quantiles for sketch in sketches if sketch.quantiles is not None and len(sketch.quantiles)]
    if quantiles:
        return Sketch(count, nulls, np.mean(quantiles, axis=0), None)
    categories: dict[str, float] = {}
    for sketch in sketches:
        for name, number in (sketch.categories or {}).items():
            categories[name] = categories.get(name, 0) + number
    return Sketch(count, nulls, None, categories)


def _of_numbers(column: Column, expected: Sketch, quantiles: NDArray[np.float64]) -> Distance:
    nulls = np.array([[column.nulls, len(column.numbers)], [expected.nulls, expected.count - expected.nulls]], float)
    p_nulls = _chi_square(nulls)[1] if column.nulls or expected.nulls else None
    if len(column.numbers) < LEAST_NUMBERS or not len(quantiles):
        psi = population_stability_index(nulls[0], nulls[1])
        return Distance(0.0, 1.0 if p_nulls is None else p_nulls, psi, 0.0)
    statistic = _kolmogorov_smirnov(column.numbers, quantiles)
    there, others = len(column.numbers), expected.count - expected.nulls
    root = (there * others / (there + others)) ** 0.5
    p = _kolmogorov(statistic * (root + 0.12 + 0.11 / root))  # by Stephens, for few items too
    if p_nulls is not None:  # two tests of one feature, by Bonferroni
        p = min(1.0, 2 * min(p, p_nulls))
    edges = np.unique(quantiles[len(quantiles) // _PARTS :: len(quantiles) // _PARTS])
    parts = [
        np.append(np.bincount(np.searchsorted(edges, values, "right"), minlength=len(edges) + 1), missing)
        for values, missing in (
            (column.numbers, float(column.nulls)),
            (quantiles, expected.nulls * len(quantiles) / max(others, 1)),
        )
    ]
    spread = float(quantiles.std()) or 1.0
    moved = np.abs(quantiles_of(column.numbers) - quantiles).mean() / spread
    return Distance(statistic, p, population_stability_index(parts[0], parts[1]), float(moved))


def _kolmogorov_smirnov(numbers: NDArray[np.float64], quantiles: NDArray[np.float64]) -> float:
    """Returns the largest difference of the cumulative shares, looked for where quantiles are.

    At a value that several quantiles have, as whole numbers do, the share jumps: it is compared below and above.
    """
    points, repeated = np.unique(quantiles, return_counts=True)
    ends = np.cumsum(repeated) / len(quantiles)
    below, above = (np.searchsorted(numbers, points, side) / len(numbers) for side in ("left", "right"))
    once = repeated == 1
    middle = np.where(once, ends - 0.5 / len(quantiles), 0.0)
    below_or_at = np.where(once, (below + above) / 2 - middle, below - (ends - repeated / len(quantiles)))
    above_or_at = np.where(once, (below + above) / 2 - middle, above - ends)
    return float(max(np.abs(below_or_at).max(), np.abs(above_or_at).max()))


def _of_texts(column: Column, expected: Sketch) -> Distance:
    found = sketch_of(column, expected).categories or {}
    categories = expected.categories or {}
    names = sorted(set(found) | set(categories))
    counts = np.array(
        [
            [*(found.get(name, 0) for name in names), column.nulls],
            [*(categories.get(name, 0) for name in names), expected.nulls],
        ],
        float,
    )
    statistic, p = _chi_square(counts)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return Distance(
        statistic, p, population_stability_index(counts[0], counts[1]), float(np.abs(shares[0] - shares[1]).sum() / 2)
    )


def _chi_square(counts: NDArray[np.float64]) -> tuple[float, float]:
    """Returns chi-square of two rows of counts, and its p; what is rare is counted together."""
    rare = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum() < _LEAST_EXPECTED
    merged = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])
    merged = merged[:, merged.sum(axis=0) > 0]
    if merged.shape[1] < 2:
        return 0.0, 1.0
    expected = merged.sum(axis=1, keepdims=True) * merged.sum(axis=0) / merged.sum()
    statistic = float(((merged - expected) ** 2 / expected).sum())
    return statistic, _chi_square_above(statistic, merged.shape[1] - 1)


def population_stability_index(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Returns the population stability index of two rows of counts."""
    used = (found > 0) | (expected > 0)
    rows = [np.maximum(counts[used], _HALF_AN_ITEM) for counts in (found, expected)]
    first, second = (row / row.sum() for row in rows)
    return float(((first - second) * np.log(first / second)).sum())


# SciPy takes a fifth of a second to import, which a run without a baseline need not spend.


def _kolmogorov(root_distance: float) -> float:
    from scipy import special  # noqa: PLC0415

    return float(special.kolmogorov(root_distance))


def _chi_square_above(statistic: float, degrees_of_freedom: int) -> float:
    from scipy import special  # noqa: PLC0415

    return float(special.chdtrc(degrees_of_freedom, statistic))
