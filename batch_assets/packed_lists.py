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
from functools import cache

# The values of an item as the database returns them: JSON, or a packed list; None is SQL's NULL.
Values = str | bytes | None

NUMBER, WHOLE_NUMBER, TEXT, NULL = "d", "i", "t", "n"
WRONG_LENGTH = "a packed list has not as many characters as its numbers say"


@cache
def _layout(width: int) -> struct.Struct:
    """Returns what comes before the texts in a list of so many values."""
    return struct.Struct(f"<{width}s{'9xdd' * -(-width // 2)}")


def fixed_bytes(width: int) -> int:
    """Returns how many bytes come before the texts in a list of so many values."""
    return _layout(width).size


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
    type_codes, *numbers = _layout(width).unpack_from(packed)
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
        raise ValueError(WRONG_LENGTH)
    return values


def as_json(packed: bytes, width: int) -> str:
    """Returns one list as JSON, to be shown."""
    return json.dumps(unpacked(packed, width), ensure_ascii=False)
