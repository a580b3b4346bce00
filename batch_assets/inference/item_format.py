"""Checks `items.values`: which items can be scored, and why the others cannot.

Every text is parsed by itself, so that nothing a web service writes into one item can change another.
"""

import json
import math
import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.wording import counted

SHOWN_CHARACTERS = 80

# Texts are converted block by block, so that one bad item costs a careful look at its block only.
BLOCK_ITEMS = 500

# Parsed, a text may take thirty times its size. Nobody writes so many characters for so few numbers.
LONGEST_TEXT = 4_000_000
LONGEST_NUMBER = 1_000

_LOWEST_INT64 = -(2**63)

# What a Python number must lie between to be finite in the model's type. A double just above the largest
# float32 still rounds to it: the first one that rounds to infinity is 2**128 - 2**103.
_FLOAT32_LIMIT = math.nextafter(float(2**128 - 2**103), 0.0)
LIMITS: dict[np.dtype[Any], tuple[float, float]] = {
    np.dtype(np.float32): (-_FLOAT32_LIMIT, _FLOAT32_LIMIT),
    np.dtype(np.float64): (-sys.float_info.max, sys.float_info.max),
    np.dtype(np.int64): (_LOWEST_INT64, 2**63 - 1),
}
_NUMBERS = {int, float}
_KINDS = {
    str: "a string",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
    int: "a number",
    float: "a number",
}

# No float64 has more digits before its point than 309. Python refuses integers of more than 4300.
_INTEGER_DIGITS = 400


class BadValues(NamedTuple):
    """An item that cannot be scored: its index in the input, the kind of fault, and a sentence about it."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    code: str
    message: str


class CheckedValues(NamedTuple):
    """The outcome of a check: every index of the input is either in `positions` or in `bad`, in order.

    Attributes:
        features: Array (number of good items, width) of the model's type.
        positions: For each row of `features`, the index of its text in the input.
        bad: The items that cannot be scored.
    """

    features: NDArray[Any]
    positions: NDArray[np.intp]
    bad: list[BadValues]


class _RefusedError(Exception):
    """What is wrong with one item. Never leaves this module."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def check_values(texts: Sequence[str | None], width: int, dtype: np.dtype[Any]) -> CheckedValues:
    """Turns the JSON texts of items into an array for the model, and say what is wrong with the rest.

    A good text is a JSON list of `width` finite numbers that fit the model's type. Anything else becomes one
    `BadValues` with one of these codes: `not_json`, `not_a_list`, `wrong_length`, `null_value`,
    `not_numeric`, `not_a_number`, `infinite`, `too_large`, `not_an_integer`, `too_long`. No text makes this
    function raise. Messages count the values of an item from 1.

    Args:
        texts: The column `values` as the database returns it; None is SQL's NULL.
        width: How many numbers the model takes an item.
        dtype: The type of the model's input: float32, float64 or int64.
    """
    features = _convert(texts, width, dtype)
    if features is not None:
        return CheckedValues(features, np.arange(len(texts), dtype=np.intp), [])
    features_of_blocks = []
    positions: list[int] = []
    bad: list[BadValues] = []
    for start in range(0, len(texts), BLOCK_ITEMS):
        block = texts[start : start + BLOCK_ITEMS]
        features = _convert(block, width, dtype)
        faults: list[BadValues] = []
        if features is None:
            features, faults = _convert_one_by_one(block, width, dtype)
        refused = {fault.index for fault in faults}
        positions.extend(start + index for index in range(len(block)) if index not in refused)
        bad.extend(fault._replace(index=start + fault.index) for fault in faults)
        features_of_blocks.append(features)
    return CheckedValues(np.concatenate(features_of_blocks), np.array(positions, dtype=np.intp), bad)


def shown(text: str) -> str:
    """Cuts `text` to 80 characters and escape what cannot be printed or stored, like lone surrogates."""
    head = text[: SHOWN_CHARACTERS + 1]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head)
    return head if len(head) <= SHOWN_CHARACTERS else head[: SHOWN_CHARACTERS - 3] + "..."


