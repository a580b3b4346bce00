"""Judges an hour: what lies further from the baseline than chance, and than what is usual, explains.

A test alone cries wolf: with a thousand items it finds what wobbles by a tenth of a standard deviation, as everything
does. So an alarm needs a size that stands out from those of reference hours, too.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.monitoring.distances import Distance, average, distance
from batch_assets.monitoring.sketches import Column, Sketch

HOLDS, ALARM, NOT_JUDGED = "holds", "alarm", "not judged"
# How likely a family of tests, all those of an hour, is to find something where nothing is.
LEVEL = 0.005
# Of fewer items an hour says too little.
LEAST_ITEMS = 50
# By which the limits are set: those of a day at least, and of four weeks at the most.
LEAST_REFERENCES, REFERENCE_AGE = 24, datetime.timedelta(days=28)
# How many standard deviations above their mean is unusual.
DEVIATIONS = 4.0
# A daily course is looked for in a week or more, and is one if it explains so much of how the hours differ.
LEAST_DAYS, WEEK, LEAST_EXPLAINED = 7, 7 * 24, 0.25


@dataclass(frozen=True)
class Measure:
    """What is remembered of a feature in an hour, by which later ones are judged.

    Args:
        location: Where the values lie: the mean of numbers, the share of the baseline's most common text.
        sizes: Population stability index and Wasserstein distance from the baseline.
        course: The same from what the same hours of the days before were like; None without these.
        alarmed: Whether it was an alarm: then it is no reference.
    """

    location: float
    sizes: tuple[float, float]
    course: tuple[float, float] | None
    alarmed: bool


@dataclass(frozen=True)
class PastHour:
    """An hour of the past.

    Args:
        start: In UTC without a zone.
        measures: By feature.
        sketches: By feature; only those of the same hour of the day are looked at.
    """

    start: datetime.datetime
    measures: Mapping[str, Measure]
    sketches: Mapping[str, Sketch] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """The judgement of a feature, an answer or a label in an hour.

    Args:
        name: What it is of.
        verdict: `holds`, `alarm` or `not judged`.
        reason: Why not, or against what it was judged.
        statistic: That of the test.
        p: How likely chance is to make as much of it.
        adjusted: The same after Holm's correction for all that were judged of the hour.
        psi: The population stability index.
        wasserstein: The Wasserstein distance.
        above: How many standard deviations the sizes lie above those of the reference hours, on the average of both.
        measure: What is remembered of it.
    """

    name: str
    verdict: str
    reason: str
    statistic: float | None = None
    p: float | None = None
    adjusted: float | None = None
    psi: float | None = None
    wasserstein: float | None = None
    above: float | None = None
    measure: Measure | None = None

    def document(self) -> dict[str, Any]:
        """Returns it as plain numbers, without what is remembered."""
        numbers = {name: getattr(self, name) for name in ("statistic", "p", "adjusted", "psi", "wasserstein", "above")}
        rounded = {
            name: None if number is None or not math.isfinite(number) else float(f"{number:.4g}")
            for name, number in numbers.items()
        }
        return {"name": self.name, "verdict": self.verdict, "reason": self.reason, **rounded}


def judge(
    start: datetime.datetime, columns: Mapping[str, Column], baseline: Mapping[str, Sketch], past: Sequence[PastHour]
) -> list[Judgement]:
    """Judges the features of an hour, each by itself.

    Args:
        start: Of the hour, in UTC without a zone.
        columns: A sample of its items, by feature.
        baseline: What the features are to look like; no others are judged.
        past: Hours of the last four weeks that were scored by the same model and measured from the same baseline.
    """
    judged = [_judge(start, name, columns.get(name), baseline[name], past) for name in baseline]
    return corrected(judged)


def corrected(judged: Sequence[Judgement]) -> list[Judgement]:
    """Corrects the tests of an hour by Holm's method, and takes back the alarms that chance explains."""
    tested = sorted(
        (number for number, each in enumerate(judged) if each.p is not None), key=lambda number: judged[number].p or 0.0
    )
    done, adjusted = list(judged), 0.0
    for place, number in enumerate(tested):
        each = judged[number]
        adjusted = min(1.0, max(adjusted, (len(tested) - place) * (each.p or 0.0)))
        verdict = HOLDS if each.verdict == ALARM and adjusted >= LEVEL else each.verdict
        measure = each.measure and replace(each.measure, alarmed=verdict == ALARM)
        done[number] = replace(each, adjusted=adjusted, verdict=verdict, measure=measure)
    return done


