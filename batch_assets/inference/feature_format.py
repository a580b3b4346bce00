"""Checks items whose features are declared: JSON objects by the name of a feature, or lists in their order."""

import math
from collections.abc import Sequence
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.inference.item_format import (
    KINDS,
    NUMBERS,
    Converted,
    RefusedError,
    are_short,
    described,
    loaded,
    parsed,
    refuse_unfit_number,
    shown,
    shown_values,
)
from batch_assets.inference.packed_columns import PackedColumn, unpacked_columns
from batch_assets.packed_lists import NULL, NUMBER, TEXT, WHOLE_NUMBER, Values
from batch_assets.settings.items import Feature
from batch_assets.wording import counted, is_unicode

# The least double above all of int64.
_WHOLE_BELOW = 2.0**63

# By the kind of a numpy type: what JSON has for it, and what a packed list has. A database hands over its booleans as 0
# and 1.
_TYPES: dict[str, set[type]] = {"f": NUMBERS, "i": {int}, "b": {bool, int}, "O": {str}}
_TYPE_CODES = {
    "f": {NUMBER, WHOLE_NUMBER, NULL},
    "i": {NUMBER, WHOLE_NUMBER},
    "b": {NUMBER, WHOLE_NUMBER},
    "O": {TEXT},
}


class FeatureReader:
    """Items of declared features, see `ItemReader`.

    A feature that is missing, null without being nullable, or of another type makes a failed item. Of a key that an
    object has twice the last one counts, as everywhere in Python and in MySQL's type JSON. Keys that name no feature
    are ignored and counted.

    Codes, beside those of a list of numbers: `not_an_object`, `missing_feature`, `not_a_string`, `not_a_boolean`.

    Args:
        features: The features in their order.
        by_name: Whether items are objects.
        dtype: What the model takes: a number's type for a matrix, or records with a field for each feature.
    """

    def __init__(self, features: tuple[Feature, ...], by_name: bool, dtype: np.dtype[Any]) -> None:
        self._by_name = by_name
        self._dtype = dtype
        self._width = len(features)
        self._container: type[Any] = dict if by_name else list
        self._what = f"{KINDS[self._container]} of {counted(self._width, 'feature')}"
        self._features = [
            _FeatureValues(feature, feature.name if by_name else place, dtype[feature.name] if dtype.names else dtype)
            for place, feature in enumerate(features)
        ]

    def convert(self, texts: Sequence[Values]) -> Converted | None:
        """Returns the rows of texts, or None when at least one of them needs a closer look."""
        packed = [text for text in texts if isinstance(text, bytes)]
        if packed:
            return self._convert_packed(packed) if len(packed) == len(texts) else None
        items = loaded(texts, self._width)
        if items is None or not set(map(type, items)) <= {self._container}:
            return None
        if not self._by_name and not set(map(len, items)) <= {self._width}:
            return None
        features = self._empty(len(items))
        try:
            for place, feature in enumerate(self._features):
                if not feature.fill(self._field(features, place), items):
                    return None
        except (KeyError, OverflowError):
            return None  # a feature that is missing, or an integer beyond int64
        return Converted(features, self._ignored_keys(items))

    def _convert_packed(self, packed: Sequence[bytes]) -> Converted | None:
        if not are_short(packed, self._width):
            return None
        features = self._empty(len(packed))
        try:
            columns = unpacked_columns(packed, self._width)
        except ValueError:
            return None
        for place, column in enumerate(columns):
            if not self._features[place].fill_packed(self._field(features, place), column):
                return None
        return Converted(features)

    def parse(self, text: Values) -> Any:
        """Returns the values of one text, with every digit; raises a `RefusedError` when it is not good."""
        item: Any = parsed(text, self._width, self._what)
        if type(item) is not self._container:
            code = "not_an_object" if self._by_name else "not_a_list"
            raise RefusedError(code, f"{KINDS[type(item)]}, not {self._what}: {shown_values(text, self._width)}")
        if not self._by_name and len(item) != self._width:
            raise RefusedError("wrong_length", f"{counted(len(item), 'value')}, the model takes {self._width}")
        for feature in self._features:
            feature.check(item)
        return item

    def array(self, items: list[Any]) -> Converted:
        """Returns the rows of what `parse` returned."""
        features = self._empty(len(items))
        for place, feature in enumerate(self._features):
            feature.set(self._field(features, place), feature.values(items))
        return Converted(features, self._ignored_keys(items))

    def _empty(self, rows: int) -> NDArray[Any]:
        return np.empty(rows if self._dtype.names else (rows, self._width), self._dtype)

    def _field(self, features: NDArray[Any], place: int) -> NDArray[Any]:
        """Returns the part of an array that belongs to a feature, to be written to."""
        field: NDArray[Any] = features[self._dtype.names[place]] if self._dtype.names else features[:, place]
        return field

    def _ignored_keys(self, items: list[Any]) -> int:
        return sum(map(len, items)) - len(items) * self._width


