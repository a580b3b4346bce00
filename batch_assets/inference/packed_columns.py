"""Packed lists as columns for the model, see `batch_assets.packed_lists`.

That module is imported by every command, which must not wait for numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.packed_lists import NULL, TEXT, WRONG_LENGTH, fixed_bytes


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
        raise ValueError(WRONG_LENGTH)
    return found
