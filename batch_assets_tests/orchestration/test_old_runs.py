"""Which of Dagster's runs go and what the UI says of an hour afterwards, on the storages of both instances."""

import datetime
import os
import shutil
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._core.test_utils import create_run_for_test

from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.records.pruning import Pruning
from batch_assets.errors import DatabaseUnavailableError, SettingsError
from batch_assets.hours import Hour, utc_now
from batch_assets.orchestration.names import asset_keys
from batch_assets.orchestration.old_runs import OldRuns, opened_instance
from batch_assets.orchestration.partitions import hourly_partitions
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets.settings.throttle import ThrottleSettings
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.pipeline import END, GOOD, HOUR, START, correct, insert_items, run_in

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.above_sql]

NEXT = "2026-11-02-06:00"
HOURLY = asset_keys(OF_ENVIRONMENT)
MATERIALIZED, FAILED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED


def old_runs(instance: dg.DagsterInstance, before: datetime.datetime | None = None) -> OldRuns:
    # A run that was made without events has the time of the server, whose zone is another.
    return OldRuns(
        instance, engine_from_environment(), [OF_ENVIRONMENT], before or utc_now() + datetime.timedelta(days=1)
    )


def prune_runs(instance: dg.DagsterInstance, before: datetime.datetime | None = None) -> list[str]:
    """Removes what can go; returns the runs that stay."""
    runs = old_runs(instance, before)
    throttle = Throttle(engine_from_environment(), ThrottleSettings(), print)
    for removable, run_id in runs.removable():
        if removable:
            runs.remove(run_id, throttle)
    runs.forget_status()
    return [run.run_id for run in reversed(instance.get_runs())]


def prune_hour(key: str) -> None:
    engine = engine_from_environment()
    throttle = Throttle(engine, ThrottleSettings(), print)
    start = datetime.datetime.strptime(key, "%Y-%m-%d-%H:%M")  # noqa: DTZ007 - UTC, as in the tables
    done = Pruning(engine, [TABLES], throttle, print, unscored_too=False).remove(Hour(start))
    assert done.left is None


def status(instance: dg.DagsterInstance, *keys: str) -> set[AssetPartitionStatus | None]:
    """What the UI shows of the three assets of some hours."""
    found = [instance.get_status_by_partition(asset, keys, hourly_partitions(OF_ENVIRONMENT)) for asset in HOURLY]
    return {state for of_asset in found for state in (of_asset or {}).values()} or {None}


def test_of_an_hour_that_is_there_the_last_run_stays_and_the_ui_shows_it_as_before(
    shipped: dg.DagsterInstance, sql: Sql
) -> None:
    insert_items(sql, GOOD)
    first = run_in(shipped)
    correct(sql, 1)
    sql("UPDATE items SET prediction = NULL WHERE id = 1")
    last = run_in(shipped)
    logs = Path(os.environ["DAGSTER_HOME"]) / "storage"
    assert (logs / first).is_dir()
    assert status(shipped, HOUR) == {MATERIALIZED}
    assert prune_runs(shipped) == [last]
    assert status(shipped, HOUR) == {MATERIALIZED}
    assert shipped.all_logs(first) == []
    assert not (logs / first).exists()
    assert (logs / last).is_dir()
    # Also from nothing but the events that are left.
    shipped.wipe_asset_cached_status(list(HOURLY))
    assert status(shipped, HOUR) == {MATERIALIZED}
    assert prune_runs(shipped) == [last]


def test_the_runs_of_a_pruned_hour_go_and_the_ui_shows_it_as_missing(shipped: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, GOOD, END)
    run_in(shipped)
    run_in(shipped)
    other = run_in(shipped, NEXT)
    assert status(shipped, HOUR, NEXT) == {MATERIALIZED}
    prune_hour(HOUR)
    assert prune_runs(shipped) == [other]
    assert status(shipped, HOUR) == {None}
    assert status(shipped, NEXT) == {MATERIALIZED}


def test_a_run_of_several_hours_stays_until_the_last_of_them_is_pruned(shipped: dg.DagsterInstance, sql: Sql) -> None:
    for moment in (START, END):
        insert_items(sql, GOOD, moment)
    several = run_in(shipped, HOUR, NEXT)
    latest = run_in(shipped, "2026-11-02-07:00")  # which is also the last of the assets
    prune_hour(HOUR)
    assert prune_runs(shipped) == [several, latest]
    assert status(shipped, NEXT) == {MATERIALIZED}
    prune_hour(NEXT)
    assert prune_runs(shipped) == [latest]
    assert status(shipped, HOUR, NEXT) == {None}


