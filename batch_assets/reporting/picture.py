"""The picture of an hour: its labels or values beside those of the hours before it, and how these hours went.

One SVG without scripts, fonts or links, on a background of its own, so that it can be read in any theme.
"""

import base64
import datetime
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import sqlalchemy as sa

from batch_assets.hours import Hour
from batch_assets.reporting.summary import Outcome

# How many hours are shown, the one of the picture included.
HOURS_SHOWN = 48
_LABELS_SHOWN = 10
_NAME_CHARACTERS = 20
_BARS_OF_VALUES = 20
# Told apart by people who do not see all colours: those of Okabe and Ito.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_OTHERS, _INK, _LINES = "#b8bcc4", "#1f2937", "#9aa1ac"
_PREDICTED, _PENDING, _FAILED = "#0072b2", "#e69f00", "#d55e00"
# What XML does not take, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WIDTH, _LEFT, _PANEL = 720, 340, 340


@dataclass(frozen=True)
class HourOnPicture:
    """What the picture shows of an hour.

    Args:
        hour: The hour.
        items: All of its items.
        failed: Those that cannot be scored.
        pending: Those with neither a prediction nor a reason why not.
        label_counts: Predictions by label.
    """

    hour: Hour
    items: int
    failed: int
    pending: int
    label_counts: Mapping[str, int]


def hour_of_outcome(hour: Hour, outcome: Outcome) -> HourOnPicture:
    """Returns an hour as it has just been counted."""
    return HourOnPicture(hour, outcome.items, outcome.failed, outcome.pending, outcome.label_counts)


def hour_of_row(row: sa.Row[Any]) -> HourOnPicture:
    """Returns an hour as it stands in `run_summary`."""
    return HourOnPicture(Hour(row.hour), row.items, row.failed, row.pending, json.loads(row.label_counts))


def picture(shown: HourOnPicture, before: Sequence[HourOnPicture], values: Sequence[float] = ()) -> str:
    """Returns the picture as Markdown.

    Args:
        shown: The hour.
        before: Hours before it in any order; those that lie more than two days back are left out.
        values: A sample of its predictions, where they are single numbers and have no labels.
    """
    oldest = shown.hour.start - datetime.timedelta(hours=HOURS_SHOWN - 1)
    earlier = [hour for hour in before if oldest <= hour.hour.start < shown.hour.start]
    svg = _svg(shown, earlier, values)
    address = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return f"![The hour {shown.hour.key} and those before it](data:image/svg+xml;base64,{address})"


def _svg(shown: HourOnPicture, earlier: Sequence[HourOnPicture], values: Sequence[float]) -> str:
    in_order = {hour.hour: hour for hour in (*earlier, shown)}
    first = Hour(shown.hour.start - datetime.timedelta(hours=HOURS_SHOWN - 1))
    places = [Hour(first.start + datetime.timedelta(hours=number)) for number in range(HOURS_SHOWN)]
    hours = [in_order.get(place) for place in places]
    labels = _labels(shown, earlier)
    # Of what no float can measure the width, there is no histogram.
    measurable = bool(values) and np.isfinite(max(values) - min(values))
    left, height = _values_panel(values) if measurable else _labels_panel(shown, earlier, labels)
    height = max(height, 320 if labels else 230)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" fill="{_INK}" ',
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#ffffff" stroke="{_LINES}"/>',
        *left,
        *_volume_panel(hours),
        *_failures_panel(hours),
        *(_shares_panel(hours, labels) if labels else ()),
        *_text(_LEFT + 30, height - 10, f"{places[0].key} UTC"),
        *_text(_WIDTH - 20, height - 10, f"{shown.hour.key} UTC", anchor="end"),
        "</svg>",
    ]
    return "".join(parts)


def _labels(shown: HourOnPicture, earlier: Sequence[HourOnPicture]) -> list[str]:
    """Returns the labels that are shown by themselves, the most frequent first."""
    counted = Counter(shown.label_counts)
    for hour in earlier:
        counted.update(hour.label_counts)
    return [label for label, _ in counted.most_common(_LABELS_SHOWN)]


def _labels_panel(
    shown: HourOnPicture, earlier: Sequence[HourOnPicture], labels: Sequence[str]
) -> tuple[list[str], int]:
    before: Counter[str] = Counter()
    for hour in earlier:
        before.update(hour.label_counts)
    rows = [(label, shown.label_counts.get(label, 0), before[label]) for label in labels]
    others = (shown.label_counts.keys() | before.keys()) - set(labels)
    if others:
        of_hour = sum(shown.label_counts.get(label, 0) for label in others)
        rows.append((f"{len(others)} other labels", of_hour, sum(before[label] for label in others)))
    total, total_before = sum(shown.label_counts.values()), before.total()
    parts = _text(16, 22, "Shares of the labels", bold=True)
    parts += _text(16, 38, f"above: this hour; below: the {HOURS_SHOWN - 1} hours before it")
    for number, (name, count, count_before) in enumerate(rows):
        y = 52 + 23 * number
        colour = _COLOURS[number] if number < len(_COLOURS) else _OTHERS
        parts += _text(130, y + 13, _shortened(name), anchor="end")
        for offset, part, whole, shade in ((0, count, total, colour), (9, count_before, total_before, _LINES)):
            share = part / whole if whole else 0
            parts.append(_path(shade, [_bar(136, y + offset, 130 * share, 8)]))
            parts += _text(272, y + offset + 8, f"{100 * share:.1f} %" if whole else "-", size=9)
    return parts, 72 + 23 * len(rows)


