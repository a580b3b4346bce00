"""The sensor and the schedule on a real Dagster instance and real tables: who is requested, and who is not."""

import contextlib
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from batch_assets.database.records.hour_requests import read_requests, reset_attempts
from batch_assets.database.schema.setup import initialize_database
from batch_assets.definitions import defs
from batch_assets.hours import Hour
from batch_assets.orchestration.names import asset_keys
from batch_assets.orchestration.partitions import hourly_partitions
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, TABLES, engine_from_environment
from batch_assets_tests.support.instance import ROOT, run_of, running_instance
from batch_assets_tests.support.pipeline import END, GOOD, HALF_PAST, HOUR, insert_items
from batch_assets_tests.support.sensor import MINUTE, Tick, over, run_of_hour
from batch_assets_tests.support.servers import Server

pytestmark = pytest.mark.above_sql

SUCCESS, FAILURE, CANCELED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
NEXT = "2026-11-02-06:00"
KEYS = asset_keys(OF_ENVIRONMENT)
RUNS = """{ runsOrError { ... on Runs { results { status creationTime tags { key value } } } } }"""
TICKS = """query Ticks($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor {
  sensorState { ticks(limit: 20) { status runIds skipReason error { message } } }
} } }"""
SENSOR = {
    "repositoryLocationName": "batch_assets.definitions",
    "repositoryName": "__repository__",
    "sensorName": "retry_hours",
}


def present_hour() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)


# Which hours


def test_a_tick_says_that_nothing_is_left(instance: dg.DagsterInstance) -> None:
    tick = Tick(instance)
    assert tick.requests == []
    assert tick.said == "Nothing is left in any closed hour."


