"""Dagster's storage as dagster.yaml names it: what its events are, and that its connections are kept and looked at."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from batch_assets_tests.instance import ROOT
from batch_assets_tests.servers import Rows, Server

HOURS = [f"2026-11-02-{hour:02}:00" for hour in range(24)]
KEY = dg.AssetKey("table")


@pytest.fixture
def dagster_database(server: Server, server_environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with server.database() as name:
        monkeypatch.setenv("MYSQL_DAGSTER_DATABASE", name)
        yield name


@pytest.fixture
def instance(dagster_database: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@dg.asset(
    name="table",
    partitions_def=dg.HourlyPartitionsDefinition("2026-11-01-00:00", fmt="%Y-%m-%d-%H:%M"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def table_of_hours(context: dg.AssetExecutionContext) -> None:
    """An asset of hours that says something of each."""
    for number, key in enumerate(context.partition_keys):
        context.add_asset_metadata({"rows": number}, partition_key=key)


@dg.asset_check(asset=table_of_hours)
def is_there() -> dg.AssetCheckResult:
    """Looks at nothing."""
    return dg.AssetCheckResult(passed=True, metadata={"looked": 1})


def materialized(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Materialises 24 hours in a run."""
    defs = dg.Definitions([table_of_hours], asset_checks=[is_there], executor=dg.in_process_executor)
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        tags={"dagster/asset_partition_range_start": HOURS[0], "dagster/asset_partition_range_end": HOURS[-1]},
        instance=instance,
    )


def sessions(server: Server, database: str) -> Rows:
    """The ids of the connections to a database."""
    return server.execute("SELECT id FROM information_schema.processlist WHERE db = %s", database)


def remembered(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What an instance remembers of a run over many hours, but for ids and times."""
    run_id = materialized(instance).run_id
    tagged = dg.AssetMaterialization(KEY, partition=HOURS[3], tags={"dagster/data_version": "v1"})
    instance.report_runless_asset_event(tagged)
    [record] = instance.get_asset_records([KEY])
    [last] = instance.fetch_materializations(KEY, limit=1).records
    kept = record.asset_entry.last_materialization_record
    of_hour = instance.fetch_materializations(dg.AssetRecordsFilter(KEY, asset_partitions=[HOURS[7]]), limit=5).records
    checks = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(KEY, "is_there"), limit=50)
    return {
        "events": [entry.dagster_event.event_type_value for entry in instance.all_logs(run_id) if entry.dagster_event],
        "hours": instance.get_materialized_partitions(KEY),
        "of an hour": [found.asset_materialization.metadata["rows"].value for found in of_hour],
        "tags": [sorted(tags) for tags in instance.event_log_storage.get_event_tags_for_asset(KEY)],
        # The event that is in the log, by its id.
        "last": (kept.storage_id == last.storage_id, kept.partition_key, record.asset_entry.last_run_id == run_id),
        "checks": [(check.status, check.run_id == run_id, check.event is not None) for check in checks],
        "run": instance.get_run_by_id(run_id).status,
    }


def test_it_remembers_of_a_run_what_dagsters_own_remembers(
    instance: dg.DagsterInstance, server: Server, server_environment, tmp_path: Path
):
    with server.database() as name:
        own = server.environment(name)
        settings = {
            "hostname": own["MYSQL_SERVER"],
            "port": int(own["MYSQL_PORT"]),
            "username": own["MYSQL_USER"],
            "password": own["MYSQL_PASSWORD"],
            "db_name": name,
        }
        home = tmp_path / "own"
        home.mkdir()
        (home / "dagster.yaml").write_text(json.dumps({"storage": {"mysql": {"mysql_db": settings}}}))
        with dg.DagsterInstance.from_config(str(home)) as theirs:
            expected = remembered(theirs)
    found = remembered(instance)
    assert found == expected
    assert found["hours"] == set(HOURS)
    assert found["of an hour"] == [7]
    assert found["last"] == (True, HOURS[3], False)


def test_a_connection_serves_many_events(instance: dg.DagsterInstance, server: Server, dagster_database: str):
    assert materialized(instance).success
    before = sessions(server, dagster_database)
    assert before
    for key in HOURS:
        instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=key))
    assert sessions(server, dagster_database) == before


def test_a_connection_that_the_server_has_ended_is_replaced(
    instance: dg.DagsterInstance, server: Server, dagster_database: str
):
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[0]))
    ended = sessions(server, dagster_database)
    assert ended
    for (session,) in ended:
        server.execute(f"KILL {session}")
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[1]))
    assert instance.get_materialized_partitions(KEY) == set(HOURS[:2])


def test_an_hour_whose_event_is_committed_after_a_later_one_is_not_missing(
    instance: dg.DagsterInstance,
):
    def materialized_hours() -> set[str]:
        """As the UI has them."""
        hours = table_of_hours.partitions_def
        status = get_and_update_asset_status_cache_value(instance, KEY, hours)
        assert status
        return set(status.deserialize_materialized_partition_subsets(hours).get_partition_keys())

    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[0]))
    assert materialized_hours() == {HOURS[0]}
    slow = sa.create_engine(instance.event_log_storage.mysql_url)
    with slow.begin() as connection:
        events = sa.Table("event_logs", sa.MetaData(), autoload_with=connection)
        row = connection.execute(sa.select(events).where(events.c.partition == HOURS[0])).mappings().one()
        connection.execute(sa.insert(events).values({**row, "id": None, "partition": HOURS[1]}))
        instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[2]))
        assert materialized_hours() == {HOURS[0], HOURS[2]}
    slow.dispose()
    assert materialized_hours() == {HOURS[0], HOURS[1], HOURS[2]}


def test_other_processes_make_the_same_storage(instance: dg.DagsterInstance):
    ref = InstanceRef.from_dict(instance.get_ref().to_dict())
    with dg.DagsterInstance.from_ref(ref) as again:
        assert isinstance(again.event_log_storage._engine.pool, sa.QueuePool)
