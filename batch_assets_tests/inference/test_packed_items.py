"""Packed items that no server hands over, and those with long texts: each ends by itself."""

import struct

import numpy as np
import pytest

from batch_assets.inference.feature_format import FeatureReader
from batch_assets.inference.item_format import CheckedValues, check_items
from batch_assets.packed_lists import unpacked
from batch_assets.settings.items import Feature

DTYPE = np.dtype([("number", "f8"), ("first", "O"), ("second", "O")])
POINT = bytes(4) + b"\1" + struct.pack("<I", 1)


def packed(first: bytes, second: bytes, characters: tuple[int, int]) -> bytes:
    points = [(0.5, characters[0]), (characters[1], 0)]
    return b"dtt" + b"".join(POINT + struct.pack("<dd", *pair) for pair in points) + first + second


def check(*items: bytes) -> CheckedValues:
    return check_items(items, FeatureReader(tuple(map(Feature, DTYPE.names or ())), False, DTYPE))


GOOD = packed(b"a", "花".encode(), (1, 1))


@pytest.mark.parametrize(
    "bad", [packed(b"ab", b"c", (1, 1)), packed(b"a", b"b", (1, 2)), packed(b"\xed\xa0\x80", b"", (1, 0)), b"dtt"]
)
def test_a_packed_item_whose_texts_cannot_be_read_fails_alone(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"packed list|codec"):
        unpacked(bad, 3)
    checked = check(GOOD, bad, GOOD)
    assert [(fault.index, fault.code) for fault in checked.bad] == [(1, "not_a_string")]
    assert checked.features.tolist() == [(0.5, "a", "花")] * 2


def test_of_a_packed_item_the_characters_are_counted_not_the_bytes() -> None:
    long, too_long = "花" * 1_500_000, "花" * 4_000_000
    checked = check(packed(b"", long.encode(), (0, len(long))), packed(b"", too_long.encode(), (0, len(too_long))))
    assert checked.positions.tolist() == [0]
    assert checked.features["second"].tolist() == [long]
    assert [(fault.index, fault.code) for fault in checked.bad] == [(1, "too_long")]


def test_minus_zero_is_no_boolean_whatever_stands_beside_it() -> None:
    zero, half = (b"d" + POINT + struct.pack("<dd", number, 0) for number in (-0.0, 0.5))
    reader = FeatureReader((Feature("flag"),), False, np.dtype([("flag", "?")]))
    assert [fault.index for fault in check_items([zero], reader).bad] == [0]
    assert [fault.index for fault in check_items([zero, half], reader).bad] == [0, 1]