def test_missed_hours_are_requested_once_each_oldest_first_with_reason_and_mode(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    for moment in (END, HALF_PAST, "2026-11-02 07:59:59", "2026-10-31 23:59:59"):
        insert_items(sql, GOOD, moment)
    insert_items(sql, GOOD, str(present_hour()))  # which is open
    insert_items(sql, GOOD, str(present_hour() + datetime.timedelta(hours=3)))
    tick = Tick(instance)
    assert tick.hours == [HOUR, NEXT, "2026-11-02-07:00"]
    for request in tick.requests:
        assert request.tags["batch_assets/reason"] == "missed tick"
        assert request.tags["batch_assets/retry"] == "partial"
        assert request.tags["dagster/partition"] == request.partition_key
    assert len({request.run_key for request in tick.requests}) == 3
    again = Tick(instance)
    assert again.requests == []
    assert again.said == "No hour is requested. Hours that wait for a run that was just requested: 3"


def test_a_tick_requests_fifty_hours_at_the_most_and_the_next_one_the_others(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    moments = [f"2026-11-{1 + number // 24:02} {number % 24:02}:10:00" for number in range(120)]
    for moment in moments:
        insert_items(sql, GOOD[:1], moment)
    seen = [Tick(instance).hours for _ in range(4)]
    assert [len(requested) for requested in seen] == [50, 50, 20, 0]
    assert [requested for hours_of_tick in seen for requested in hours_of_tick] == [
        f"{moment[:10]}-{moment[11:13]}:00" for moment in moments
    ]


def test_hours_that_ticks_want_again_have_run_keys_of_their_own(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    (first,) = Tick(instance).requests
    (second,) = Tick(instance, 11 * MINUTE).requests
    assert first.run_key != second.run_key


def test_late_items_of_an_hour_that_was_scored_are_requested_in_the_mode_of_the_policy(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    job = defs.resolve_job_def("batch_inference")
    assert job.execute_in_process(partition_key=HOUR, instance=instance).success
    assert Tick(instance).said == "Nothing is left in any closed hour."
    insert_items(sql, GOOD[:1])
    monkeypatch.setenv("BATCH_RETRY", "leave")
    assert Tick(instance).said == "BATCH_RETRY is 'leave': no hour is requested by itself."
    monkeypatch.setenv("BATCH_RETRY", "whole_batch")
    (request,) = Tick(instance).requests
    assert (request.tags["batch_assets/reason"], request.tags["batch_assets/retry"]) == ("late items", "whole_batch")
    time.sleep(1)  # no run under the daemon ends within the second of its request, which is all the table holds
    assert job.execute_in_process(partition_key=HOUR, instance=instance, tags=dict(request.tags)).success
    assert Tick(instance).said == "Nothing is left in any closed hour."
    assert read_requests(engine_from_environment(), TABLES) == {}


# Runs and backfills


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_an_hour_with_a_run_that_has_not_ended_waits(instance: dg.DagsterInstance, sql: Sql, status: str) -> None:
    insert_items(sql, GOOD)
    run_of_hour(instance, dg.DagsterRunStatus(status))
    assert Tick(instance).said == "No hour is requested. Hours that wait for a run queued or in progress: 1"


def test_an_hour_does_not_wait_for_a_run_that_was_killed_and_never_ends(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    run_of_hour(instance, dg.DagsterRunStatus.STARTED)
    insert_items(sql, GOOD, END)
    run_of_hour(instance, dg.DagsterRunStatus.NOT_STARTED, dagster__partition=NEXT)
    assert Tick(instance, 23 * 60 * MINUTE).hours == []
    assert Tick(instance, 25 * 60 * MINUTE).hours == [HOUR]


def test_hours_within_the_range_of_a_run_wait_for_it(instance: dg.DagsterInstance, sql: Sql) -> None:
    for moment in (HALF_PAST, END, "2026-11-02 07:30:00", "2026-11-02 08:30:00"):
        insert_items(sql, GOOD, moment)
    started = dg.DagsterRunStatus.STARTED
    run_of_hour(instance, started, job_name="__ASSET_JOB", assets=[KEYS.predictions], **over(NEXT, "2026-11-02-07:00"))
    # Runs of other things do not score the hour.
    run_of_hour(instance, started, job_name="__ASSET_JOB", assets=[KEYS.raw_items], **over(HOUR, NEXT))
    run_of_hour(instance, started, job_name="somebody_elses")
    assert Tick(instance).hours == [HOUR, "2026-11-02-08:00"]


def subset(asset: dg.AssetKey, *keys: str) -> AssetGraphSubset:
    hours = hourly_partitions(OF_ENVIRONMENT).subset_with_partition_keys(keys)
    return AssetGraphSubset.create_empty_subset()._replace(partitions_subsets_by_asset_key={asset: hours})


def test_hours_of_a_backfill_whose_runs_are_not_there_yet_wait_for_it(instance: dg.DagsterInstance, sql: Sql) -> None:
    for moment in (HALF_PAST, END, "2026-11-02 07:30:00", "2026-11-02 08:30:00"):
        insert_items(sql, GOOD, moment)
    now = datetime.datetime.now(datetime.UTC).timestamp()
    for number, target in enumerate((subset(KEYS.predictions, HOUR, NEXT), subset(KEYS.raw_items, "2026-11-02-07:00"))):
        data = AssetBackfillData.empty(target, now, instance)
        requested = BulkActionStatus.REQUESTED
        instance.add_backfill(
            PartitionBackfill(str(number), requested, from_failure=False, tags={}, backfill_timestamp=now,
                              asset_backfill_data=data)
        )  # fmt: skip
    assert Tick(instance).hours == ["2026-11-02-07:00", "2026-11-02-08:00"]
    backfill = instance.get_backfill("0")
    assert backfill
    assert isinstance(backfill.asset_backfill_data, AssetBackfillData)
    done = backfill.asset_backfill_data._replace(materialized_subset=subset(KEYS.predictions, NEXT))
    instance.update_backfill(backfill._replace(asset_backfill_data=done))
    assert Tick(instance).hours == [NEXT]
    instance.update_backfill(backfill._replace(status=BulkActionStatus.CANCELED))
    assert Tick(instance).hours == [HOUR]


def test_a_failed_run_is_repeated_after_five_minutes_also_where_no_item_is_left(instance: dg.DagsterInstance) -> None:
    run_of_hour(instance, FAILURE)
    assert (
        Tick(instance, 4 * MINUTE).said
        == "No hour is requested. Hours that wait for a pause before the next attempt: 1"
    )
    (request,) = Tick(instance, 6 * MINUTE).requests
    assert request.tags["batch_assets/reason"] == "failed run"
    run_of_hour(instance, SUCCESS)
    assert Tick(instance, 30 * MINUTE).said == "Nothing is left in any closed hour."


def test_a_run_of_a_job_of_the_users_own_counts_if_it_scores(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    nightly = dg.define_asset_job("nightly", dg.AssetSelection.assets(KEYS.predictions))
    project = dg.Definitions.merge(defs, dg.Definitions(jobs=[nightly]))
    run_of_hour(instance, FAILURE, job_name="nightly", assets=[KEYS.predictions])
    assert "a pause before the next attempt: 1" in str(Tick(instance, 4 * MINUTE, project).said)


def test_every_hour_of_a_failed_range_is_requested_by_itself(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    fault = {"batch_assets__fault": "permanent", "batch_assets__fault_message": "Too many failed items."}
    run_of_hour(instance, FAILURE, job_name="__ASSET_JOB", assets=[KEYS.predictions], **over(HOUR, NEXT), **fault)
    assert Tick(instance, 6 * MINUTE).hours == [HOUR, NEXT]


def test_an_hour_that_failed_for_good_is_named_once_and_requested_when_it_was_put_back(
    instance: dg.DagsterInstance, sql: Sql, capfd: pytest.CaptureFixture[str]
) -> None:
    insert_items(sql, GOOD)
    run_of_hour(
        instance, FAILURE, batch_assets__fault="permanent", batch_assets__fault_message="The model does not fit."
    )
    said = f"The hour {HOUR} is given up: The model does not fit. Fix that and materialise the hour, or have it "
    assert Tick(instance).said == "Nothing is left in any closed hour."
    assert said in capfd.readouterr().err
    for later in (MINUTE, datetime.timedelta(days=40)):
        assert (
            Tick(instance, later).said == "No hour is requested. Hours that wait for somebody, having been given up: 1"
        )
    assert "given up" not in capfd.readouterr().err
    engine, now = engine_from_environment(), datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    reset_attempts(engine, TABLES, [Hour(datetime.datetime.fromisoformat(END) - 60 * MINUTE)], [], now)
    (request,) = Tick(instance, MINUTE).requests
    assert request.tags["batch_assets/reason"] == "failed run"


def test_an_hour_that_keeps_failing_is_given_up_with_the_fault_of_its_last_run(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    monkeypatch.setenv("BATCH_MAX_ATTEMPTS", "1")
    assert Tick(instance, -MINUTE).hours == [HOUR]
    run_id = run_of_hour(instance, dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run_of(instance, run_id), "The worker is gone.")
    assert Tick(instance, 60 * MINUTE).requests == []
    (row,) = read_requests(engine_from_environment(), TABLES).values()
    assert row.given_up_because == (
        f"it was requested 1 time without progress, and its last run {run_id} failed: The worker is gone."
    )


def test_an_hour_whose_run_was_canceled_waits_for_somebody(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    run_of_hour(instance, CANCELED)
    assert Tick(instance, 60 * MINUTE).requests == []
    (row,) = read_requests(engine_from_environment(), TABLES).values()
    assert row.given_up_because == "its run was canceled"


# The schedule


def scheduled(instance: dg.DagsterInstance, moment: str) -> tuple[list[str | None], dict[str, str], str | None]:
    repository = defs.get_repository_def()
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime.datetime.fromisoformat(moment).replace(tzinfo=datetime.UTC),
        repository_def=repository,
    )
    data = repository.get_schedule_def("hourly_batch_inference").evaluate_tick(context)
    requests = data.run_requests or []
    tags = {name: value for request in requests for name, value in request.tags.items()}
    return [request.partition_key for request in requests], tags, data.skip_message


def test_schedule_and_sensor_never_both_request_an_hour(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, GOOD, END)
    assert scheduled(instance, END.replace("00:00", "19:00"))[0] == [HOUR]
    assert Tick(instance).hours == [NEXT]
    requested, _, said = scheduled(instance, "2026-11-02 07:19:00")
    assert requested == []
    assert said == f"The sensor retry_hours has seen to the hour {NEXT} already."
    # A run of the schedule that never started is missed after a while.
    assert Tick(instance, 6 * MINUTE).hours == [HOUR]


def test_the_schedule_follows_the_policy(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "batch_assets/retry" not in scheduled(instance, "2026-11-02 06:19:00")[1]
    monkeypatch.setenv("BATCH_RETRY", "whole_batch")
    assert scheduled(instance, "2026-11-02 07:19:00")[1]["batch_assets/retry"] == "whole_batch"
    monkeypatch.setenv("BATCH_RETRY", "leave")
    for _ in range(2):  # with nobody else to request it there is nothing to claim
        requested, tags, _ = scheduled(instance, "2026-11-02 08:19:00")
        assert requested == ["2026-11-02-07:00"]
        assert "batch_assets/retry" not in tags


def test_the_schedule_requests_no_hour_before_the_first(instance: dg.DagsterInstance) -> None:
    requested, _, said = scheduled(instance, "2026-11-01 00:19:00")
    assert (requested, said) == ([], "The hour 2026-10-31-23:00 lies before the first one, 2026-11-01-00:00.")


def test_a_database_that_is_away_is_the_sentence_of_a_failed_tick(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_HOME", str(Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml" / "none"))
    monkeypatch.delenv("MYSQL_SERVER", raising=False)
    for tick in (lambda: scheduled(instance, "2026-11-02 06:19:00"), lambda: Tick(instance)):
        with pytest.raises(Exception, match=r"hourly_batch_inference|to another one") as raised:
            tick()
        fault = getattr(raised.value, "user_exception", raised.value)
        assert str(fault).endswith("make its folder writable, or set BATCH_ASSETS_HOME to another one.")


# All of it


def ticks(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The ticks that came to something, or to a fault."""
    every: list[dict[str, Any]] = answer["sensorOrError"]["sensorState"]["ticks"]
    return [tick for tick in every if tick["status"] != "STARTED"]


@pytest.mark.slow
@pytest.mark.daemon
@pytest.mark.one_server
@pytest.mark.timeout(1200)
def test_a_daemon_that_was_off_catches_up_and_gives_up_what_is_hopeless(
    server: Server, server_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    present = present_hour()  # in which the test began: it may end in the next

    def start_of(back: int) -> datetime.datetime:
        return present - datetime.timedelta(hours=back)

    def hour(back: int) -> str:
        return f"{start_of(back):%Y-%m-%d-%H:%M}"

    initialize_database(engine_from_environment(), ITEMS)
    missed, hopeless = [hour(back) for back in range(7, 1, -1)], hour(8)
    for back in range(7, 1, -1):
        insert_items(sql, GOOD, str(start_of(back) + 10 * MINUTE))
    insert_items(sql, [*GOOD, '"bad"'], str(start_of(8) + 10 * MINUTE))
    (late,) = insert_items(sql, GOOD[:1], str(start_of(0)))  # in the open hour, at first
    with contextlib.ExitStack() as stack:
        environment = {
            "MYSQL_DAGSTER_DATABASE": stack.enter_context(server.database()),
            "BATCH_MAX_FAILED_ITEMS": "0",
        }
        instance = stack.enter_context(running_instance(tmp_path / "dagster", ROOT / "dagster.yaml", environment))

        def runs() -> list[tuple[str, str, str | None]]:
            """Hour, status and reason of the runs, in the order in which they were requested."""
            found = instance.query(RUNS)["runsOrError"]["results"]
            # At minute 19 the instance's own schedule adds the last hour.
            tags = [({tag["key"]: tag["value"] for tag in run["tags"]}, run["status"]) for run in reversed(found)]
            rows = [(tags["dagster/partition"], status, tags.get("batch_assets/reason")) for tags, status in tags]
            return [row for row in rows if row[0] != hour(1)]

        def ended_runs() -> list[tuple[str, str, str | None]]:
            return [run for run in runs() if run[1] in ("SUCCESS", "FAILURE")]

        instance.wait(RUNS, lambda _: len(ended_runs()) >= 7, 120)
        first = runs()
        sql("UPDATE items SET created_datetime = %s WHERE id = %s", str(start_of(3) + 20 * MINUTE), late)
        instance.wait(RUNS, lambda _: len(ended_runs()) >= 8, 120)
        answer = instance.wait(TICKS, lambda answer: len(ticks(answer)) >= 2, 30, sensor=SENSOR)
        last = runs()
        log = "".join(path.read_text() for path in instance.logs)

    assert first == [
        (hopeless, "FAILURE", "missed tick"), *((key, "SUCCESS", "missed tick") for key in missed)
    ]  # fmt: skip
    assert last == [*first, (hour(3), "SUCCESS", "late items")]
    assert sorted(len(tick["runIds"]) for tick in ticks(answer) if tick["runIds"]) == [1, 7]
    assert [tick["error"] for tick in ticks(answer)] == [None] * len(ticks(answer))
    # 18 items of the six hours, the late one, and what the hopeless hour could score.
    assert sql("SELECT COUNT(prediction), COUNT(*) - COUNT(prediction) FROM items") == [(22, 1)]
    assert f"The hour {hopeless} is given up: " in log
    command = [sys.executable, "-m", "batch_assets.cli", "status"]
    assert f"The hour {hopeless} is given up: " in subprocess.check_output(command, encoding="utf-8", timeout=120)