def _values_panel(values: Sequence[float]) -> tuple[list[str], int]:
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=_BARS_OF_VALUES)
    width = 300 / _BARS_OF_VALUES
    bars = [
        _bar(16 + number * width, 190, width - 1, -150 * count / counts.max())
        for number, count in enumerate(counts.tolist())
    ]
    parts = [*_text(16, 22, "Distribution of the values", bold=True), _path(_PREDICTED, bars)]
    parts += [*_text(16, 206, f"{edges[0]:.4g}"), *_text(316, 206, f"{edges[-1]:.4g}", anchor="end")]
    return parts, 230


def _volume_panel(hours: Sequence[HourOnPicture | None]) -> list[str]:
    most = max((hour.items for hour in hours if hour), default=0)
    parts = _text(_LEFT + 30, 22, f"Items of an hour, at most {most:,}", bold=True)
    bars: dict[str, list[str]] = {_PREDICTED: [], _PENDING: [], _FAILED: []}
    for x, width, hour in _columns(hours):
        bottom = 124.0
        counts = (hour.items - hour.failed - hour.pending, hour.pending, hour.failed)
        for colour, count in zip(bars, counts, strict=True):
            height = 76 * count / most if most else 0
            bars[colour] += [_bar(x, bottom, width, -height)] if count else []
            bottom -= height
    for x, colour, name in zip((30, 120, 200), bars, ("predicted", "pending", "failed"), strict=True):
        parts += [_path(colour, [_bar(_LEFT + x, 30, 8, 8), *bars[colour]]), *_text(_LEFT + x + 12, 38, name)]
    return [*parts, _line(124)]


def _failures_panel(hours: Sequence[HourOnPicture | None]) -> list[str]:
    shares = {hour.hour: hour.failed / hour.items if hour.items else 0 for hour in hours if hour}
    most = max(shares.values())
    bars = [
        _bar(x, 204, width, -46 * shares[hour.hour] / most) for x, width, hour in _columns(hours) if shares[hour.hour]
    ]
    title = f"Share of failed items, at most {100 * most:.1f} %"
    return [*_text(_LEFT + 30, 148, title, bold=True), _path(_FAILED, bars), _line(204)]


def _shares_panel(hours: Sequence[HourOnPicture | None], labels: Sequence[str]) -> list[str]:
    stacked = dict(zip(labels, _COLOURS, strict=False))
    bars: dict[str, list[str]] = {colour: [] for colour in (*stacked.values(), _OTHERS)}
    for x, width, hour in _columns(hours):
        total, bottom = sum(hour.label_counts.values()), 290.0
        counts = {colour: hour.label_counts.get(label, 0) for label, colour in stacked.items()}
        counts[_OTHERS] = total - sum(counts.values())
        for colour, count in counts.items():
            height = 56 * count / total if total else 0
            bars[colour] += [_bar(x, bottom, width, -height)] if count else []
            bottom -= height
    parts = _text(_LEFT + 30, 226, "Shares of the labels by hour, in the colours on the left", bold=True)
    return [*parts, *(_path(colour, found) for colour, found in bars.items()), _line(290)]


def _columns(hours: Sequence[HourOnPicture | None]) -> list[tuple[float, float, HourOnPicture]]:
    """Returns left edge, width and hour of the columns of a panel, of the hours that are known."""
    step = _PANEL / len(hours)
    return [(_LEFT + 30 + number * step, step - 1, hour) for number, hour in enumerate(hours) if hour]


def _bar(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z"


def _path(colour: str, bars: Sequence[str]) -> str:
    return f'<path fill="{colour}" d="{"".join(bars)}"/>' if bars else ""


def _line(y: int) -> str:
    return f'<path d="M{_LEFT + 30} {y}h{_PANEL}" stroke="{_LINES}"/>'


def _text(  # noqa: PLR0913 - where it is, what it says and how
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 11, bold: bool = False
) -> list[str]:
    given = {"x": f"{x:.1f}", "y": f"{y:.1f}"}
    given |= {"text-anchor": anchor} if anchor != "start" else {}
    given |= {"font-size": str(size)} if size != 11 else {}
    given |= {"font-weight": "bold"} if bold else {}
    attributes = " ".join(f'{name}="{value}"' for name, value in given.items())
    return [f"<text {attributes}>{escape(_NOT_XML.sub('?', text))}</text>"]


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"
