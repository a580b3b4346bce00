"""Judges how often each label was answered, by the same hours of past weeks.

By Laney's p': a share of many items wobbles by more than chance alone, so that the limits of a binomial share, which
shrink with the number of items, would cry wolf in every hour. How much more is measured, and the limits widened by it.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch_assets.monitoring.judgement import (
    ALARM,
    LEAST_DAYS,
    LEAST_ITEMS,
    LEAST_REFERENCES,
    NOT_JUDGED,
    Judgement,
    corrected,
)

# The mean distance of two neighbours that are normally distributed, in standard deviations.
_OF_MOVING_RANGE = 1.128


@dataclass(frozen=True)
class PastLabels:
    """The labels of an hour of the past.

    Args:
        start: In UTC without a zone.
        counts: Items by label.
        alarmed: The labels that were an alarm: of these it is no reference.
    """

    start: datetime.datetime
    counts: Mapping[str, int]
    alarmed: frozenset[str] = frozenset()


def judge_labels(start: datetime.datetime, counts: Mapping[str, int], past: Sequence[PastLabels]) -> list[Judgement]:
    """Judges the share of each label in an hour.

    Against the same hour of the day, or against all hours as long as there are fewer than seven of these.

    Args:
        start: Of the hour, in UTC without a zone.
        counts: Its items by label.
        past: Hours of the last four weeks that were scored by the same model, in their order.
    """
    items = sum(counts.values())
    if items < LEAST_ITEMS:
        reason = f"{items} answers are too few: {LEAST_ITEMS} are needed"
        return [Judgement(label, NOT_JUDGED, reason) for label in counts]
    return corrected([_judge(start, label, counts[label], items, past) for label in counts])


def _judge(start: datetime.datetime, label: str, count: int, items: int, past: Sequence[PastLabels]) -> Judgement:
    usual = [hour for hour in past if label not in hour.alarmed and sum(hour.counts.values()) >= LEAST_ITEMS]
    if len(usual) < LEAST_REFERENCES:
        return Judgement(label, NOT_JUDGED, f"{len(usual)} reference hours are too few: {LEAST_REFERENCES} are needed")
    hours = np.array([hour.start.hour for hour in usual])
    counted = np.array([[hour.counts.get(label, 0), sum(hour.counts.values())] for hour in usual], float)
    same = counted[hours == start.hour]
    by_hour = len(same) >= LEAST_DAYS
    share = _share(same if by_hour else counted)
    groups = [counted[hours == hour] for hour in range(24)] if by_hour else [counted]
    beyond = max(1.0, _overdispersion([group for group in groups if len(group) >= LEAST_DAYS]))
    # The share itself is known as well as the items of the reference hours say.
    known_by = (same if by_hour else counted)[:, 1].sum() / beyond**2
    spread = np.sqrt(share * (1 - share) * (beyond**2 / items + 1 / known_by))
    z = (count / items - share) / spread
    against = f"the same hour of {len(same)} days" if by_hour else f"{len(usual)} hours"
    reason = f"{count / items:.1%} of the answers, {share:.1%} in {against}, overdispersed {beyond:.1f} times"
    return Judgement(label, ALARM, reason, statistic=float(z), p=math.erfc(abs(z) / math.sqrt(2)))


def _share(counted: NDArray[np.float64]) -> float:
    """Returns the share of a label in some hours; never none or all, so that the first that comes is no surprise."""
    found, items = counted.sum(axis=0)
    return float((found + 0.5) / (items + 1))


def _overdispersion(groups: Sequence[NDArray[np.float64]]) -> float:
    """Returns how many times as much as by chance the shares wobble from one hour of a group to the next."""
    ranges: list[NDArray[np.float64]] = []
    for group in groups:
        share = _share(group)
        z = (group[:, 0] / group[:, 1] - share) / np.sqrt(share * (1 - share) / group[:, 1])
        ranges.append(np.abs(np.diff(z)))
    joined = np.concatenate(ranges) if ranges else np.empty(0)
    return float(joined.mean()) / _OF_MOVING_RANGE if len(joined) else 1.0
