"""The picture of an hour: small, well formed and harmless whatever the labels and numbers are."""

import base64
import datetime
import math
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

import pytest

from batch_assets.hours import Hour
from batch_assets.reporting.picture import HourOnPicture, picture

NEWEST = datetime.datetime(2026, 11, 4, 5)  # noqa: DTZ001 - UTC without a zone, as in the database
HOSTILE = [
    "<script>alert(1)</script>",
    """"quoted" & 'single'""",
    "Müller-Lüdenscheidt äöü ß",
    "x" * 5000,
    "nul\x00 and half a pair \ud800",
    "](javascript:alert(1))",
    *(f"label {number}" for number in range(94)),
]


def hour(back: int, counts: Mapping[str, int], failed: int = 0) -> HourOnPicture:
    """An hour so many hours before the newest."""
    start = Hour(NEWEST - datetime.timedelta(hours=back))
    return HourOnPicture(start, sum(counts.values()) + failed, failed, 0, counts)


def texts(markdown: str) -> list[str]:
    """What is written on a picture."""
    return [element.text or "" for element in drawn(markdown).iter() if element.tag.endswith("text")]


def drawn(markdown: str) -> ET.Element:
    found = re.fullmatch(r"!\[[^\]]*\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert found
    return ET.fromstring(base64.b64decode(found[1]))


def test_the_picture_of_48_hours_with_100_hostile_labels_is_small_and_harmless() -> None:
    counts = {label: 1000 - number for number, label in enumerate(HOSTILE)}
    shown = picture(hour(0, counts, failed=3), [hour(back, counts, failed=back) for back in range(1, 48)])
    assert len(shown) < 40_000
    root = drawn(shown)
    assert {element.tag.split("}")[1] for element in root.iter()} == {"svg", "rect", "path", "text"}
    written = texts(shown)
    assert "<script>alert(1)</s…" in written
    assert """"quoted" & 'single'""" in written
    assert "Müller-Lüdenscheidt…" in written
    assert "90 other labels" in written


def test_the_labels_are_compared_with_the_47_hours_before_and_no_others() -> None:
    before = [hour(1, {"a": 1, "b": 3}), hour(47, {"a": 1, "b": 3}), hour(48, {"a": 1000}), hour(-1, {"a": 1000})]
    written = texts(picture(hour(0, {"a": 3, "b": 1}), before))
    assert written.count("75.0 %") == 2
    assert written.count("25.0 %") == 2
    assert "Items of an hour, at most 4" in written


@pytest.mark.parametrize("counts", [{}, {"a": 0, "b": 0}], ids=["no labels", "no items"])
def test_an_hour_without_items_has_a_picture(counts: Mapping[str, int]) -> None:
    assert "Items of an hour, at most 0" in texts(picture(hour(0, counts), []))


@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 4.0], [3.0], [-1e308, 1e308], [math.pi] * 500], ids=["some", "one", "too wide", "the same"]
)
def test_values_of_any_width_have_a_picture(values: Sequence[float]) -> None:
    assert "Share of failed items, at most 0.0 %" in texts(picture(hour(0, {}), [], values))