class _FeatureValues:
    """The values of one feature in many items.

    Args:
        feature: The feature.
        key: Where an item has it: its name in an object, its place in a list.
        dtype: The type that the model takes.
    """

    def __init__(self, feature: Feature, key: str | int, dtype: np.dtype[Any]) -> None:
        self._feature = feature
        self._key = key
        self._dtype = dtype
        self._get = itemgetter(key)
        self._types = _TYPES[dtype.kind] | ({NoneType} if feature.nullable else set())

    def values(self, items: list[Any]) -> list[Any]:
        return list(map(self._get, items))

    def fill(self, target: NDArray[Any], items: list[Any]) -> bool:
        """Writes the values of good items; returns False when one of them may not be good."""
        values = self.values(items)
        if not set(map(type, values)) <= self._types:
            return False
        if self._dtype.kind == "b" and not set(values) <= {0, 1}:
            return False
        self.set(target, values)
        # JSON has no NaN, so that null alone may be one.
        missing = values.count(None) if self._feature.nullable else 0
        return self._dtype.kind != "f" or np.count_nonzero(np.isfinite(target)) == len(values) - missing

    def fill_packed(self, target: NDArray[Any], column: PackedColumn) -> bool:
        """Writes the values of good items; returns False when one of them may not be good."""
        missing = np.count_nonzero(column.missing)
        if column.type_code not in _TYPE_CODES[self._dtype.kind] or (missing and not self._feature.nullable):
            return False
        if self._dtype.kind == "b" and not _are_booleans(column.numbers):
            return False
        if self._dtype.kind == "i" and not _are_whole(column.numbers):
            return False
        with np.errstate(over="ignore"):  # float32 overflows to infinity
            target[:] = column.texts if column.type_code == TEXT else column.numbers
        if missing:
            target[column.missing] = math.nan
        return self._dtype.kind != "f" or np.count_nonzero(np.isfinite(target)) == len(target) - missing

    def set(self, target: NDArray[Any], values: list[Any]) -> None:
        if self._feature.nullable:
            values = [math.nan if value is None else value for value in values]
        with np.errstate(over="ignore"):  # float32 overflows to infinity, which the caller looks for
            target[:] = np.fromiter(values, self._dtype, count=len(values))

    def check(self, item: Any) -> None:
        """Raises a `RefusedError` when the item does not have the feature as it must."""
        try:
            if self._key not in item and isinstance(item, dict):
                raise RefusedError("missing_feature", "is missing")
            value = self._get(item)
            if value is not None or not self._feature.nullable:
                self._check_value(value)
        except RefusedError as error:
            raise RefusedError(error.code, f"feature {shown(self._feature.name)} {error.message}") from None

    def _check_value(self, value: Any) -> None:
        if self._dtype.kind in "fi":
            refuse_unfit_number(value, self._dtype)
        elif value is None:
            raise RefusedError("null_value", "is null")
        elif self._dtype.kind == "b":
            if type(value) not in self._types or value not in (0, 1):
                shown_number = f": {shown(str(value))}" if type(value) in NUMBERS else ""
                raise RefusedError("not_a_boolean", f"is {described(value)}{shown_number}")
        elif type(value) is not str:
            raise RefusedError("not_a_string", f"is {described(value)}")
        elif not is_unicode(value):
            raise RefusedError(
                "not_a_string", f'is not valid Unicode, it holds half of a surrogate pair: "{shown(value)}"'
            )


def _are_booleans(numbers: NDArray[np.float64]) -> bool:
    """Whether these are 0 and 1; -0.0 is not, as it is not one by one."""
    return bool(np.isin(numbers, (0, 1)).all() and not np.signbit(numbers).any())


def _are_whole(numbers: NDArray[np.float64]) -> bool:
    """Whether these are integers that int64 surely holds."""
    return bool((np.trunc(numbers) == numbers).all() and (np.abs(numbers) < _WHOLE_BELOW).all())