def test_an_hour_whose_last_run_failed_is_shown_as_failed_afterwards(shipped: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    first = run_in(shipped)
    sql("ALTER TABLE items RENAME TO elsewhere")
    superseded, failed = run_in(shipped), run_in(shipped)
    sql("ALTER TABLE elsewhere RENAME TO items")
    assert status(shipped, HOUR) == {FAILED}
    assert prune_runs(shipped) == [first, failed]
    assert superseded not in {found.run_id for found in shipped.get_runs()}
    assert status(shipped, HOUR) == {FAILED}


def test_the_run_that_scored_an_hour_stays_so_that_its_summary_can_be_made_again(
    shipped: dg.DagsterInstance, sql: Sql
) -> None:
    insert_items(sql, GOOD)
    scored = run_in(shipped)
    nothing_left = run_in(shipped)
    last = run_in(shipped)
    assert prune_runs(shipped) == [scored, last]
    assert nothing_left not in {found.run_id for found in shipped.get_runs()}
    before = sql("SELECT run_id, model_version, scored FROM run_summary")
    assert before[0][0] == scored
    run_in(shipped)
    assert sql("SELECT run_id, model_version, scored FROM run_summary") == before


def test_younger_runs_and_those_that_have_not_ended_stay(shipped: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    superseded = run_in(shipped)
    started = create_run_for_test(shipped, "batch_inference", status=dg.DagsterRunStatus.STARTED)
    time.sleep(0.01)
    between = utc_now()
    time.sleep(0.01)
    younger = [run_in(shipped), run_in(shipped)]
    assert prune_runs(shipped, between - datetime.timedelta(hours=1)) == [superseded, started.run_id, *younger]
    sql("UPDATE items SET prediction = NULL")
    latest = run_in(shipped)
    assert prune_runs(shipped, between) == [started.run_id, *younger, latest]


def test_runs_of_a_backfill_that_is_on_its_way_stay(shipped: dg.DagsterInstance) -> None:
    ids = []
    for status_of_backfill in (BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED):
        ids.append(status_of_backfill.value.lower())
        shipped.add_backfill(
            PartitionBackfill(
                backfill_id=ids[-1],
                status=status_of_backfill,
                from_failure=False,
                tags={},
                backfill_timestamp=time.time(),
            )
        )
    kept, _ = [
        create_run_for_test(
            shipped, "other", status=dg.DagsterRunStatus.SUCCESS, tags={"dagster/backfill": backfill}
        ).run_id
        for backfill in ids
    ]
    assert prune_runs(shipped) == [kept]


def test_the_last_run_of_somebody_elses_asset_stays_for_good(shipped: dg.DagsterInstance) -> None:
    daily = dg.DailyPartitionsDefinition("2026-11-01")

    @dg.asset
    def model() -> None:
        """Has no partitions."""

    @dg.asset(partitions_def=daily)
    def report() -> None:
        """Has partitions of another kind."""

    assert dg.materialize([model], instance=shipped).success
    of_model = dg.materialize([model], instance=shipped).run_id
    first_day = dg.materialize([report], partition_key="2026-11-01", instance=shipped).run_id
    assert dg.materialize([report], partition_key="2026-11-02", instance=shipped).success
    second_day = dg.materialize([report], partition_key="2026-11-02", instance=shipped).run_id
    assert prune_runs(shipped) == [of_model, first_day, second_day]
    assert shipped.get_materialized_partitions(report.key) == {"2026-11-01", "2026-11-02"}


@pytest.mark.parametrize("step", ["delete_logs", "delete_events", "delete_run"])
def test_a_removal_that_is_interrupted_is_finished_by_the_next_one(
    shipped: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    insert_items(sql, GOOD)
    first, last = run_in(shipped), run_in(shipped)
    sql("UPDATE items SET prediction = NULL")
    latest = run_in(shipped)
    owner = {
        "delete_logs": shipped.compute_log_manager,
        "delete_events": shipped.event_log_storage,
    }.get(step, shipped)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            prune_runs(shipped)
    assert {found.run_id for found in shipped.get_runs()} == {first, last, latest}
    assert prune_runs(shipped) == [latest]
    assert shipped.all_logs(first) == shipped.all_logs(last) == []
    assert status(shipped, HOUR) == {MATERIALIZED}


def test_removing_a_run_waits_for_its_turn_with_all_its_events(shipped: dg.DagsterInstance, sql: Sql) -> None:
    waited: list[int] = []

    class Waiting(Throttle):
        def before_write(self, rows: int) -> None:
            waited.append(rows)

    insert_items(sql, GOOD)
    first = run_in(shipped)
    events = len(shipped.all_logs(first))
    old_runs(shipped).remove(first, Waiting(engine_from_environment(), ThrottleSettings(), print))
    assert waited == [events]
    assert events > 10


def test_the_ticks_of_the_sensor_go_by_themselves(shipped: dg.DagsterInstance) -> None:
    kept = shipped.get_tick_retention_settings(InstigatorType.SENSOR)
    assert kept == {
        TickStatus.STARTED: -1,
        TickStatus.SKIPPED: 7,
        TickStatus.SUCCESS: 90,
        TickStatus.FAILURE: 90,
    }


def test_an_instance_that_is_not_named_or_not_there_is_a_sentence(tmp_path: Path) -> None:
    named = {"MYSQL_SERVER": "db", "MYSQL_USER": "batch"}
    with pytest.raises(SettingsError, match="DAGSTER_HOME is not set"), opened_instance(named):
        pass
    with (
        pytest.raises(SettingsError, match="which is no folder: fix it"),
        opened_instance({"DAGSTER_HOME": str(tmp_path / "none")}),
    ):
        pass


def test_an_instance_that_cannot_be_used_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "dagster.yaml")
    for name in ("MYSQL_SERVER", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_DAGSTER_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    environment = {"DAGSTER_HOME": str(tmp_path)}
    with pytest.raises(SettingsError, match=r"The Dagster instance in .* cannot be used"), opened_instance(environment):
        pass
    for name, value in (
        ("MYSQL_SERVER", "127.0.0.1"),
        ("MYSQL_PORT", "1"),
        ("MYSQL_USER", "batch"),
        ("MYSQL_PASSWORD", "secret"),
        ("MYSQL_DAGSTER_DATABASE", "dagster"),
    ):
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(DatabaseUnavailableError, match=r"The tables of the Dagster instance in .* cannot be used"),
        opened_instance(environment),
    ):
        pass
