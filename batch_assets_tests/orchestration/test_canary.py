"""The canary: proves that the next hour would be scored, names what would prevent it, and writes nothing.

That it names a right which is missing is in `deploy/test_grants.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.component import pipeline_definitions
from batch_assets.definitions import defs
from batch_assets.errors import SettingsError
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.onnx_models import labels_file, write_classifier
from batch_assets_tests.support.pipeline import GOOD, HALF_PAST, HOUR, insert_items, run_in
from batch_assets_tests.support.servers import free_port

BAD = "[1, 2]"
NEXT_HALF_PAST = "2026-11-02 06:30:00"
TABLES = ("items", "failed_items", "run_summary", "hour_locks", "hour_requests", "hour_profiles", "baselines")

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.dagster, pytest.mark.above_sql]


@pytest.fixture
def canary(instance: dg.DagsterInstance) -> Callable[[], tuple[str | None, dict[str, Any]]]:
    """Runs it, and returns why it failed, and what it has recorded."""

    def run() -> tuple[str | None, dict[str, Any]]:
        job = defs.resolve_job_def("canary")
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        faults = [event.step_failure_data.user_failure_data for event in result.get_step_failure_events()]
        outputs = [event.step_output_data.metadata for event in result.all_events if event.is_successful_output]
        seen = {name: value.value for metadata in outputs for name, value in metadata.items()}
        return (faults[0].description if faults and faults[0] else None), seen

    return run


Canary = Callable[[], tuple[str | None, dict[str, Any]]]


def contents(sql: Sql) -> list[Any]:
    return [sql(f"SELECT * FROM {table}") for table in TABLES]


def test_recent_items_go_the_way_of_an_hour_and_nothing_is_written(
    canary: Canary, instance: dg.DagsterInstance, sql: Sql
) -> None:
    insert_items(sql, GOOD, HALF_PAST)
    run_in(instance, HOUR)
    insert_items(sql, [*GOOD, BAD], NEXT_HALF_PAST)
    before = contents(sql)
    fault, seen = canary()
    assert fault is None
    assert (seen["items"], seen["scored"], seen["failed"], seen["compared"]) == (7, 6, 1, 3)
    assert len(seen["model_version"]) == 64
    assert contents(sql) == before


def test_without_any_item_there_is_nothing_against_the_next_hour(canary: Canary) -> None:
    fault, seen = canary()
    assert (fault, seen["items"]) == (None, 0)


def test_an_answer_that_differs_from_what_the_same_model_wrote_is_named(
    canary: Canary, instance: dg.DagsterInstance, sql: Sql
) -> None:
    first, *_ = insert_items(sql, GOOD, HALF_PAST)
    run_in(instance, HOUR)
    sql("UPDATE items SET prediction = '[0.1, 0.2, 0.7]' WHERE id = %s", first)
    before = contents(sql)
    fault, _ = canary()
    assert fault is not None
    assert "has scored 3 items, and answers 1 of them otherwise now" in fault
    assert f"(items {first}; of {first} it was [0.1, 0.2, 0.7] and is [" in fault
    assert contents(sql) == before


def test_the_last_digits_of_an_answer_may_differ(canary: Canary, instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD, HALF_PAST)
    run_in(instance, HOUR)
    for key, text in sql("SELECT id, prediction FROM items"):
        moved = json.dumps([number * (1 + 1e-6) for number in json.loads(text)])
        sql("UPDATE items SET prediction = %s WHERE id = %s", moved, key)
    assert canary()[0] is None


def test_an_hour_that_two_models_may_have_scored_is_not_compared(
    canary: Canary, instance: dg.DagsterInstance, sql: Sql
) -> None:
    insert_items(sql, GOOD[:1], HALF_PAST)
    run_in(instance, HOUR)
    sql("UPDATE items SET prediction = '[0.1, 0.2, 0.7]'")
    insert_items(sql, GOOD[1:], HALF_PAST)
    run_in(instance, HOUR)
    fault, seen = canary()
    assert (fault, seen["compared"]) == (None, 0)


def test_a_model_that_does_not_fit_the_items_is_named(
    canary: Canary, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD, HALF_PAST)
    wide = write_classifier(tmp_path, width=7, sample=False)
    monkeypatch.setenv("MODEL_FILEPATH", str(wide.model_filepath))
    monkeypatch.setenv("LABEL_FILEPATH", str(labels_file(wide)))
    before = contents(sql)
    fault, _ = canary()
    assert "The model model.onnx takes 7 values an item, not 4 as in the items of the hour" in (fault or "")
    assert contents(sql) == before


def test_a_model_that_is_missing_is_named(canary: Canary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODEL_FILEPATH", str(tmp_path / "gone.onnx"))
    assert "gone.onnx" in (canary()[0] or "")


def test_a_column_that_is_gone_is_named(canary: Canary, sql: Sql) -> None:
    insert_items(sql, GOOD, HALF_PAST)
    sql("ALTER TABLE run_summary RENAME COLUMN scored TO renamed")
    fault, _ = canary()
    assert "scored" in (fault or "")
    assert "run `batch-assets init-db`" in (fault or "")


def test_a_table_that_is_gone_is_named(canary: Canary, sql: Sql) -> None:
    sql("DROP TABLE hour_profiles")
    fault, _ = canary()
    assert "hour_profiles" in (fault or "")


def test_a_server_that_is_away_is_named(
    canary: Canary, tables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "MYSQL_SERVER" not in tables:
        pytest.skip("SQLite has no server")
    monkeypatch.setenv("MYSQL_PORT", str(free_port()))
    assert "No MySQL server answers at" in (canary()[0] or "")


def test_it_runs_by_itself_only_at_the_minute_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def schedule() -> tuple[str, dg.DefaultScheduleStatus]:
        schedule = pipeline_definitions(OF_ENVIRONMENT).get_repository_def().get_schedule_def("hourly_canary")
        return str(schedule.cron_schedule), schedule.default_status

    assert schedule() == ("19 * * * *", dg.DefaultScheduleStatus.STOPPED)
    monkeypatch.setenv("BATCH_CANARY_MINUTE", "5")
    assert schedule() == ("5 * * * *", dg.DefaultScheduleStatus.RUNNING)


def test_the_minute_of_the_canary_is_one_of_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OF_ENVIRONMENT.canary_minute() is None
    monkeypatch.setenv("BATCH_CANARY_MINUTE", "7")
    assert OF_ENVIRONMENT.canary_minute() == 7
    for wrong in ("60", "-1", "half past"):
        monkeypatch.setenv("BATCH_CANARY_MINUTE", wrong)
        with pytest.raises(SettingsError, match="write a minute of the hour, 0 to 59"):
            OF_ENVIRONMENT.canary_minute()
