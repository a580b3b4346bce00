"""An hour is an alarm where it stands out from chance and from what is usual, if that is known."""

import datetime
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from batch_assets.monitoring.distances import distance
from batch_assets.monitoring.judgement import ALARM, HOLDS, NOT_JUDGED, Judgement, PastHour, corrected, judge
from batch_assets.monitoring.labels import PastLabels, judge_labels
from batch_assets.monitoring.sketches import OTHER, Column, column_of, columns_of, sketch_from, sketch_of

FIRST = datetime.datetime(2026, 11, 1)  # noqa: DTZ001 - UTC without a zone, as in the database
WEEKS = 28 * 24


def hours(means: Sequence[float] | NDArray[np.float64], seed: int = 0, items: int = 500) -> list[NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return [mean + random.normal(size=items) for mean in means]


def at(number: int) -> datetime.datetime:
    return FIRST + datetime.timedelta(hours=number)


def remembered(means: Sequence[float] | NDArray[np.float64], baseline: Column) -> list[PastHour]:
    """The hours before, each judged by those before it."""
    past: list[PastHour] = []
    for number, values in enumerate(hours(means, seed=1)):
        column = column_of(values.tolist())
        (judged,) = judge(at(number), {"x": column}, {"x": sketch_of(baseline)}, past)
        assert judged.measure is not None
        past.append(PastHour(at(number), {"x": judged.measure}, {"x": sketch_of(column)}))
    return past


@pytest.fixture(scope="module")
def baseline() -> Column:
    return column_of(np.random.default_rng(7).normal(size=5_000).tolist())


@pytest.fixture(scope="module")
def wobbling(baseline: Column) -> list[PastHour]:
    return remembered(np.random.default_rng(2).normal(scale=0.1, size=200), baseline)


def judged(column: Column, baseline: Column, past: list[PastHour], number: int = 200) -> Judgement:
    (only,) = judge(at(number), {"x": column}, {"x": sketch_of(baseline)}, past)
    return only


def test_a_mean_that_wobbles_as_ever_holds_although_the_test_finds_it(
    baseline: Column, wobbling: list[PastHour]
) -> None:
    (values,) = hours([0.15], items=2_000)
    said = judged(column_of(values.tolist()), baseline, wobbling)
    assert said.adjusted is not None
    assert said.adjusted < 0.005
    assert said.verdict == HOLDS


def test_a_shift_of_half_a_standard_deviation_is_an_alarm_and_no_reference(
    baseline: Column, wobbling: list[PastHour]
) -> None:
    (values,) = hours([0.5])
    said = judged(column_of(values.tolist()), baseline, wobbling)
    assert said.verdict == ALARM
    assert said.measure is not None
    alarmed = PastHour(at(200), {"x": said.measure})
    again = judged(column_of(values.tolist()), baseline, [*wobbling, *[alarmed] * 100], 201)
    assert again.above == said.above


def test_too_few_items_or_hours_are_not_judged(baseline: Column, wobbling: list[PastHour]) -> None:
    (values,) = hours([3.0])
    assert judged(column_of(values[:49].tolist()), baseline, wobbling).verdict == NOT_JUDGED
    assert judged(column_of(values[:50].tolist()), baseline, wobbling).verdict == ALARM
    assert judged(column_of(values.tolist()), baseline, wobbling[:23]).verdict == NOT_JUDGED
    assert judged(column_of(["a"] * 100), baseline, wobbling).reason == "it has texts where the baseline has numbers"
    (absent,) = judge(at(200), {}, {"x": sketch_of(baseline)}, wobbling)
    assert absent.verdict == NOT_JUDGED


def test_with_a_daily_course_an_hour_is_compared_with_the_same_hour() -> None:
    course = np.sin(2 * np.pi * np.arange(12 * 24) / 24)
    baseline = column_of(np.concatenate(hours(course[:48])).tolist())
    past = remembered(course, baseline)
    night, noon = hours([course[18], course[6]])
    # At its height the day is as it ever is; the same values at night are not, and lie within all that was seen.
    at_six, at_eighteen = 12 * 24 + 6, 12 * 24 + 18
    assert judged(column_of(noon.tolist()), baseline, past, at_six).verdict == HOLDS
    assert "the same hour of 12 days" in judged(column_of(noon.tolist()), baseline, past, at_six).reason
    assert judged(column_of(night.tolist()), baseline, past, at_eighteen).verdict == HOLDS
    assert judged(column_of((night + 0.5).tolist()), baseline, past, at_eighteen).verdict == ALARM


def test_holms_correction_is_that_of_the_book() -> None:
    said = corrected([Judgement(name, ALARM, "", p=p) for name, p in (("a", 0.003), ("b", 0.0005), ("c", 0.002))])
    assert [each.adjusted for each in said] == pytest.approx([0.004, 0.0015, 0.004])
    assert corrected([Judgement("a", ALARM, "", p=0.003), Judgement("b", HOLDS, "", p=0.9)])[0].verdict == HOLDS


def test_the_distances_are_those_of_scipy(baseline: Column) -> None:
    random = np.random.default_rng(4)
    values = random.normal(0.3, 1.2, size=1_000)
    found = distance(column_of(values.tolist()), sketch_of(baseline))
    test = stats.ks_2samp(values, baseline.numbers, method="asymp")
    assert found.statistic == pytest.approx(test.statistic, abs=0.01)
    assert np.log10(found.p) == pytest.approx(np.log10(test.pvalue), rel=0.15)
    moved = stats.wasserstein_distance(values, baseline.numbers) / baseline.numbers.std()
    assert found.wasserstein == pytest.approx(moved, rel=0.05)
    texts = distance(column_of(["a"] * 60 + ["b"] * 40), sketch_of(column_of(["a"] * 500 + ["b"] * 500)))
    expected = stats.chi2_contingency([[60, 40], [500, 500]], correction=False)
    assert (texts.statistic, texts.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert texts.wasserstein == pytest.approx(0.1)
    assert texts.psi == pytest.approx(0.1 * np.log(1.2) - 0.1 * np.log(0.8))


def test_of_whole_numbers_and_of_nulls_a_change_is_measured() -> None:
    random = np.random.default_rng(5)
    usual = sketch_of(column_of(random.integers(0, 3, 5_000).tolist()))
    assert distance(column_of(random.integers(0, 3, 1_000).tolist()), usual).p > 0.01
    assert distance(column_of([0] * 400 + [1] * 300 + [2] * 300), usual).p < 0.001
    nulls = distance(column_of([None] * 100 + random.integers(0, 3, 900).tolist()), usual)
    assert nulls.p < 1e-10
    assert nulls.psi > 0.1


def test_a_sketch_is_kept_as_numbers_and_counts_without_a_value_of_its_own() -> None:
    columns = columns_of(['{"age": 40, "city": "Bern"}', '{"age": null, "city": "Genf"}', '{"age": 42.5}', "[1]", "{"])
    sketch = sketch_of(columns["age"])
    assert sketch_from(sketch.document()).document() == sketch.document()
    assert (sketch.count, sketch.nulls) == (3, 1)
    assert sketch_of(columns["city"]).document() == {"count": 3, "nulls": 1, "categories": {"Bern": 1, "Genf": 1}}
    many = sketch_of(column_of([f"city {number}" for number in range(1_000)])).categories
    assert many is not None
    assert (len(many), many[OTHER]) == (51, 950)
    assert list(columns_of(["[1, true]", "[2, false]"])) == ["value_0", "value_1"]


def test_labels_that_wobble_more_than_by_chance_are_no_alarm_and_a_jump_is() -> None:
    random = np.random.default_rng(6)
    shares = 0.3 + random.normal(scale=0.03, size=WEEKS)
    counts = [{"yes": int(count), "no": 10_000 - int(count)} for count in random.binomial(10_000, shares)]
    past = [PastLabels(at(number), each) for number, each in enumerate(counts)]
    # By chance alone, 0.3 of 10,000 wobbles by 0.0046.
    assert {each.verdict for each in judge_labels(at(WEEKS), {"yes": 3_500, "no": 6_500}, past)} == {HOLDS}
    assert {each.verdict for each in judge_labels(at(WEEKS), {"yes": 4_500, "no": 5_500}, past)} == {ALARM}
    assert {each.verdict for each in judge_labels(at(WEEKS), {"yes": 20, "no": 20}, past)} == {NOT_JUDGED}
    assert {each.verdict for each in judge_labels(at(WEEKS), {"yes": 4_500, "no": 5_500}, past[:23])} == {NOT_JUDGED}
