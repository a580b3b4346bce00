"""Dagster's storage as dagster.yaml names it: what its events are, and that its connections are kept and looked at."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.test_utils import create_run_for_test
from dagster_mysql import MySQLEventLogStorage

from batch_assets.errors import SettingsError
from batch_assets_tests.support.accounts import private_server_like
from batch_assets_tests.support.certificates import Authority
from batch_assets_tests.support.instance import ROOT, metadata_of, run_of, run_storage_of
from batch_assets_tests.support.servers import PrivateServer, Rows, Server

HOURS = [f"2026-11-02-{hour:02}:00" for hour in range(24)]
KEY = dg.AssetKey("table")


@pytest.fixture
def dagster_database(
    server: Server, server_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    with server.database() as name:
        monkeypatch.setenv("MYSQL_DAGSTER_DATABASE", name)
        yield name


@pytest.fixture
def mysql_instance(dagster_database: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
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
    return server.execute(f"SELECT id FROM {server.processlist} WHERE db = %s", database)


def remembered(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What an instance remembers of a run over many hours, but for ids and times."""
    run_id = materialized(instance).run_id
    tagged = dg.AssetMaterialization(KEY, partition=HOURS[3], tags={"dagster/data_version": "v1"})
    instance.report_runless_asset_event(tagged)
    [record] = instance.get_asset_records([KEY])
    [last] = instance.fetch_materializations(KEY, limit=1).records
    kept = record.asset_entry.last_materialization_record
    assert kept is not None
    of_hour = instance.fetch_materializations(dg.AssetRecordsFilter(KEY, asset_partitions=[HOURS[7]]), limit=5).records
    checks = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(KEY, "is_there"), limit=50)
    return {
        "events": [entry.dagster_event.event_type_value for entry in instance.all_logs(run_id) if entry.dagster_event],
        "hours": instance.get_materialized_partitions(KEY),
        "of an hour": [metadata_of(found.asset_materialization)["rows"] for found in of_hour],
        "tags": [sorted(tags) for tags in instance.event_log_storage.get_event_tags_for_asset(KEY)],
        # The event that is in the log, by its id.
        "last": (kept.storage_id == last.storage_id, kept.partition_key, record.asset_entry.last_run_id == run_id),
        "checks": [(check.status, check.run_id == run_id, check.event is not None) for check in checks],
        "run": run_of(instance, run_id).status,
    }


def test_it_remembers_of_a_run_what_dagsters_own_remembers(
    mysql_instance: dg.DagsterInstance, server: Server, server_environment: dict[str, str], tmp_path: Path
) -> None:
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
    found = remembered(mysql_instance)
    assert found == expected
    assert found["hours"] == set(HOURS)
    assert found["of an hour"] == [7]
    assert found["last"] == (True, HOURS[3], False)


def test_a_connection_serves_many_events(
    mysql_instance: dg.DagsterInstance, server: Server, dagster_database: str
) -> None:
    assert materialized(mysql_instance).success
    before = sessions(server, dagster_database)
    assert before
    for key in HOURS:
        mysql_instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=key))
    assert sessions(server, dagster_database) == before


def test_a_connection_that_the_server_has_ended_is_replaced(
    mysql_instance: dg.DagsterInstance, server: Server, dagster_database: str
) -> None:
    mysql_instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[0]))
    ended = sessions(server, dagster_database)
    assert ended
    for (session,) in ended:
        server.execute(f"KILL {session}")
    mysql_instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[1]))
    assert mysql_instance.get_materialized_partitions(KEY) == set(HOURS[:2])


def test_an_hour_whose_event_is_committed_after_a_later_one_is_not_missing(
    mysql_instance: dg.DagsterInstance,
) -> None:
    def materialized_hours() -> set[str]:
        """As the UI has them."""
        hours = table_of_hours.partitions_def
        assert hours
        status = get_and_update_asset_status_cache_value(mysql_instance, KEY, hours)
        assert status
        return set(status.deserialize_materialized_partition_subsets(hours).get_partition_keys())

    mysql_instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[0]))
    assert materialized_hours() == {HOURS[0]}
    storage = mysql_instance.event_log_storage
    assert isinstance(storage, MySQLEventLogStorage)
    slow = sa.create_engine(storage.mysql_url)
    with slow.begin() as connection:
        events = sa.Table("event_logs", sa.MetaData(), autoload_with=connection)
        row = connection.execute(sa.select(events).where(events.c.partition == HOURS[0])).mappings().one()
        connection.execute(sa.insert(events).values({**row, "id": None, "partition": HOURS[1]}))
        mysql_instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[2]))
        assert materialized_hours() == {HOURS[0], HOURS[2]}
    slow.dispose()
    assert materialized_hours() == {HOURS[0], HOURS[1], HOURS[2]}


def test_a_run_is_shown_as_failed_to_those_who_look_once_when_its_status_is_there(
    mysql_instance: dg.DagsterInstance,
) -> None:
    def failed(seconds_ago: float) -> str:
        run_id: str = create_run_for_test(mysql_instance, "hourly").run_id
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, "hourly")
        moment = time.time() - seconds_ago
        entry = dg.EventLogEntry(  # type: ignore[no-untyped-call]  # Dagster's
            None, "debug", "", run_id, moment, job_name="hourly", dagster_event=event
        )
        mysql_instance.event_log_storage.store_event(entry)
        return run_id

    def shown() -> list[str]:
        found = mysql_instance.event_log_storage.get_logs_for_all_runs_by_log_id(
            after_cursor=0, dagster_event_type={dg.DagsterEventType.RUN_FAILURE}, limit=10
        )
        assert list(found) == sorted(found)
        return [event.run_id for event in found.values()]

    first, ahead = failed(60), failed(-60)
    assert shown() == [first, ahead]
    failed(0)
    failed(30)
    assert shown() == [first, ahead]


