"""From rows to a verdict: hours are scored, a baseline is made of them, and the next ones are judged."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.iris.training import iris_items
from batch_assets.pipeline import ITEM_TABLE
from batch_assets.reporting.drift import SAMPLE_ITEMS, KeySample
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import insert_items, run_in

DAY, ITEMS = 26, 60
INPUTS, LABELS = "inputs_are_as_in_training", "labels_are_as_usual"
AS_BASELINE = "none further from the baseline than chance and other hours explain"
AS_HOURS = "none further from the shares of past hours than chance and other hours explain"
NEXT, SHIFTED = "2026-11-03-02:00", "2026-11-03-03:00"

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.dagster]


def moment(number: int) -> str:
    return f"2026-11-{2 + number // 24:02} {number % 24:02}:00:00"


def items(number: int, shift: float = 0.0) -> list[str]:
    return [json.dumps([values[0] + shift, *values[1:]]) for values in iris_items(ITEMS, number)]


def checks(instance: dg.DagsterInstance, run_id: str, hour: str | None = None) -> Mapping[str, tuple[bool, str | None]]:
    logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [log.get_dagster_event().asset_check_evaluation_data for log in logs]
    of_hour = [each for each in found if each.partition and hour in (each.partition, None)]
    return {each.check_name: (each.passed, each.description) for each in of_hour}


def drift(instance: dg.DagsterInstance, hour: str) -> str:
    """Returns what the newest summary of an hour shows."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey("run_summary"), asset_partitions=[hour])
    (record,) = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization
    return str(record.asset_materialization.metadata["drift"].value)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("batch-assets"))
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=os.environ)


def profile(sql: Sql, hour: str) -> tuple[Any, ...]:
    (row,) = sql(
        "SELECT sampled, alarms, judgements, measures, label_counts, sketches FROM hour_profiles WHERE hour = %s", hour
    )
    return row


def test_hours_that_were_good_make_the_baseline_by_which_the_next_are_judged(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    for number in range(DAY):
        insert_items(sql, items(number), moment(number))
    run_id = run_in(instance, "2026-11-02-00:00", "2026-11-03-01:00")
    assert not checks(instance, run_id, "2026-11-02-00:00").keys() & {INPUTS, LABELS}
    assert checks(instance, run_id, "2026-11-03-01:00").keys() & {INPUTS, LABELS} == {LABELS}  # after 24 hours
    assert "This model has no baseline: `batch-assets baseline` makes one." in drift(instance, "2026-11-03-01:00")
    made = command("baseline", "--hours", "2026-11-02-00:00", "2026-11-03-01:00")
    assert (made.returncode, made.stdout.splitlines()) == (
        0,
        ["baseline of 4 features made from 26 hours from 2026-11-02-00:00 to 2026-11-03-01:00: 1,560 items"],
    ), made.stderr
    assert sql("SELECT COUNT(*), MIN(sampled), MAX(alarms) FROM hour_profiles") == [(DAY, ITEMS, 0)]

    insert_items(sql, items(DAY), moment(DAY))
    insert_items(sql, items(DAY + 1, shift=2.0), moment(DAY + 1))
    run_id = run_in(instance, NEXT, SHIFTED)
    assert checks(instance, run_id, NEXT)[INPUTS] == (True, f"4 features, all as usual; expected: {AS_BASELINE}")
    assert checks(instance, run_id, NEXT)[LABELS] == (True, f"3 labels, all as usual; expected: {AS_HOURS}")
    shifted = checks(instance, run_id, SHIFTED)
    assert shifted[INPUTS] == (False, f"1 of 4 features unusual: value_0; expected: {AS_BASELINE}")
    assert drift(instance, SHIFTED).splitlines()[2].startswith("| value_0 | alarm |")

    # Again, and nothing is otherwise: neither the sample nor what is said.
    before = profile(sql, moment(DAY + 1))
    run_in(instance, SHIFTED)
    assert profile(sql, moment(DAY + 1)) == before


def test_a_new_model_without_a_baseline_is_red_where_the_one_before_had_one(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    insert_items(sql, items(0), moment(0))
    run_in(instance, "2026-11-02-00:00")
    made = command("baseline", "--hours", "2026-11-02-00:00", "2026-11-02-00:00")
    assert made.returncode == 0, made.stderr
    sql("UPDATE baselines SET model_version = 'of the model before'")
    passed, description = checks(instance, run_in(instance, "2026-11-02-00:00"))[INPUTS]
    assert not passed
    assert str(description).endswith(
        "has no baseline, as the model before it has; expected: a baseline, by `batch-assets baseline`"
    )


def test_a_file_of_training_items_makes_a_baseline_of_which_none_is_kept(sql: Sql, tmp_path: Path) -> None:
    file = tmp_path / "training.json"
    file.write_text(json.dumps(iris_items(500, 1)))
    assert command("baseline", "--file", str(file)).stdout == (
        "baseline of 4 features made from training.json: 500 items\n"
    )
    ((version, sketches),) = sql("SELECT model_version, sketches FROM baselines")
    assert len(version) == 64
    assert {name: len(sketch["quantiles"]) for name, sketch in json.loads(sketches).items()} == {
        f"value_{place}": 100 for place in range(4)
    }


def test_without_hours_that_one_model_has_scored_there_is_no_baseline(sql: Sql) -> None:
    refused = command("baseline", "--hours", "2026-11-02-00:00", "2026-11-03-01:00")
    assert refused.returncode == 1
    assert "were scored by no run: name hours that one model has scored." in refused.stderr
    assert sql("SELECT COUNT(*) FROM baselines") == [(0,)]
    assert command("baseline").returncode == 2


def test_the_sample_is_bounded_and_the_same_in_any_order() -> None:
    def sampled(keys: list[int]) -> list[int]:
        sample = KeySample(ITEM_TABLE)
        rows = [(key, None if key % 10 == 0 else "[1]") for key in keys]
        parts = [Batch(("id", "prediction"), rows[start : start + 999]) for start in range(0, len(rows), 999)]
        assert sum(map(len, sample.watching(parts))) == len(keys)
        return sample.keys

    keys = list(range(1, 50_001))
    picked = sampled(keys)
    assert picked == sampled(keys[::-1])
    assert len(picked) == SAMPLE_ITEMS
    assert not any(key % 10 == 0 for key in picked)
    # Spread over all of them.
    assert abs(sum(key <= 25_000 for key in picked) - SAMPLE_ITEMS / 2) < 100