def _judge(
    start: datetime.datetime, name: str, column: Column | None, expected: Sketch, past: Sequence[PastHour]
) -> Judgement:
    if column is None or column.count < LEAST_ITEMS:
        number = 0 if column is None else column.count
        return Judgement(name, NOT_JUDGED, f"{number} items of it are too few: {LEAST_ITEMS} are needed")
    if bool(column.texts) == (expected.quantiles is not None) and column.nulls < column.count:
        found, wanted = ("texts", "numbers") if column.texts else ("numbers", "texts")
        return Judgement(name, NOT_JUDGED, f"it has {found} where the baseline has {wanted}")
    usual = [(hour, hour.measures[name]) for hour in past if name in hour.measures and not hour.measures[name].alarmed]
    same = [hour.sketches[name] for hour, _ in usual if hour.start.hour == start.hour and name in hour.sketches]
    from_baseline = distance(column, expected)
    from_course = distance(column, average(same)) if len(same) >= LEAST_DAYS else None
    course = None if from_course is None else _sizes(from_course)
    measure = Measure(_location(column, expected), _sizes(from_baseline), course, alarmed=False)
    courses = [each.course for _, each in usual if each.course is not None]
    if from_course is not None and len(courses) >= LEAST_REFERENCES and _has_daily_course(usual):
        against = f"against the same hour of {len(same)} days"
        return _judged(name, from_course, courses, measure, against)
    return _judged(name, from_baseline, [each.sizes for _, each in usual], measure, "against the baseline")


def _judged(
    name: str, found: Distance, references: Sequence[tuple[float, float]], measure: Measure, against: str
) -> Judgement:
    above, verdict = None, NOT_JUDGED
    reason = f"{len(references)} reference hours are too few: {LEAST_REFERENCES} are needed"
    if len(references) >= LEAST_REFERENCES:
        above = _above(_sizes(found), np.array(references))
        verdict = ALARM if above > DEVIATIONS else HOLDS
        reason = f"{against}, by {len(references)} reference hours"
    return Judgement(
        name,
        verdict,
        reason,
        statistic=found.statistic,
        p=found.p,
        psi=found.psi,
        wasserstein=found.wasserstein,
        above=above,
        measure=measure,
    )


def _above(sizes: tuple[float, float], references: NDArray[np.float64]) -> float:
    """Returns how many standard deviations two sizes lie above their mean, on the average of both.

    The index grows with the square of a shift and so finds more, and cries wolf more often, than the distance.
    """
    spread = np.maximum(references.std(axis=0, ddof=1), 1e-9)
    return float(((np.array(sizes) - references.mean(axis=0)) / spread).mean())


def _sizes(found: Distance) -> tuple[float, float]:
    return found.psi, found.wasserstein


def _location(column: Column, expected: Sketch) -> float:
    if expected.quantiles is not None:
        return float(column.numbers.mean()) if len(column.numbers) else 0.0
    categories = expected.categories or {}
    return column.texts.get(max(categories, key=lambda name: categories[name]), 0) / column.count if categories else 0.0


def _has_daily_course(usual: Sequence[tuple[PastHour, Measure]]) -> bool:
    """Whether the hour of the day explains much of how the hours differ: by R squared, adjusted for chance."""
    if len(usual) < WEEK:
        return False
    hours = np.array([hour.start.hour for hour, _ in usual])
    values = np.array([measure.location for _, measure in usual])
    counts = np.bincount(hours, minlength=24)
    means = np.bincount(hours, values, minlength=24) / np.maximum(counts, 1)
    groups = int(np.count_nonzero(counts))
    total = float(((values - values.mean()) ** 2).sum()) / (len(values) - 1)
    within = float(((values - means[hours]) ** 2).sum()) / (len(values) - groups)
    return total > 0 and 1 - within / total >= LEAST_EXPLAINED
