"""How many items an hour has: what is a feed that stopped, and what is a day like others."""

import datetime
from collections.abc import Callable

import numpy as np
import pytest

from batch_assets.monitoring.judgement import ALARM, HOLDS, NOT_JUDGED
from batch_assets.monitoring.volume import judge_volume

NOW = datetime.datetime(2026, 11, 2, 5)  # noqa: DTZ001 - UTC without a zone, as in the database
HOUR = datetime.timedelta(hours=1)
Volumes = dict[datetime.datetime, int]


def flat(start: datetime.datetime) -> float:
    return 1_000


def daily(start: datetime.datetime) -> float:
    """Few at night, and half as many on two days of the week."""
    by_day = 1_000 + 900 * np.sin(start.hour / 24 * 2 * np.pi)
    return float(by_day * (0.5 if start.weekday() >= 5 else 1.0))


def few(start: datetime.datetime) -> float:
    return 0.7


def volumes(course: Callable[[datetime.datetime], float], days: int, seed: int, wobble: float = 0.1) -> Volumes:
    """Hours before the present: chance, and a share by which each wobbles beyond it."""
    random = np.random.default_rng(seed)
    starts = [NOW - back * HOUR for back in range(1, days * 24 + 1)]
    return {start: int(random.poisson(course(start) * random.lognormal(0, wobble))) for start in starts}


@pytest.mark.parametrize("course", [flat, daily, few])
def test_a_clean_month_makes_hardly_an_alarm(course: Callable[[datetime.datetime], float]) -> None:
    past = volumes(course, 56, 3)
    judged = [judge_volume(start, items, past).verdict for start, items in past.items() if start >= NOW - 672 * HOUR]
    assert len(judged) == 672
    assert judged.count(ALARM) <= 3
    assert judged.count(NOT_JUDGED) == 0


@pytest.mark.parametrize("course", [flat, daily])
def test_a_feed_that_stopped_or_came_twice_or_brought_a_fifth_is_an_alarm(
    course: Callable[[datetime.datetime], float],
) -> None:
    past, usual = volumes(course, 28, 4, wobble=0.05), int(course(NOW))
    assert judge_volume(NOW, usual, past).verdict == HOLDS
    for items in (0, usual * 3) if course is daily else (0, usual // 5, usual * 2):
        judgement = judge_volume(NOW, items, past)
        assert judgement.verdict == ALARM, judgement
        assert f"{items:,} items, " in judgement.reason


def test_after_a_day_an_hour_without_items_is_an_alarm_and_nothing_else_is_judged() -> None:
    past = volumes(flat, 1, 5)
    assert judge_volume(NOW, 0, past).verdict == ALARM
    assert judge_volume(NOW, 5, past).verdict == NOT_JUDGED
    assert judge_volume(NOW, 0, past | {NOW - 3 * HOUR: 0}).verdict == NOT_JUDGED
    assert judge_volume(NOW, 0, dict(list(past.items())[:20])).verdict == NOT_JUDGED


def test_neither_later_hours_nor_those_of_more_than_four_weeks_ago_count() -> None:
    old = {NOW - (28 * 24 + back) * HOUR: 9 for back in range(1, 500)}
    later = {NOW + back * HOUR: 9 for back in range(500)}
    assert judge_volume(NOW, 0, old | later).verdict == NOT_JUDGED


def test_a_day_without_items_does_not_hide_the_next_one() -> None:
    past = volumes(flat, 28, 6)
    for back in range(24, 48):
        past[NOW - back * HOUR] = 0
    assert judge_volume(NOW, 0, past).verdict == ALARM
