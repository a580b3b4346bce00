"""Lists that a server has packed: the values of some columns of a row as bytes, in place of a JSON list of them.

To write a number as text takes a server longer than all else that it does to hand over a row. So it hands over the bits
of the numbers, by the one function for that which MySQL and MariaDB both have, `POINT(x, y)`.

A packed list begins with a letter for each of its values. Then come points, of a number for each value and a zero where
they are not even: 9 bytes that are the same in all of them and two doubles, little-endian, see "Geometry Storage" in
https://dev.mysql.com/doc/refman/8.4/en/gis-data-formats.html. Then come the texts in UTF-8, the number of whose
characters stands in place of a number.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBER, WHOLE_NUMBER, TEXT, NULL = "d", "i", "t", "n"


@dataclass(frozen=True)
class PackedColumn:
    """The values at one place of many lists.

    Args:
        letter: What they are: `NUMBER`, `WHOLE_NUMBER` or `TEXT`; `NULL` if all are missing.
        numbers: The numbers, float64; of a text the number of its characters.
        texts: The texts; empty for numbers.
        missing: Where it is NULL, which has a number and a text too.
    """

    letter: str
    numbers: NDArray[np.float64]
    texts: Sequence[str]
    missing: NDArray[np.bool_]


@cache
def _layout(width: int) -> np.dtype[Any]:
    """Returns what comes before the texts in a list of so many values."""
    point = np.dtype([("head", "V9"), ("numbers", "<f8", (2,))])
    return np.dtype([("letters", "u1", (width,)), ("points", point, (-(-width // 2),))])


def fixed_bytes(width: int) -> int:
    """Returns how many bytes come before the texts in a list of so many values."""
    return _layout(width).itemsize


def unpacked(packed: bytes, width: int) -> list[float | str | None]:
    """Returns the values of one list.

    Args:
        packed: The list.
        width: How many values it has.
    """
    head = np.frombuffer(packed, _layout(width), count=1)
    texts, start = packed[fixed_bytes(width) :].decode(), 0
    values: list[float | str | None] = []
    for letter, number in zip(packed[:width].decode(), head["points"]["numbers"].ravel().tolist(), strict=False):
        if letter == TEXT:
            values.append(texts[start : start + int(number)])
            start += int(number)
        else:
            values.append(None if letter == NULL else int(number) if letter == WHOLE_NUMBER else number)
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
        ValueError: They are not what a server has packed so.
    """
    end = fixed_bytes(width)
    heads = np.frombuffer(b"".join([each[:end] for each in packed]), _layout(width))
    letters, numbers = heads["letters"], heads["points"]["numbers"].reshape(len(packed), -1)
    missing = letters == ord(NULL)
    kinds = [chr(letters[np.argmin(missing[:, place]), place]) for place in range(width)]
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
        raise ValueError("A packed list has not as many characters as its numbers say: the server has packed it wrong.")
    return found
