"""What the values of a feature looked like: quantiles of numbers, counts of texts. None of the values is kept."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

# The middles of a hundred equal parts: the mean of what stands there is the mean, but for the outermost half per cent.
PROBABILITIES = (np.arange(100) + 0.5) / 100
# What is less common is counted together.
MOST_CATEGORIES, OTHER = 50, "(other)"
LONGEST_CATEGORY = 100
# What is kept of an hour grows with its features, of which a model may have thousands.
MOST_FEATURES = 100
_DIGITS = 7


@dataclass(frozen=True)
class Column:
    """The values of one feature in the items of a sample.

    Args:
        numbers: Numbers in ascending order; true is 1 and false 0. Empty where there are texts.
        texts: How often each text is there.
        nulls: How many items have none.
    """

    numbers: NDArray[np.float64]
    texts: Mapping[str, int]
    nulls: int

    @property
    def count(self) -> int:
        """How many items there are, those without a value included."""
        return len(self.numbers) + sum(self.texts.values()) + self.nulls


@dataclass(frozen=True)
class Sketch:
    """What is kept of the values of one feature.

    Args:
        count: How many items there were, those without a value included.
        nulls: How many of them had none.
        quantiles: Of numbers, at `PROBABILITIES`; None for texts.
        categories: Of texts, how often the most common were there, and `OTHER`; None for numbers.
    """

    count: int
    nulls: int
    quantiles: NDArray[np.float64] | None
    categories: Mapping[str, float] | None

    def document(self) -> dict[str, Any]:
        """Returns it as plain numbers, which `sketch_from` reads."""
        if self.quantiles is None:
            return {"count": self.count, "nulls": self.nulls, "categories": dict(self.categories or {})}
        quantiles = [float(f"{value:.{_DIGITS}g}") for value in self.quantiles.tolist()]
        return {"count": self.count, "nulls": self.nulls, "quantiles": quantiles}


def sketch_from(document: Mapping[str, Any]) -> Sketch:
    """Returns the sketch that was written as a document."""
    quantiles = document.get("quantiles")
    array = None if quantiles is None else np.array(quantiles, np.float64)
    return Sketch(document["count"], document["nulls"], array, document.get("categories"))


def sketch_of(column: Column, like: Sketch | None = None) -> Sketch:
    """Returns what is kept of a column.

    Args:
        column: The values.
        like: Names the texts that are counted by themselves; None for the most common ones.
    """
    if column.texts:
        names = None if like is None or like.categories is None else set(like.categories)
        return Sketch(column.count, column.nulls, None, _capped(column.texts, names))
    quantiles = quantiles_of(column.numbers)
    return Sketch(column.count, column.nulls, quantiles, None)


def quantiles_of(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the quantiles at `PROBABILITIES` of numbers in ascending order; none of no numbers."""
    if not len(numbers):
        return np.empty(0)
    return np.interp(PROBABILITIES * (len(numbers) - 1), np.arange(len(numbers)), numbers)


def columns_of(texts: Iterable[str], names: Sequence[str] = ()) -> dict[str, Column]:
    """Returns the features of items by name, the first `MOST_FEATURES` of them.

    Args:
        texts: The values of items as JSON, a list or an object each. What is neither is passed over.
        names: The features in their order. Empty: the keys that the first of the objects has; of lists the places, as
            `value_0`.
    """
    items = [item for item in map(_parsed, texts) if isinstance(item, (list, dict)) and item]
    if not items:
        return {}
    first = items[0]
    by_place = isinstance(first, list)
    known = list(names or ([f"value_{place}" for place in range(len(first))] if by_place else first))[:MOST_FEATURES]
    if by_place:
        lists = [item for item in items if isinstance(item, list) and len(item) >= len(known)]
        return {name: column_of([item[place] for item in lists]) for place, name in enumerate(known)}
    objects = [item for item in items if isinstance(item, dict)]
    return {name: column_of([item.get(name) for item in objects]) for name in known}


def column_of(values: Sequence[Any]) -> Column:
    """Returns values as JSON has them as a column: numbers, or texts as soon as one of them is a text."""
    there = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in there):
        counts = Counter(str(value)[:LONGEST_CATEGORY] for value in there)
        return Column(np.empty(0), counts, len(values) - len(there))
    numbers = np.array([value for value in there if isinstance(value, (int, float))], np.float64)
    numbers = np.sort(numbers[np.isfinite(numbers)])
    return Column(numbers, {}, len(values) - len(numbers))


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:  # which scoring reads more patiently: a number of thousands of digits, say
        return None


def _capped(counts: Mapping[str, int], names: set[str] | None) -> dict[str, float]:
    if names is None:
        names = {name for name, _ in Counter(counts).most_common(MOST_CATEGORIES)}
    kept: dict[str, float] = dict.fromkeys(sorted(names), 0)
    for name, count in counts.items():
        kept[name if name in names else OTHER] = kept.get(name if name in names else OTHER, 0) + count
    return kept
