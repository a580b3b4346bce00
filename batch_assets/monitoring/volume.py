"""Judges how many items an hour has, by the same hours of the days before: a feed that stopped, or that came twice."""

import datetime
import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from batch_assets.monitoring.judgement import (
    ALARM,
    HOLDS,
    LEAST_DAYS,
    LEAST_REFERENCES,
    NOT_JUDGED,
    REFERENCE_AGE,
    Judgement,
)

NUMBER_OF_ITEMS = "number of items"
# How likely chance is to make an alarm of an hour: once in some three months of hours.
LEVEL = 0.0005
# A number of items is known no better than this, however alike the days before were.
LEAST_SPREAD = 0.05


def judge_volume(start: datetime.datetime, items: int, past: Mapping[datetime.datetime, int]) -> Judgement:
    """Judges the number of items of an hour by a prediction interval: Student's t for one more of the same hours.

    As long as there are fewer than seven of these, only an hour without items is judged, by the day before.

    Args:
        start: Of the hour, in UTC without a zone.
        items: How many it has.
        past: Those of hours before it.
    """
    before = {hour: count for hour, count in past.items() if start - REFERENCE_AGE <= hour < start}
    same = np.array([count for hour, count in before.items() if hour.hour == start.hour], float)
    if len(same) < LEAST_DAYS:
        return _judge_by_the_day_before(start, items, before)
    mean, number = float(same.mean()), len(same)
    # By chance alone, a count wobbles by its square root.
    spread = max(float(same.std(ddof=1)), math.sqrt(mean), LEAST_SPREAD * mean) * math.sqrt(1 + 1 / number)
    limit = _student(1 - LEVEL / 2, number - 1) * spread
    least, most = max(0.0, mean - limit), mean + limit
    stopped = items == 0 and same.min() > 0
    verdict = ALARM if stopped or not least <= items <= most else HOLDS
    reason = f"{items:,} items, {least:,.0f} to {most:,.0f} by the same hour of {number} days"
    return Judgement(NUMBER_OF_ITEMS, verdict, reason, statistic=items - mean, above=(items - mean) / spread)


def _judge_by_the_day_before(
    start: datetime.datetime, items: int, before: Mapping[datetime.datetime, int]
) -> Judgement:
    day = [count for hour, count in before.items() if hour >= start - datetime.timedelta(days=1)]
    if len(day) < LEAST_REFERENCES:
        reason = f"{len(day)} hours of the day before are too few: {LEAST_REFERENCES} are needed"
        return Judgement(NUMBER_OF_ITEMS, NOT_JUDGED, reason)
    if items:
        return Judgement(NUMBER_OF_ITEMS, NOT_JUDGED, f"the same hour of fewer than {LEAST_DAYS} days is known")
    verdict = ALARM if min(day) > 0 else NOT_JUDGED
    return Judgement(NUMBER_OF_ITEMS, verdict, f"no items, where each hour of the day before had {min(day):,} or more")


def _student(probability: float, degrees: int) -> float:
    """Returns the quantile of Student's t distribution, 2 percent too small at the most from six degrees of freedom on.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5. Not SciPy, whose import takes as long as
    the rest of a summary.
    """
    z = NormalDist().inv_cdf(probability)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
