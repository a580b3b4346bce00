"""ItemFilter of Dagster's runs go and what the UI says of an hour afterwards, on the storages of both instances."""

import datetime
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._core.test_utils import create_run_for_test

from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.records.pruning import Pruning
from batch_assets.definitions import defs
from batch_assets.errors import DatabaseUnavailableError, SettingsError
from batch_assets.hours import Hour, utc_now
from batch_assets.orchestration.assets.predictions import predictions
from batch_assets.orchestration.assets.raw_items import raw_items
from batch_assets.orchestration.assets.run_summary import run_summary
from batch_assets.orchestration.old_runs import OldRuns, opened_instance
from batch_assets.orchestration.partitions import hourly_partitions
from batch_assets.settings.throttle import ThrottleSettings
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.pipeline import END, GOOD, HOUR, START, correct, insert_items
from batch_assets_tests.support.servers import Server

pytestmark = pytest.mark.usefixtures("tables")

NEXT = "2026-11-02-06:00"
HOURLY = (raw_items.key, predictions.key, run_summary.key)
MATERIALIZED, FAILED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED


@pytest.fixture
def instance(
    tables: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The embedded default, or on a server the instance of dagster.yaml."""
    home = tmp_path / "dagster"
    if "MYSQL_SERVER" not in tables:
        shutil.copy(ROOT / "batch_assets" / "embedded_dagster.yaml", home / "dagster.yaml")
        with opened_instance(os.environ) as instance:
            yield instance
        return
    shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
    server: Server = request.getfixturevalue("server")
    with server.database() as name:
        monkeypatch.setenv("MYSQL_DAGSTER_DATABASE", name)
        with opened_instance(os.environ) as instance:
            yield instance


def run(instance: dg.DagsterInstance, first: str = HOUR, last: str | None = None, **config: Any) -> str:
    """The job for an hour, or for a range of them; returns the run, whatever became of it."""
    range_tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
    return (
        defs.resolve_job_def("batch_inference")
        .execute_in_process(
            tags=range_tags if last else {"dagster/partition": first},
            run_config=config,
            instance=instance,
            raise_on_error=False,
        )
        .run_id
    )


def old_runs(instance: dg.DagsterInstance, before: datetime.datetime | None = None) -> OldRuns:
    # A run that was made without events has the time of the server, whose zone is another.
    return OldRuns(instance, engine_from_environment(), ITEMS, before or utc_now() + datetime.timedelta(days=1))


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
    done = Pruning(engine, ITEMS, throttle, print, unscored_too=False).remove(Hour(start))
    assert done.left is None


def status(instance: dg.DagsterInstance, *keys: str) -> set[AssetPartitionStatus | None]:
    """What the UI shows of the three assets of some hours."""
    found = [instance.get_status_by_partition(asset, keys, hourly_partitions) for asset in HOURLY]
    return {state for of_asset in found for state in (of_asset or {}).values()} or {None}


def test_of_an_hour_that_is_there_the_last_run_stays_and_the_ui_shows_it_as_before(
    instance: dg.DagsterInstance, sql: Sql
):
    insert_items(sql, GOOD)
    first = run(instance)
    correct(sql, 1)
    sql("UPDATE items SET prediction = NULL WHERE id = 1")
    last = run(instance)
    logs = Path(os.environ["DAGSTER_HOME"]) / "storage"
    assert (logs / first).is_dir()
    assert status(instance, HOUR) == {MATERIALIZED}
    assert prune_runs(instance) == [last]
    assert status(instance, HOUR) == {MATERIALIZED}
    assert instance.all_logs(first) == []
    assert not (logs / first).exists()
    assert (logs / last).is_dir()
    # Also from nothing but the events that are left.
    instance.wipe_asset_cached_status(list(HOURLY))
    assert status(instance, HOUR) == {MATERIALIZED}
    assert prune_runs(instance) == [last]


def test_the_runs_of_a_pruned_hour_go_and_the_ui_shows_it_as_missing(instance: dg.DagsterInstance, sql: Sql):
    insert_items(sql, GOOD)
    insert_items(sql, GOOD, END)
    run(instance)
    run(instance)
    other = run(instance, NEXT)
    assert status(instance, HOUR, NEXT) == {MATERIALIZED}
    prune_hour(HOUR)
    assert prune_runs(instance) == [other]
    assert status(instance, HOUR) == {None}
    assert status(instance, NEXT) == {MATERIALIZED}


def test_a_run_of_several_hours_stays_until_the_last_of_them_is_pruned(instance: dg.DagsterInstance, sql: Sql):
    for moment in (START, END):
        insert_items(sql, GOOD, moment)
    several = run(instance, HOUR, NEXT)
    latest = run(instance, "2026-11-02-07:00")  # which is also the last of the assets
    prune_hour(HOUR)
    assert prune_runs(instance) == [several, latest]
    assert status(instance, NEXT) == {MATERIALIZED}
    prune_hour(NEXT)
    assert prune_runs(instance) == [latest]
    assert status(instance, HOUR, NEXT) == {None}


def test_an_hour_whose_last_run_failed_is_shown_as_failed_afterwards(instance: dg.DagsterInstance, sql: Sql):
    insert_items(sql, GOOD)
    first = run(instance)
    sql("ALTER TABLE items RENAME TO elsewhere")
    superseded, failed = run(instance), run(instance)
    sql("ALTER TABLE elsewhere RENAME TO items")
    assert status(instance, HOUR) == {FAILED}
    assert prune_runs(instance) == [first, failed]
    assert superseded not in {found.run_id for found in instance.get_runs()}
    assert status(instance, HOUR) == {FAILED}


def test_the_run_that_scored_an_hour_stays_so_that_its_summary_can_be_made_again(
    instance: dg.DagsterInstance, sql: Sql
):
    insert_items(sql, GOOD)
    scored = run(instance)
    nothing_left = run(instance)
    last = run(instance)
    assert prune_runs(instance) == [scored, last]
    assert nothing_left not in {found.run_id for found in instance.get_runs()}
    before = sql("SELECT run_id, model_version, scored FROM run_summary")
    assert before[0][0] == scored
    run(instance)
    assert sql("SELECT run_id, model_version, scored FROM run_summary") == before


def test_younger_runs_and_those_that_have_not_ended_stay(instance: dg.DagsterInstance, sql: Sql):
    insert_items(sql, GOOD)
    superseded = run(instance)
    started = create_run_for_test(instance, "batch_inference", status=dg.DagsterRunStatus.STARTED)
    time.sleep(0.01)
    between = utc_now()
    time.sleep(0.01)
    younger = [run(instance), run(instance)]
    assert prune_runs(instance, between - datetime.timedelta(hours=1)) == [superseded, started.run_id, *younger]
    sql("UPDATE items SET prediction = NULL")
    latest = run(instance)
    assert prune_runs(instance, between) == [started.run_id, *younger, latest]


def test_runs_of_a_backfill_that_is_on_its_way_stay(instance: dg.DagsterInstance):
    ids = []
    for status_of_backfill in (BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED):
        ids.append(status_of_backfill.value.lower())
        instance.add_backfill(
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
            instance, "other", status=dg.DagsterRunStatus.SUCCESS, tags={"dagster/backfill": backfill}
        ).run_id
        for backfill in ids
    ]
    assert prune_runs(instance) == [kept]


def test_the_last_run_of_somebody_elses_asset_stays_for_good(instance: dg.DagsterInstance):
    daily = dg.DailyPartitionsDefinition("2026-11-01")

    @dg.asset
    def model() -> None:
        """Has no partitions."""

    @dg.asset(partitions_def=daily)
    def report() -> None:
        """Has partitions of another kind."""

    assert dg.materialize([model], instance=instance).success
    of_model = dg.materialize([model], instance=instance).run_id
    first_day = dg.materialize([report], partition_key="2026-11-01", instance=instance).run_id
    assert dg.materialize([report], partition_key="2026-11-02", instance=instance).success
    second_day = dg.materialize([report], partition_key="2026-11-02", instance=instance).run_id
    assert prune_runs(instance) == [of_model, first_day, second_day]
    assert instance.get_materialized_partitions(report.key) == {"2026-11-01", "2026-11-02"}


@pytest.mark.parametrize("step", ["delete_logs", "delete_events", "delete_run"])
def test_a_removal_that_is_interrupted_is_finished_by_the_next_one(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch, step: str
):
    insert_items(sql, GOOD)
    first, last = run(instance), run(instance)
    sql("UPDATE items SET prediction = NULL")
    latest = run(instance)
    owner = {"delete_logs": instance.compute_log_manager, "delete_events": instance.event_log_storage}.get(
        step, instance
    )

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            prune_runs(instance)
    assert {found.run_id for found in instance.get_runs()} == {first, last, latest}
    assert prune_runs(instance) == [latest]
    assert instance.all_logs(first) == instance.all_logs(last) == []
    assert status(instance, HOUR) == {MATERIALIZED}


def test_removing_a_run_waits_for_its_turn_with_all_its_events(instance: dg.DagsterInstance, sql: Sql):
    waited: list[int] = []

    class Waiting(Throttle):
        def before_write(self, rows: int) -> None:
            waited.append(rows)

    insert_items(sql, GOOD)
    first = run(instance)
    events = len(instance.all_logs(first))
    old_runs(instance).remove(first, Waiting(engine_from_environment(), ThrottleSettings(), print))
    assert waited == [events]
    assert events > 10


def test_the_ticks_of_the_sensor_go_by_themselves(instance: dg.DagsterInstance):
    kept = instance.get_tick_retention_settings(InstigatorType.SENSOR)
    assert kept == {
        TickStatus.STARTED: -1,
        TickStatus.SKIPPED: 7,
        TickStatus.SUCCESS: 90,
        TickStatus.FAILURE: 90,
    }


def test_an_instance_that_is_not_named_or_not_there_is_a_sentence(tmp_path: Path):
    named = {"MYSQL_SERVER": "db", "MYSQL_USER": "batch"}
    with pytest.raises(SettingsError, match="DAGSTER_HOME is not set"), opened_instance(named):
        pass
    with (
        pytest.raises(SettingsError, match="which is no folder: fix it"),
        opened_instance({"DAGSTER_HOME": str(tmp_path / "none")}),
    ):
        pass


def test_an_instance_that_cannot_be_used_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
