"""How often drift is found, and how often it is cried where none is, over hours that are made up.

    python -m benchmarks.drift --json drift.json

Each seed makes a baseline and four weeks of reference hours, then 200 hours that are clean and the same 200 hours
shifted by half a standard deviation, all judged by what judges them in a run. Where Evidently is installed, its default
judges the same hours.
"""

import argparse
import contextlib
import datetime
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.monitoring.judgement import ALARM, REFERENCE_AGE, Judgement, PastHour, judge
from batch_assets.monitoring.sketches import Column, sketch_of

ITEMS, BASELINE_ITEMS = 1_000, 10_000
REFERENCES, HOURS, SHIFT = 28 * 24, 200, 0.5
FIRST = datetime.datetime(2026, 11, 1)  # noqa: DTZ001 - UTC without a zone, as everywhere
FEATURE = "value"
# Who judges the items of an hour by those of the baseline.
Judge = Callable[[NDArray[np.float64], NDArray[np.float64]], bool]


@dataclass(frozen=True)
class Course:
    """How the mean of the hours moves while all is well, in standard deviations of an item.

    Args:
        name: What it is called.
        wobble: By how much it differs from hour to hour.
        daily: How far it lies above its mean at the height of the day.
    """

    name: str
    wobble: float
    daily: float = 0.0

    def means(self, hours: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Returns the mean of each of some hours."""
        day = self.daily * np.sin(2 * np.pi * np.arange(hours) / 24)
        return np.asarray(day + self.wobble * random.normal(size=hours))


COURSES = (
    Course("still", 0.0),
    Course("wobbles by 0.05", 0.05),
    Course("wobbles by 0.1", 0.1),
    Course("daily course", 0.05, daily=1.0),
)


class Hours:
    """Hours one after another, each judged by those before it.

    Args:
        baseline: What the baseline was made of.
    """

    def __init__(self, baseline: NDArray[np.float64]) -> None:
        self._baseline = {FEATURE: sketch_of(_column(baseline))}
        self._past: list[PastHour] = []

    def judge(self, start: datetime.datetime, items: NDArray[np.float64]) -> Judgement:
        """Judges an hour."""
        past = [hour for hour in self._past if hour.start >= start - REFERENCE_AGE]
        (judged,) = judge(start, {FEATURE: _column(items)}, self._baseline, past)
        return judged

    def remember(self, start: datetime.datetime, items: NDArray[np.float64], judged: Judgement) -> None:
        """Keeps an hour, by which later ones are judged."""
        measures = {} if judged.measure is None else {FEATURE: judged.measure}
        self._past.append(PastHour(start, measures, {FEATURE: sketch_of(_column(items))}))


def of_seed(course: Course, seed: int, other: Judge | None) -> dict[str, int]:
    """Returns how many of the clean and of the shifted hours are alarms, of ours and of another judge."""
    random = np.random.default_rng(seed)
    baseline = (course.means(REFERENCES, random).repeat(15) + random.normal(size=REFERENCES * 15))[:BASELINE_ITEMS]
    hours, found = Hours(baseline), {"false alarms": 0, "shifts found": 0}
    if other:
        found |= {"Evidently: false alarms": 0, "Evidently: shifts found": 0}
    for number, mean in enumerate(course.means(REFERENCES + HOURS, random)):
        start = FIRST + datetime.timedelta(hours=number)
        items = mean + random.normal(size=ITEMS)
        judged = hours.judge(start, items)
        hours.remember(start, items, judged)
        if number < REFERENCES:
            continue
        shifted = mean + SHIFT + random.normal(size=ITEMS)
        found["false alarms"] += judged.verdict == ALARM
        found["shifts found"] += hours.judge(start, shifted).verdict == ALARM
        if other:
            found["Evidently: false alarms"] += other(items, baseline)
            found["Evidently: shifts found"] += other(shifted, baseline)
    return found


def evidently_default() -> Judge | None:
    """Returns what Evidently does with a column of numbers unless it is told otherwise; None if it is not installed."""
    with contextlib.suppress(ModuleNotFoundError):
        pandas, evidently = import_module("pandas"), import_module("evidently")
        presets = import_module("evidently.metrics")
        definition = evidently.DataDefinition(numerical_columns=[FEATURE])

        def dataset(items: NDArray[np.float64]) -> Any:
            return evidently.Dataset.from_pandas(pandas.DataFrame({FEATURE: items}), data_definition=definition)

        def drifted(items: NDArray[np.float64], baseline: NDArray[np.float64]) -> bool:
            report = evidently.Report([presets.ValueDrift(column=FEATURE)], include_tests=True)
            snapshot = report.run(dataset(items), dataset(baseline))
            return any(test.status.value == "FAIL" for test in snapshot.tests_results)

        return drifted
    return None


def measure(courses: Sequence[Course], seeds: int, other: Judge | None) -> dict[str, dict[str, dict[str, float]]]:
    """Returns least, median and most of each count over the seeds, by course."""
    measured = {}
    for course in courses:
        of_seeds = [of_seed(course, seed, other) for seed in range(seeds)]
        counted = {name: [found[name] for found in of_seeds] for name in of_seeds[0]}
        measured[course.name] = {
            name: {"least": min(numbers), "median": statistics.median(numbers), "most": max(numbers)}
            for name, numbers in counted.items()
        }
        print(f"{course.name}: {measured[course.name]}", flush=True)
    return measured


def main() -> None:
    """Measures, prints and writes what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="Write what was measured there.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--without-evidently", action="store_true", help="It takes most of the time.")
    arguments = parser.parse_args()
    other = None if arguments.without_evidently else evidently_default()
    print(f"{HOURS} hours of {ITEMS} items, {arguments.seeds} seeds; Evidently: {'run' if other else 'not run'}")
    measured = measure(COURSES, arguments.seeds, other)
    if arguments.json:
        document = {"hours": HOURS, "items": ITEMS, "seeds": arguments.seeds, "evidently": bool(other)}
        arguments.json.write_text(json.dumps(document | {"courses": measured}, indent=2) + "\n")


def _column(items: NDArray[np.float64]) -> Column:
    return Column(np.sort(items), {}, 0)


if __name__ == "__main__":
    main()
