"""Lists that a server has packed: the values of some columns of a row as bytes, in place of a JSON list of them.

To write a number as text takes a server longer than all else that it does to hand over a row. So it hands over the bits
of the numbers, by the one function for that which MySQL and MariaDB both have, `POINT(x, y)`.

A packed list begins with a code of one letter for the type of each of its values. Then come points, which hold a number
for each value, and a zero if their number is odd. The number of a text is that of its characters. A point is 9 bytes
that are the same in all of them and two doubles, little-endian, see
https://dev.mysql.com/doc/refman/8.4/en/gis-data-formats.html. Last come the texts, in UTF-8.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBER, WHOLE_NUMBER, TEXT, NULL = "d", "i", "t", "n"
_WRONG_LENGTH = "a packed list has not as many characters as its numbers say"


@dataclass(frozen=True)
class PackedColumn:
    """The values at one place of many lists.

    Args:
        type_code: What they are: `NUMBER`, `WHOLE_NUMBER` or `TEXT`; `NULL` if all are missing.
        numbers: The numbers, float64; of a text the number of its characters.
        texts: The texts; empty for numbers.
        missing: Where the value is NULL. Its number is 0, and its text is empty.
    """

    type_code: str
    numbers: NDArray[np.float64]
    texts: Sequence[str]
    missing: NDArray[np.bool_]


@cache
def _layout(width: int) -> np.dtype[Any]:
    """Returns what comes before the texts in a list of so many values."""
    point = np.dtype([("head", "V9"), ("numbers", "<f8", (2,))])
    return np.dtype([("type_codes", "u1", (width,)), ("points", point, (-(-width // 2),))])


@cache
def _layout_of_one(width: int) -> struct.Struct:
    """Returns the same as `_layout`, for one list, of which it is read ten times as fast."""
    return struct.Struct(f"<{width}s{'9xdd' * -(-width // 2)}")


def fixed_bytes(width: int) -> int:
    """Returns how many bytes come before the texts in a list of so many values."""
    return _layout(width).itemsize


def unpacked(packed: bytes, width: int) -> list[float | str | None]:
    """Returns the values of one list. A number is an integer where it is whole, but not -0.0.

    Args:
        packed: The list.
        width: How many values it has.

    Raises:
        ValueError: It is not what a server packs.
    """
    if len(packed) < fixed_bytes(width):
        raise ValueError("a packed list is shorter than its numbers")
    type_codes, *numbers = _layout_of_one(width).unpack_from(packed)
    texts, start = packed[fixed_bytes(width) :].decode(), 0
    values: list[float | str | None] = []
    for type_code, number in zip(type_codes.decode(), numbers, strict=False):
        if type_code == TEXT:
            values.append(texts[start : start + int(number)])
            start += int(number)
        elif type_code == NULL:
            values.append(None)
        else:
            # There is no integer -0.
            values.append(int(number) if number.is_integer() and str(number) != "-0.0" else number)
    if start != len(texts):
        raise ValueError(_WRONG_LENGTH)
    return values


def as_json(packed: bytes, width: int) -> str:
    """Returns one list as JSON, to be shown."""
    return json.dumps(unpacked(packed, width), ensure_ascii=False)


def unpacked_columns(packed: Sequence[bytes], width: int) -> list[PackedColumn]:
    """Returns the values at each place of many lists, which are of the same columns.

    Args:
        packed: The lists, at least one.
        width: How many values each has.

    Raises:
        ValueError: They are not what a server packs.
    """
    end = fixed_bytes(width)
    heads = np.frombuffer(b"".join([each[:end] for each in packed]), _layout(width))
    type_codes, numbers = heads["type_codes"], heads["points"]["numbers"].reshape(len(packed), -1)
    missing = type_codes == ord(NULL)
    kinds = [chr(type_codes[np.argmin(missing[:, place]), place]) for place in range(width)]
    texts = _texts([each[end:].decode() for each in packed], numbers, [kind == TEXT for kind in kinds])
    return [PackedColumn(kind, numbers[:, place], texts[place], missing[:, place]) for place, kind in enumerate(kinds)]


def _texts(rests: list[str], numbers: NDArray[np.float64], are_texts: list[bool]) -> list[Sequence[str]]:
    """Cuts what comes after the numbers into the texts of each place."""
    found: list[Sequence[str]] = []
    starts = [0] * len(rests)
    for place, is_text in enumerate(are_texts):
        if not is_text:
            found.append(())
            continue
        lengths = numbers[:, place].astype(np.intp).tolist()
        ends = [start + length for start, length in zip(starts, lengths, strict=True)]
        found.append([rest[start:end] for rest, start, end in zip(rests, starts, ends, strict=True)])
        starts = ends
    if starts != list(map(len, rests)):
        raise ValueError(_WRONG_LENGTH)
    return found