def test_other_processes_make_the_same_storage(mysql_instance: dg.DagsterInstance) -> None:
    ref = InstanceRef.from_dict(mysql_instance.get_ref().to_dict())  # type: ignore[no-untyped-call]  # Dagster's
    with dg.DagsterInstance.from_ref(ref) as again:
        assert isinstance(again.event_log_storage, MySQLEventLogStorage)
        assert isinstance(again.event_log_storage._engine.pool, sa.QueuePool)


Certified = tuple[PrivateServer, Authority, Authority]


@pytest.fixture(scope="module")
def certified(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certified]:
    """A server with a certificate for its address, the authority that signed it, and another one."""
    folder = tmp_path_factory.mktemp("certificates")
    # From Python 3.13 on, Dagster's driver asks for what the strict check demands.
    authority, other = (Authority(folder, name, identified=True) for name in ("ours", "theirs"))
    with private_server_like(server) as private:
        private.restart(*authority.served_by(private))
        yield private, authority, other


def connected(private: PrivateServer, home: Path, **environment: str) -> str:
    """The cipher of the session of an instance on a server."""
    shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
    # One for all, since Dagster's tables take seconds to make; it goes with the server.
    private.server.execute("CREATE DATABASE IF NOT EXISTS of_instance")
    with pytest.MonkeyPatch.context() as patch:
        settings = {**private.server.environment("of_instance"), "MYSQL_DAGSTER_DATABASE": "of_instance", **environment}
        for variable, value in settings.items():
            patch.setenv(variable, value)
        with dg.DagsterInstance.from_config(str(home)) as instance, run_storage_of(instance).connect() as connection:
            return str(connection.execute(sa.text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1])


def test_its_connections_check_the_server_as_the_others_do(certified: Certified, tmp_path: Path) -> None:
    private, authority, other = certified
    ours = {"MYSQL_SSL_CA": str(authority.file)}
    named = {"MYSQL_SERVER": "localhost", **ours}
    assert connected(private, tmp_path, **ours).startswith("TLS_")
    assert connected(private, tmp_path, **ours, MYSQL_SSL_MODE="VERIFY_IDENTITY").startswith("TLS_")
    assert connected(private, tmp_path, **named).startswith("TLS_")
    assert connected(private, tmp_path, MYSQL_SSL_MODE="DISABLED") == ""
    for environment in (
        {"MYSQL_SSL_CA": str(other.file)},
        {"MYSQL_SSL_MODE": "VERIFY_IDENTITY"},
        {**named, "MYSQL_SSL_MODE": "VERIFY_IDENTITY"},
    ):
        with pytest.raises(sa.exc.DBAPIError, match=r"(?i)certificate"):
            connected(private, tmp_path, **environment)


def test_its_connections_give_the_certificate_that_an_account_asks_for(certified: Certified, tmp_path: Path) -> None:
    private, authority, _ = certified
    certificate, key = authority.issue("client", "client.example.com")
    user = {"MYSQL_USER": "certified", "MYSQL_PASSWORD": "Secret-pa55"}
    private.server.execute("CREATE USER certified IDENTIFIED BY 'Secret-pa55' REQUIRE X509")
    private.server.execute("GRANT ALL ON *.* TO certified")
    pair = {"MYSQL_SSL_MODE": "REQUIRED", "MYSQL_SSL_CERT": str(certificate), "MYSQL_SSL_KEY": str(key)}
    assert connected(private, tmp_path, **user, **pair).startswith("TLS_")
    with pytest.raises(sa.exc.DBAPIError, match=r"Access denied"):
        connected(private, tmp_path, **user)


def test_a_server_that_does_not_encrypt_is_refused_where_its_certificate_is_to_be_checked(
    certified: Certified, server: Server, tmp_path: Path
) -> None:
    _, authority, _ = certified
    with private_server_like(server) as private:
        private.restart("--disable-ssl" if server.is_mariadb else "--tls-version=")
        assert connected(private, tmp_path) == ""
        with pytest.raises(sa.exc.DBAPIError, match=r"SSL is required but the server doesn't support it"):
            connected(private, tmp_path, MYSQL_SSL_CA=str(authority.file))


def test_its_account_is_that_of_the_items_also_where_a_file_holds_the_password(
    dagster_database: str, server_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{server_environment['MYSQL_PASSWORD']}\n")
    monkeypatch.delenv("MYSQL_PASSWORD")
    monkeypatch.setenv("MYSQL_PASSWORD_FILE", str(secret))
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=HOURS[0]))
        assert instance.get_materialized_partitions(KEY) == {HOURS[0]}


def test_without_a_server_it_says_what_to_set(
    dagster_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MYSQL_SERVER")
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "dagster.yaml")
    with pytest.raises(SettingsError, match=f"in the MySQL database '{dagster_database}', but MYSQL_SERVER is not set"):
        dg.DagsterInstance.from_config(str(tmp_path)).run_storage  # noqa: B018 - which is made when it is asked for
