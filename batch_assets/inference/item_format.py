"""Checks `items.values`: which items can be scored, and why the others cannot. Here are lists of numbers.

Every text is parsed by itself, so that nothing a web service writes into one item can change another.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.packed_lists import Values, as_json, unpacked
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
NUMBERS = {int, float}
KINDS = {
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
        features: Array (number of good items, width) of the model's type, or (number of good items) of records.
        positions: For each row of `features`, the index of its text in the input.
        bad: The items that cannot be scored.
        ignored_keys: How many keys of the good items name no feature.
    """

    features: NDArray[Any]
    positions: NDArray[np.intp]
    bad: list[BadValues]
    ignored_keys: int = 0


class RefusedError(Exception):
    """What is wrong with one item. Never leaves the check."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ItemReader(Protocol):
    """What an item must be, and how it becomes a row for the model."""

    def convert(self, texts: Sequence[Values]) -> "Converted | None":
        """Returns the rows of texts, or None when at least one of them needs a closer look."""

    def parse(self, text: Values) -> Any:
        """Returns the values of one text, with every digit; raises a `RefusedError` when it is not good."""

    def array(self, items: list[Any]) -> "Converted":
        """Returns the rows of what `parse` returned."""


class Converted(NamedTuple):
    """Rows for the model, and how many keys of their items name no feature."""

    features: NDArray[Any]
    ignored_keys: int = 0


def check_values(texts: Sequence[Values], width: int, dtype: np.dtype[Any]) -> CheckedValues:
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
    return check_items(texts, _ListsOfNumbers(width, dtype))


def check_items(texts: Sequence[Values], reader: ItemReader) -> CheckedValues:
    """Turns the values of items into rows for the model, and says what is wrong with the rest.

    Args:
        texts: The values as the database returns them.
        reader: What an item must be.
    """
    converted = reader.convert(texts)
    if converted is not None:
        return CheckedValues(converted.features, np.arange(len(texts), dtype=np.intp), [], converted.ignored_keys)
    blocks: list[Converted] = []
    positions: list[int] = []
    bad: list[BadValues] = []
    for start in range(0, len(texts), BLOCK_ITEMS):
        block = texts[start : start + BLOCK_ITEMS]
        converted = reader.convert(block)
        faults: list[BadValues] = []
        if converted is None:
            converted, faults = _convert_one_by_one(block, reader)
        refused = {fault.index for fault in faults}
        positions.extend(start + index for index in range(len(block)) if index not in refused)
        bad.extend(fault._replace(index=start + fault.index) for fault in faults)
        blocks.append(converted)
    features = np.concatenate([block.features for block in blocks])
    ignored_keys = sum(block.ignored_keys for block in blocks)
    return CheckedValues(features, np.array(positions, dtype=np.intp), bad, ignored_keys)


def _convert_one_by_one(texts: Sequence[Values], reader: ItemReader) -> tuple[Converted, list[BadValues]]:
    items: list[Any] = []
    faults: list[BadValues] = []
    for index, text in enumerate(texts):
        try:
            items.append(reader.parse(text))
        except RefusedError as error:
            faults.append(BadValues(index, error.code, error.message))
    return reader.array(items), faults


def shown(text: str) -> str:
    """Cuts `text` to 80 characters and escape what cannot be printed or stored, like lone surrogates."""
    head = text[: SHOWN_CHARACTERS + 1]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head)
    return head if len(head) <= SHOWN_CHARACTERS else head[: SHOWN_CHARACTERS - 3] + "..."


@dataclass(frozen=True)
class _ListsOfNumbers:
    """Lists of so many numbers for a model that takes them as one matrix of a type. They are never packed.

    Columns have features, see `FeatureReader`.
    """

    width: int
    dtype: np.dtype[Any]

    def convert(self, texts: Sequence[Values]) -> Converted | None:
        rows = loaded(texts, self.width)
        numbers = {int} if self.dtype.kind == "i" else NUMBERS
        if not (
            rows is not None
            and set(map(type, rows)) <= {list}
            and set(map(len, rows)) <= {self.width}
            and set(map(type, chain.from_iterable(rows))) <= numbers
        ):
            return None
        try:
            converted = self.array(rows)
        except OverflowError:
            return None  # an integer beyond int64
        return converted if np.isfinite(converted.features).all() else None

    def array(self, items: list[list[Any]]) -> Converted:
        with np.errstate(over="ignore"):  # float32 overflows to infinity, which the caller looks for
            numbers = np.fromiter(chain.from_iterable(items), self.dtype, count=len(items) * self.width)
        return Converted(numbers.reshape(len(items), self.width))

    def parse(self, text: Values) -> list[Any]:
        """Returns the numbers of one item, integers as integers: float64 would drop digits above 2**53."""
        value = parsed(text, self.width, f"a list of {self.width} numbers")
        if type(value) is not list:
            what = f"{KINDS[type(value)]}, not a list of {self.width} numbers"
            raise RefusedError("not_a_list", f"{what}: {shown_values(text, self.width)}")
        if len(value) != self.width:
            raise RefusedError("wrong_length", f"{counted(len(value), 'value')}, the model takes {self.width}")
        for position, number in enumerate(value, 1):
            try:
                refuse_unfit_number(number, self.dtype)
            except RefusedError as error:
                raise RefusedError(error.code, f"value {position} {error.message}") from None
        return value


def shown_values(text: Values, width: int) -> str:
    """Returns the values of an item as a message shows them."""
    return shown(as_json(text, width) if isinstance(text, bytes) else text or "NULL")


def are_short(texts: Sequence[Values], width: int) -> bool:
    """Whether texts surely have no more characters than are worth reading: of a packed list, the bytes are counted."""
    return max(map(len, filter(None, texts)), default=0) <= _longest(width)


def loaded(texts: Sequence[Values], width: int) -> list[Any] | None:
    """Returns what each of the texts says, or None when at least one needs a closer look.

    Args:
        texts: JSON.
        width: How many values an item has.
    """
    if not are_short(texts, width):
        return None
    try:
        return list(map(orjson.loads, texts))  # type: ignore[arg-type]  # None raises, as bad JSON does
    except ValueError:
        return None


def parsed(text: Values, width: int, what: str) -> Any:
    """Returns what a text says, which is not null.

    Args:
        text: JSON, or a packed list.
        width: How many values an item has.
        what: What it should be, for messages.

    Raises:
        RefusedError: It is no JSON, null, or too long to be read.
    """
    if text is None:
        raise RefusedError("null_value", "the value is NULL")
    if isinstance(text, bytes):
        return _unpacked(text, width, what)
    _refuse_too_long(text, width, what)
    value = _parse(text)
    if value is None:
        raise RefusedError("null_value", "the value is null")
    return value


def _unpacked(packed: bytes, width: int, what: str) -> list[float | str | None]:
    try:
        values = unpacked(packed, width)
    except ValueError as error:
        raise RefusedError("not_a_string", f"the texts cannot be read: {error}") from None
    if len(packed) > _longest(width):
        _refuse_too_long(as_json(packed, width), width, what)
    return values


def _refuse_too_long(text: str, width: int, what: str) -> None:
    if len(text) > _longest(width):
        raise RefusedError("too_long", f"{len(text)} characters are too many for {what}")


def _longest(width: int) -> int:
    """Returns how many characters a text may have that is worth reading."""
    return max(LONGEST_TEXT, width * LONGEST_NUMBER)


def _parse(text: str) -> Any:
    try:
        value = orjson.loads(text)
    except ValueError:
        return _parse_exactly(text)
    # orjson reads an integer just below int64 as the float that it rounds to, the lowest int64.
    elements = value.values() if type(value) is dict else value if type(value) is list else ()
    return _parse_exactly(text) if _LOWEST_INT64 in elements else value


def _parse_exactly(text: str) -> Any:
    """Parses with Python's own parser, which keeps every integer and reads NaN and infinity as well."""
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise RefusedError("not_json", f"nested too deeply to be read: {shown(text)}") from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos + 1}: {shown(text)}" if text.strip() else "it is empty"
        raise RefusedError("not_json", f"not JSON: {reason}") from None


def refuse_unfit_number(number: Any, dtype: np.dtype[Any]) -> None:
    """Raises a `RefusedError` when a value of an item is not a number of the model's type."""
    lowest, highest = LIMITS[dtype]
    if number is None:
        raise RefusedError("null_value", "is null")
    if type(number) not in NUMBERS:
        raise RefusedError("not_numeric", f"is {described(number)}")
    if number in (math.inf, -math.inf):
        raise RefusedError("infinite", "is infinite")
    if type(number) is float and math.isnan(number):
        raise RefusedError("not_a_number", "is NaN")
    if not lowest <= number <= highest:
        raise RefusedError("too_large", f"is too large for the model's type {dtype}")
    if dtype.kind == "i" and number != int(number):
        raise RefusedError("not_an_integer", f"is {number!r}, the model takes integers")


def described(value: Any) -> str:
    """Says what kind of JSON a value is, and shows a string."""
    return f'{KINDS[type(value)]}: "{shown(value)}"' if type(value) is str else KINDS[type(value)]


def _integer(digits: str) -> int:
    """Reads an integer of any length: beyond every model's type its digits do not matter, only its sign."""
    if len(digits) > _INTEGER_DIGITS:
        digits = digits[:_INTEGER_DIGITS]
    return int(digits)