def _convert(texts: Sequence[str | None], width: int, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Returns the array (texts, width), or None when at least one text needs a closer look."""
    if max(map(len, filter(None, texts)), default=0) > _longest(width):
        return None
    try:
        rows = list(map(orjson.loads, texts))  # type: ignore[arg-type]  # None raises, as bad JSON does
    except ValueError:
        return None
    numbers = {int} if dtype.kind == "i" else _NUMBERS
    if not (
        set(map(type, rows)) <= {list}
        and set(map(len, rows)) <= {width}
        and set(map(type, chain.from_iterable(rows))) <= numbers
    ):
        return None
    try:
        features = _array(rows, width, dtype)
    except OverflowError:
        return None  # an integer beyond int64
    return features if np.isfinite(features).all() else None


def _longest(width: int) -> int:
    """Returns how many characters a text may have that is worth reading."""
    return max(LONGEST_TEXT, width * LONGEST_NUMBER)


def _array(rows: list[list[Any]], width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # float32 overflows to infinity, which the caller looks for
        numbers = np.fromiter(chain.from_iterable(rows), dtype, count=len(rows) * width)
    return numbers.reshape(len(rows), width)


def _convert_one_by_one(
    texts: Sequence[str | None], width: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], list[BadValues]]:
    rows: list[list[Any]] = []
    faults: list[BadValues] = []
    for index, text in enumerate(texts):
        try:
            rows.append(_numbers(text, width, dtype))
        except _RefusedError as error:
            faults.append(BadValues(index, error.code, error.message))
    return _array(rows, width, dtype), faults


def _numbers(text: str | None, width: int, dtype: np.dtype[Any]) -> list[Any]:
    """Returns the numbers of one item, integers as integers: float64 would drop digits above 2**53."""
    if text is None:
        raise _RefusedError("null_value", "the value is NULL")
    if len(text) > _longest(width):
        raise _RefusedError("too_long", f"{len(text)} characters are too many for a list of {width} numbers")
    value = _parse(text)
    if value is None:
        raise _RefusedError("null_value", "the value is null")
    if type(value) is not list:
        raise _RefusedError("not_a_list", f"{_KINDS[type(value)]}, not a list of {width} numbers: {shown(text)}")
    if len(value) != width:
        raise _RefusedError("wrong_length", f"{counted(len(value), 'value')}, the model takes {width}")
    for position, number in enumerate(value, 1):
        _refuse_unfit(number, position, dtype)
    return value


def _parse(text: str) -> Any:
    try:
        value = orjson.loads(text)
    except ValueError:
        return _parse_exactly(text)
    # orjson reads an integer just below int64 as the float that it rounds to, the lowest int64.
    return _parse_exactly(text) if type(value) is list and _LOWEST_INT64 in value else value


def _parse_exactly(text: str) -> Any:
    """Parses with Python's own parser, which keeps every integer and reads NaN and infinity as well."""
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise _RefusedError("not_json", f"nested too deeply to be read: {shown(text)}") from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos + 1}: {shown(text)}" if text.strip() else "it is empty"
        raise _RefusedError("not_json", f"not JSON: {reason}") from None


def _refuse_unfit(number: Any, position: int, dtype: np.dtype[Any]) -> None:
    """Raises when an element of the list, the `position`-th, is not a number of the model's type."""
    lowest, highest = LIMITS[dtype]
    if number is None:
        raise _RefusedError("null_value", f"value {position} is null")
    if type(number) not in _NUMBERS:
        what = f': "{shown(number)}"' if type(number) is str else ""
        raise _RefusedError("not_numeric", f"value {position} is {_KINDS[type(number)]}{what}")
    if number in (math.inf, -math.inf):
        raise _RefusedError("infinite", f"value {position} is infinite")
    if type(number) is float and math.isnan(number):
        raise _RefusedError("not_a_number", f"value {position} is NaN")
    if not lowest <= number <= highest:
        raise _RefusedError("too_large", f"value {position} is too large for the model's type {dtype}")
    if dtype.kind == "i" and number != int(number):
        raise _RefusedError("not_an_integer", f"value {position} is {number!r}, the model takes integers")


def _integer(digits: str) -> int:
    """Reads an integer of any length: beyond every model's type its digits do not matter, only its sign."""
    if len(digits) > _INTEGER_DIGITS:
        digits = digits[:_INTEGER_DIGITS]
    return int(digits)
