"""The checks of an hour: recorded for its partition, by runs for one hour and for many, and by those that fail."""

import datetime
import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.definitions import defs
from batch_assets.hours import HOUR_FORMAT, utc_now
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.onnx_models import write_classifier
from batch_assets_tests.support.pipeline import END, GOOD, HOUR, insert_items, run_in
from batch_assets_tests.support.sensor import MINUTE, Tick

NEXT = "2026-11-02-06:00"
BAD = "[5.1, null, 1.4, 0.2]"
SUMMARY = dg.AssetKey("run_summary")
OF_HOUR = (
    "items_add_up",
    "nothing_is_pending",
    "failed_share_is_within_limit",
    "answers_are_finite",
    "predictions_stem_from_current_model",
)

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.above_sql]


def history(instance: dg.DagsterInstance, name: str, hour: str | None) -> list[dg.AssetCheckEvaluation]:
    """What a check has said of an hour, the last first; of all hours where there is none."""
    storage = instance.event_log_storage
    records = storage.get_asset_check_execution_history(dg.AssetCheckKey(SUMMARY, name), limit=50)
    found = [record.evaluation for record in records if record.partition == hour]
    # Before it is there, what was planned stands in its place.
    return [evaluation for evaluation in found if isinstance(evaluation, dg.AssetCheckEvaluation)]


def verdicts(instance: dg.DagsterInstance, hour: str) -> dict[str, bool]:
    """What the checks of an hour have said last, of those that have said anything."""
    found = {name: history(instance, name, hour) for name in OF_HOUR}
    return {name: evaluations[0].passed for name, evaluations in found.items() if evaluations}


def failed_of(instance: dg.DagsterInstance, hour: str) -> set[str]:
    """Which checks of an hour have failed, where all have been recorded."""
    found = verdicts(instance, hour)
    assert set(found) == set(OF_HOUR)
    return {name for name, passed in found.items() if not passed}


def said(instance: dg.DagsterInstance, name: str, hour: str | None = HOUR) -> dict[str, Any]:
    return {key: value.value for key, value in history(instance, name, hour)[0].metadata.items()}


def summed_up(instance: dg.DagsterInstance, hour: str = HOUR) -> None:
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        partition_key=hour, asset_selection=[SUMMARY], instance=instance
    )
    assert result.success


def test_each_hour_of_a_run_has_results_of_its_own_with_what_was_seen_and_expected(
    sql: Sql, instance: dg.DagsterInstance
) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, [*GOOD, BAD], END)
    for first, last in ((HOUR, None), (HOUR, NEXT)):
        run_id = run_in(instance, first, last)
        run = instance.get_run_by_id(run_id)
        assert run
        assert run.is_success
    for hour in (HOUR, NEXT):
        assert failed_of(instance, hour) == set()
        [event] = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=SUMMARY, asset_partitions=[hour]), limit=1
        ).records
        # Without it the UI does not count the hour among those that pass.
        target = history(instance, "items_add_up", hour)[0].target_materialization_data
        assert target is not None
        assert target.storage_id == event.storage_id
    assert len(history(instance, "items_add_up", HOUR)) == 2
    adding_up = said(instance, "items_add_up", NEXT)
    assert adding_up["seen"].startswith("4 items = 3 predicted + 1 failed + 0 pending; 0 rows")
    assert adding_up["expected"].startswith("items = predicted + failed + pending")
    share = said(instance, "failed_share_is_within_limit", NEXT)
    assert (share["seen"], share["expected"], share["failed_share"]) == (
        "1 of 4 items failed, a share of 0.25",
        "no limit is set",
        0.25,
    )


def test_no_check_of_an_hour_is_left_planned(sql: Sql, instance: dg.DagsterInstance) -> None:
    insert_items(sql, GOOD)
    run_in(instance, HOUR, NEXT)
    for name in OF_HOUR:
        records = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(SUMMARY, name), 50)
        assert sorted(str(record.partition) for record in records) == [HOUR, NEXT]
        assert all(isinstance(record.evaluation, dg.AssetCheckEvaluation) for record in records)


def test_a_run_that_fails_for_one_hour_records_the_others_and_what_is_over_the_limit(
    sql: Sql, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, [*GOOD, BAD], END)
    monkeypatch.setenv("BATCH_MAX_FAILED_SHARE", "0.1")
    run = instance.get_run_by_id(run_in(instance, HOUR, NEXT))
    assert run
    assert not run.is_success
    assert failed_of(instance, HOUR) == set()
    # It was not summed up.
    assert verdicts(instance, NEXT) == {"failed_share_is_within_limit": False}
    assert said(instance, "failed_share_is_within_limit", NEXT)["expected"] == (
        "a share of at most 0.1 (BATCH_MAX_FAILED_SHARE)"
    )
    assert sql("SELECT COUNT(*) FROM run_summary") == [(1,)]


def test_probabilities_that_do_not_sum_to_one_are_found_by_their_ids(sql: Sql, instance: dg.DagsterInstance) -> None:
    _, odd, _ = insert_items(sql, GOOD)
    run_in(instance)
    assert failed_of(instance, HOUR) == set()
    sql("UPDATE items SET prediction = '[0.5, 0.2, 0.2]' WHERE id = %s", odd)
    summed_up(instance)
    assert failed_of(instance, HOUR) == {"answers_are_finite"}
    found = said(instance, "answers_are_finite")
    assert (found["not_finite"], found["wrong_sums"]) == (0, 1)
    assert f"(items {odd})" in found["seen"]


def test_predictions_of_a_model_that_was_swapped_since_are_found(
    sql: Sql, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    run_in(instance)
    files = write_classifier(tmp_path, labels=["setosa", "versicolor", "virginica"])
    monkeypatch.setenv("MODEL_FILEPATH", str(files.model_filepath))
    monkeypatch.setenv("LABEL_FILEPATH", str(files.label_filepath))
    summed_up(instance)
    assert failed_of(instance, HOUR) == {"predictions_stem_from_current_model"}
    [(version,)] = sql("SELECT model_version FROM run_summary")
    assert said(instance, "predictions_stem_from_current_model")["seen"] == f"scored last with {version}"
    run_in(instance, ops={"predictions": {"config": {"retry": "whole_batch"}}})
    assert failed_of(instance, HOUR) == set()


def test_what_is_pending_and_what_stands_for_no_failed_item_is_found(sql: Sql, instance: dg.DagsterInstance) -> None:
    good, bad = insert_items(sql, [GOOD[0], BAD])
    run_in(instance)
    sql("UPDATE items SET prediction = NULL WHERE id = %s", good)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", bad)
    summed_up(instance)
    assert failed_of(instance, HOUR) == {"items_add_up", "nothing_is_pending"}
    assert said(instance, "items_add_up")["strays"] == 1
    assert history(instance, "items_add_up", HOUR)[0].severity == dg.AssetCheckSeverity.ERROR
    assert history(instance, "nothing_is_pending", HOUR)[0].severity == dg.AssetCheckSeverity.WARN


# The newest hour


def test_the_sensor_records_once_that_the_newest_hour_was_not_scored_and_once_that_it_was(
    sql: Sql, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_RETRY", "leave")
    due = utc_now().replace(minute=0, second=0, microsecond=0) - datetime.timedelta(hours=2)
    first = Tick(instance)
    [late] = first.recorded
    assert (late.check_name, late.passed, late.severity) == (
        "newest_hour_was_scored_in_time",
        False,
        dg.AssetCheckSeverity.WARN,
    )
    assert late.description is not None
    assert late.description.startswith(f"the hour {due.strftime(HOUR_FORMAT)} has no row in run_summary")
    assert Tick(instance, cursor=first.cursor).recorded == []
    run_in(instance, due.strftime(HOUR_FORMAT))
    second = Tick(instance, cursor=first.cursor)
    assert [event.passed for event in second.recorded] == [True]
    assert Tick(instance, cursor=second.cursor).recorded == []
    # A backfill of an old hour does not make up for the newest one.
    run_in(instance, HOUR)
    assert [event.passed for event in Tick(instance, 60 * MINUTE, cursor=second.cursor).recorded] == [False]


def test_the_deadline_is_set_by_a_variable(
    sql: Sql, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_RETRY", "leave")
    newest = utc_now().replace(minute=0, second=0, microsecond=0) - datetime.timedelta(hours=2)
    run_in(instance, newest.strftime(HOUR_FORMAT))
    assert Tick(instance).recorded == []
    monkeypatch.setenv("BATCH_DEADLINE_MINUTES", str(60 * 24 * 365))
    # Then no hour is due, since the first one is younger.
    assert Tick(instance, cursor="late").recorded[0].passed


def test_the_picture_and_the_failed_items_go_with_the_hour(sql: Sql, instance: dg.DagsterInstance) -> None:
    ids = insert_items(sql, [*GOOD, BAD, BAD, "[1, 2]"])
    run_in(instance)
    [record] = instance.fetch_materializations(SUMMARY, limit=1).records
    assert record.asset_materialization is not None
    found = {key: value.value for key, value in record.asset_materialization.metadata.items()}
    assert str(found["picture"]).startswith(f"![The hour {HOUR} and those before it](data:image/svg+xml;base64,")
    rows = str(found["failed items"]).splitlines()[2:]
    codes: dict[str, int] = dict(sql("SELECT code, COUNT(*) FROM failed_items GROUP BY code"))
    assert {row.split(" | ")[0].strip("| "): int(row.split(" | ")[1]) for row in rows} == codes
    assert rows[0].endswith(f"{ids[3]}, {ids[4]} |")
    assert rows[1].endswith(f"{ids[5]} |")
    assert found["failed_share"] == 0.5
    assert json.dumps(found["not_finite"]) == "0"
