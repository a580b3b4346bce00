"""The rights in deploy/grants: with its own each role does its work, and is refused what is not its own."""

import dataclasses
import datetime
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pymysql
import pytest
from sklearn.linear_model import Ridge

from batch_assets.component import pipeline_definitions
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.actuals import Actual, store_actuals
from batch_assets.database.records.hour_lock import HourLock
from batch_assets.database.schema.grants import grant_statements
from batch_assets.database.schema.migrations import VERSION_TABLE
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table, metadata
from batch_assets.definitions import defs
from batch_assets.errors import DatabaseError
from batch_assets.hours import Hour, hour_of_key
from batch_assets.inference.model_files import load_model
from batch_assets.pipeline import ITEM_TABLE, OF_ENVIRONMENT, Declaration
from batch_assets.reporting.overview import HOURS_SHOWN
from batch_assets.reporting.quality import measure_hour
from batch_assets.scoring.canary import try_pipeline
from batch_assets.settings.database import database_settings
from batch_assets_tests.support import engines
from batch_assets_tests.support.accounts import (
    BATCH_ASSETS,
    DAGSTER,
    DAGSTER_COMMAND,
    NAMES,
    ROLES,
    TABLES,
    Installation,
    accounts,
    apply,
    installation,
    private_server_like,
)
from batch_assets_tests.support.api import KEY, served
from batch_assets_tests.support.customers import customers, fitted, write_customer_model
from batch_assets_tests.support.earlier_tables import fill_a_year, make_earlier_tables, rows_of_tables
from batch_assets_tests.support.engines import engine_from_environment
from batch_assets_tests.support.incidents import AlertTick, give_up
from batch_assets_tests.support.onnx_models import write_classifier
from batch_assets_tests.support.pipeline import (
    END,
    GOOD,
    HALF_PAST,
    HOUR,
    LABELS,
    START,
    Counts,
    assert_hour_adds_up,
    insert_items,
    predictions_of,
    run_job,
)
from batch_assets_tests.support.programs import find_program
from batch_assets_tests.support.project import create_customers, declared, run_of, scores
from batch_assets_tests.support.promotions import SURE, promote, roll_back, sha_of, write_challenger
from batch_assets_tests.support.receiver import receiver
from batch_assets_tests.support.servers import PrivateServer, Server, try_to_install

pytestmark = pytest.mark.xdist_group("grants")

# https://dev.mysql.com/doc/mysql-errors/9.7/en/server-error-reference.html: no right to a database, a table, a column,
# or of the kind that belongs to a whole server.
REFUSED = {1044, 1142, 1143, 1227}
SHOP_TABLES = (ITEM_TABLE.name, *(table.name for table in metadata.sorted_tables))
EVERY_TABLE = (*SHOP_TABLES, VERSION_TABLE)


@pytest.fixture(scope="module")
def private(server: Server) -> Iterator[PrivateServer]:
    """A private server of the kind that the tests see."""
    with private_server_like(server) as private:
        yield private


@pytest.fixture(scope="module")
def installed(private: PrivateServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(private.server, tmp_path_factory.mktemp("home")) as installed:
        yield installed


@pytest.fixture
def shop(installed: Installation) -> Installation:
    """An installation without items."""
    for table in SHOP_TABLES:
        installed.sql(f"DELETE FROM {table}")
    return installed


@pytest.fixture
def as_batch(shop: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """An installation whose batch account is the one of this process."""
    for name, value in shop.environment("batch").items():
        monkeypatch.setenv(name, value)
    return shop


def registered(shop: Installation, *texts: str) -> list[int]:
    """Registers items as the web API does, and returns their ids."""
    api, created = shop.account("api"), HALF_PAST
    for text in texts:
        api.execute(
            "INSERT INTO items (`values`, created_datetime, updated_datetime) VALUES (%s, %s, %s)",
            *(text, created, created),
            database=shop.items,
        )
    return [key for (key,) in shop.sql("SELECT id FROM items ORDER BY id")]


# The migrations


def test_the_migrations_make_every_table_and_find_nothing_to_do_the_second_time(shop: Installation) -> None:
    assert {table for (table,) in shop.sql("SHOW TABLES")} == set(EVERY_TABLE)
    assert shop.run("migrations", BATCH_ASSETS, "init-db") == "nothing to do\n"
    assert "Updating run storage" in shop.run("migrations", DAGSTER_COMMAND, "instance", "migrate")


def test_the_migrations_adopt_the_items_of_the_service(private: PrivateServer, tmp_path: Path) -> None:
    with accounts(private.server, tmp_path) as shop:
        shop.sql(
            "CREATE TABLE items (id INTEGER AUTO_INCREMENT PRIMARY KEY, `values` JSON NOT NULL, prediction JSON, "
            "created_datetime TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
            "updated_datetime TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)"
        )
        insert_items(shop.sql, GOOD)
        before = shop.sql("SELECT * FROM items")
        done = shop.run("migrations", BATCH_ASSETS, "init-db")
        assert "added an index on items.created_datetime" in done
        assert "added the virtual column items.prediction_pending" in done
        assert shop.sql("SELECT * FROM items") == before
        apply(private.server, TABLES, shop.items)


def test_the_migrations_bring_tables_of_the_first_version_up_to_date(private: PrivateServer, tmp_path: Path) -> None:
    with accounts(private.server, tmp_path) as shop:
        shop.run("migrations", BATCH_ASSETS, "init-db")
        newest = shop.sql(f"SELECT version_num FROM {VERSION_TABLE}")
        shop.sql("DROP TABLE hour_locks, hour_requests")
        shop.sql("ALTER TABLE failed_items DROP COLUMN values_checksum, DROP INDEX ix_failed_items_hour")
        shop.sql(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
        done = shop.run("migrations", BATCH_ASSETS, "init-db").splitlines()
        assert done == ["created table hour_locks", "created table hour_requests"]
        assert shop.sql(f"SELECT version_num FROM {VERSION_TABLE}") == newest
        assert shop.sql("SELECT values_checksum FROM failed_items") == []


def test_the_migrations_bring_a_year_of_hours_of_the_version_before_pipelines_up_to_date(
    private: PrivateServer, tmp_path: Path
) -> None:
    with accounts(private.server, tmp_path) as shop:
        make_earlier_tables(engine_for(database_settings(private.server.environment(shop.items))))
        fill_a_year(shop.sql)
        before = rows_of_tables(shop.sql)
        shop.run("migrations", BATCH_ASSETS, "init-db")
        assert rows_of_tables(shop.sql) == before
        for table in before:
            assert shop.sql(f"SELECT DISTINCT pipeline FROM {table}") == [("items",)]
        assert shop.run("migrations", BATCH_ASSETS, "init-db") == "nothing to do\n"


# The batch


def tick() -> list[str | None]:
    """The hours that a tick of the sensor requests."""
    repository = defs.get_repository_def()
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        data = repository.get_sensor_def("retry_hours").evaluate_tick(context)
    return [request.partition_key for request in data.run_requests or []]


def test_the_batch_finds_an_hour_scores_it_and_tries_again_what_failed(as_batch: Installation) -> None:
    shop, sql = as_batch, as_batch.sql
    *_, bad = registered(shop, *GOOD, "[1, 2]")
    assert tick() == [HOUR]
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(4, 3, 1, 0)
    assert "wrong_length" in shop.run("batch", BATCH_ASSETS, "status", "--failed")
    assert HOUR in shop.run("batch", BATCH_ASSETS, "status", "--hours", "100000")
    assert "1 failed item is pending again" in shop.run("batch", BATCH_ASSETS, "retry", str(bad))
    # Far from the others: its prediction is written by another statement.
    sql("UPDATE items SET id = 1000000 WHERE id = %s", bad)
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(4, 3, 1, 0)
    shop.account("api").execute(
        "UPDATE items SET `values` = %s, prediction = NULL WHERE id = 1000000", GOOD[0], database=shop.items
    )
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(4, 4, 0, 0)
    assert sql("SELECT items, predicted, failed, pending FROM run_summary WHERE hour = %s", START) == [(4, 4, 0, 0)]


def test_the_batch_tells_of_incidents(as_batch: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = as_batch.sql
    give_up(sql)
    with receiver() as heard, dg.DagsterInstance.get() as instance:
        monkeypatch.setenv("BATCH_ALERT_URLS", heard.address)
        for _ in range(2):
            AlertTick(instance, datetime.datetime.fromisoformat(END))
        sql("DELETE FROM hour_requests")
        AlertTick(instance, datetime.datetime.fromisoformat(END))
    assert heard.titles.count("items: 1 hour failed") == heard.titles.count("items: over: 1 hour failed") == 1


def test_the_batch_promotes_a_challenger_and_takes_it_back(
    as_batch: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = as_batch
    challenger = write_challenger(tmp_path, monkeypatch)
    registered(shop, *GOOD)
    promote()
    run_job().assert_succeeded()
    assert list(predictions_of(shop.sql).values()) == [SURE] * 3
    ((model, account),) = shop.sql("SELECT model, database_account FROM promotions")
    assert (model, account.partition("@")[0]) == (str(challenger), "shop_batch")
    with served(shop.environment("api")) as client:
        assert client.get("/metadata").json()["model_version"] == sha_of(challenger)
        assert str(challenger) in client.get("/").text
    roll_back()
    assert shop.sql("SELECT action FROM promotions ORDER BY number") == [("promote",), ("rollback",)]


def test_the_batch_compares_a_challenger_and_measures_it(
    as_batch: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_classifier(tmp_path, labels=list(LABELS), sample=False)
    monkeypatch.setenv("CHALLENGER_FILEPATH", str(files.model_filepath))
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(files.label_filepath))
    first, *_ = registered(as_batch, *GOOD)
    run_job().assert_succeeded()
    job, hour = pipeline_definitions(OF_ENVIRONMENT).resolve_job_def("challenger"), hour_of_key(HOUR)
    with dg.DagsterInstance.get() as instance:
        for _ in range(2):
            assert job.execute_in_process(partition_key=HOUR, instance=instance).success
    pipeline, now = OF_ENVIRONMENT.load(), datetime.datetime.fromisoformat(END)
    store_actuals(engine_from_environment(), engines.TABLES, [Actual(first, "setosa")], now)
    assert hour
    measure_hour(pipeline, hour, now)
    assert as_batch.sql("SELECT sampled, known FROM challenger_hours") == [(3, 1)]
    assert as_batch.sql("SELECT COUNT(*) FROM challenger_predictions") == [(3,)]


def test_the_batch_publishes_a_whole_hour_and_takes_predictions_away(as_batch: Installation) -> None:
    shop, sql = as_batch, as_batch.sql
    keys = registered(shop, *GOOD)
    run_job(BATCH_RETRY="whole_batch").assert_succeeded()
    # Without taking the prediction away, as a service may do that knows nothing of it.
    sql("UPDATE items SET `values` = '[1]' WHERE id = %s", keys[0])
    run_job(BATCH_RETRY="whole_batch").assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(3, 2, 1, 0)
    assert predictions_of(sql)[keys[0]] is None


@pytest.mark.parametrize(
    "right",
    [
        "UPDATE (prediction) ON items",
        "DELETE ON run_summary",
        "INSERT ON hour_locks",
        "SELECT ON baselines",
        "SELECT ON promotions",
    ],
)
def test_the_canary_names_a_right_that_is_missing(as_batch: Installation, right: str) -> None:
    shop, sql = as_batch, as_batch.sql
    registered(shop, *GOOD)
    shop.run("batch", DAGSTER_COMMAND, "job", "execute", "-m", "batch_assets.definitions", "-j", "canary")
    assert sql("SELECT COUNT(*) FROM items WHERE prediction IS NOT NULL") == [(0,)]
    table = right.rsplit(" ", 1)[1]
    sql(f"REVOKE {right} FROM batch_assets_batch")
    try:
        pipeline = Declaration().load()
        with pytest.raises(DatabaseError, match=f"User 'shop_batch' lacks a right in .*{table}"):
            try_pipeline(engine_for(pipeline.database), pipeline, load_model(pipeline.model, pipeline.items))
    finally:
        sql(f"GRANT {right} TO batch_assets_batch")


# Pruning, and the web API


def test_pruning_deletes_hours_under_their_lock_and_runs_of_dagster(
    as_batch: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = as_batch
    registered(shop, *GOOD, "[1, 2]")
    assert tick() == [HOUR]
    job = run_job()
    job.assert_succeeded()
    for name, value in shop.environment("prune").items():
        monkeypatch.setenv(name, value)
    hour = hour_of_key(HOUR)
    assert isinstance(hour, Hour)
    engine = engine_from_environment()
    with (
        HourLock(engine, engines.TABLES, hour, "pruning", wait=False, on_progress=print).acquire(),
        engine.begin() as connection,
    ):
        for statement in (
            f"DELETE FROM items WHERE created_datetime <= '{HALF_PAST}' ORDER BY id LIMIT 1000",
            "DELETE FROM failed_items WHERE item_id NOT IN (SELECT id FROM items)",
            f"DELETE FROM run_summary WHERE hour = '{START}'",
            f"DELETE FROM hour_requests WHERE hour = '{START}'",
        ):
            connection.exec_driver_sql(statement)
    for table in ("items", "failed_items", "run_summary", "hour_requests", "hour_locks"):
        assert shop.sql(f"SELECT COUNT(*) FROM {table}") == [(0,)], table
    with dg.DagsterInstance.get() as instance:
        assert job.run_id
        instance.delete_run(job.run_id)
        instance.wipe_asset_cached_status([dg.AssetKey("predictions")])
    [(runs,)] = shop.sql(f"SELECT COUNT(*) FROM {shop.dagster}.runs WHERE run_id = %s", job.run_id)
    [(events,)] = shop.sql(f"SELECT COUNT(*) FROM {shop.dagster}.event_logs WHERE run_id = %s", job.run_id)
    assert (runs, events) == (0, 0)


def test_the_web_api_registers_reads_and_corrects(as_batch: Installation) -> None:
    shop, api = as_batch, as_batch.account("api")
    keys = registered(shop, *GOOD)
    run_job().assert_succeeded()
    assert all(predictions_of(shop.sql).values())
    for table in ("items", "failed_items", "run_summary", "hour_requests", "hour_profiles", "hour_quality"):
        api.execute(f"SELECT * FROM {table}", database=shop.items)
    with served(shop.environment("api")) as client:
        page = client.get("/").text
    assert (page.count('class="cell '), 'class="fault"' in page) == (HOURS_SHOWN, False)
    # As one does that corrects what it has just looked at.
    with pymysql.connect(host=api.host, port=api.port, user=api.user, password=api.password, database=shop.items) as (
        connection
    ):
        cursor = connection.cursor()
        cursor.execute("SELECT id FROM items WHERE id = %s FOR UPDATE", [keys[1]])
        cursor.execute("UPDATE items SET `values` = %s, prediction = NULL WHERE id = %s", [GOOD[0], keys[1]])
        connection.commit()
    assert predictions_of(shop.sql)[keys[1]] is None
    assert json.loads(shop.sql("SELECT `values` FROM items WHERE id = %s", keys[1])[0][0]) == json.loads(GOOD[0])


def test_the_account_of_the_web_api_registers_a_file(shop: Installation, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n")
    arguments = ["register", str(tmp_path / "items.csv"), "--created-at", "2026-11-02T05:30"]
    assert "2 items registered" in shop.run("api", BATCH_ASSETS, *arguments)
    assert shop.sql("SELECT COUNT(*) FROM items") == [(2,)]


# What is not theirs

ELSEWHERE = (
    "SELECT * FROM elsewhere.secrets",
    "SELECT user FROM mysql.user",
    "CREATE TABLE more (number INTEGER)",
    "DROP TABLE items",
    "TRUNCATE TABLE items",
    "ALTER TABLE items RENAME TO others",
    "DROP DATABASE {database}",
    "CREATE DATABASE another",
    "CREATE USER another IDENTIFIED BY 'Secret-pa55'",
    "GRANT SELECT ON items TO shop_api",
    "SELECT * FROM items INTO OUTFILE '/tmp/batch-assets-items'",
    "SET GLOBAL max_connections = 1000",
)
NOT_THEIRS = {
    "migrations": (
        "UPDATE items SET prediction = NULL",
        "DELETE FROM items",
        "DELETE FROM run_summary",
        "UPDATE failed_items SET attempts = 0",
    ),
    "batch": (
        "UPDATE items SET `values` = '[1]'",
        "UPDATE items SET prediction = NULL, created_datetime = CURRENT_TIMESTAMP",
        "UPDATE items SET id = id + 1",
        "INSERT INTO items (`values`) VALUES ('[1]')",
        "DELETE FROM items",
        "ALTER TABLE items ADD COLUMN more INTEGER",
        "ALTER TABLE {dagster}.runs ADD COLUMN more INTEGER",
        "DROP TABLE {dagster}.runs",
        "CREATE INDEX more ON failed_items (code)",
        "DELETE FROM incidents",
        "DELETE FROM promotions",
        "UPDATE promotions SET made_by = 'somebody else'",
        "UPDATE batch_assets_alembic_version SET version_num = '0001'",
    ),
    "prune": (
        "UPDATE items SET prediction = NULL",
        "INSERT INTO items (`values`) VALUES ('[1]')",
        "UPDATE run_summary SET items = 0",
        "DELETE FROM promotions",
        "ALTER TABLE items ADD COLUMN more INTEGER",
        "DROP TABLE {dagster}.runs",
    ),
    "api": (
        "UPDATE items SET created_datetime = CURRENT_TIMESTAMP",
        "INSERT INTO items (id, `values`) VALUES (99, '[1]')",
        "INSERT INTO items (`values`, prediction) VALUES ('[1]', '[1]')",
        "DELETE FROM items",
        "ALTER TABLE items ADD COLUMN more INTEGER",
        "UPDATE run_summary SET items = 0",
        "DELETE FROM run_summary",
        "DELETE FROM failed_items",
        "UPDATE failed_items SET attempts = 0",
        "DELETE FROM hour_requests",
        "DELETE FROM hour_profiles",
        "SELECT * FROM hour_locks",
        "SELECT * FROM incidents",
        "INSERT INTO promotions SELECT * FROM promotions",
        "REPLACE INTO hour_locks VALUES ('items', '2026-11-02', 'somebody', '2026-11-02')",
        "SELECT * FROM {dagster}.runs",
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_role_is_refused_what_is_not_its_own(shop: Installation, name: str) -> None:
    administrator, account = shop.administrator, shop.account(name)
    administrator.execute("CREATE DATABASE IF NOT EXISTS elsewhere")
    administrator.execute("CREATE TABLE IF NOT EXISTS elsewhere.secrets (secret INTEGER)")
    insert_items(shop.sql, GOOD)
    before = {table: shop.sql(f"CHECKSUM TABLE {table}") for table in EVERY_TABLE}
    allowed = []
    for statement in (*ELSEWHERE, *NOT_THEIRS[name]):
        # Of a query without parameters the driver leaves every % alone.
        text = statement.replace("{database}", shop.items).replace("{dagster}", shop.dagster)
        try:
            account.execute(text, database=shop.items)
        except pymysql.err.MySQLError as error:
            if error.args[0] in REFUSED:
                continue
            raise
        allowed.append(statement)
    assert allowed == []
    assert {table: shop.sql(f"CHECKSUM TABLE {table}") for table in EVERY_TABLE} == before


def test_nobody_connects_as_a_role(shop: Installation) -> None:
    for name in NAMES:
        for password in ("", "batch_assets"):
            role = dataclasses.replace(shop.administrator, user=f"batch_assets_{name}", password=password)
            with pytest.raises(pymysql.err.OperationalError, match=r"Access denied|is locked"):
                role.execute("SELECT 1")


def test_the_files_are_for_the_servers_own_client_too(
    private: PrivateServer, shop: Installation, tmp_path: Path
) -> None:
    if shutil.which("mariadb") is None:
        try_to_install("mariadb-client-core")
    client = find_program("mariadb", "install it (on Debian: apt-get install mariadb-client-core)")
    options = tmp_path / "administrator.cnf"
    server = private.server
    options.write_text(
        f"[client]\nhost={server.host}\nport={server.port}\nuser={server.user}\npassword={server.password}\n"
    )
    options.chmod(0o600)
    for file, database in ((ROLES, shop.items), (DAGSTER, shop.dagster), (TABLES, shop.items)):
        with file.open() as statements:
            subprocess.run([client, f"--defaults-file={options}", database], stdin=statements, check=True, timeout=120)
    assert shop.run("migrations", BATCH_ASSETS, "init-db") == "nothing to do\n"


# The table of a declared pipeline


@pytest.fixture
def churn(as_batch: Installation, tmp_path: Path, regression: Any) -> Iterator[Declaration]:
    """A pipeline whose table is there, and on which nobody has a right yet."""
    rows = customers(20)
    write_customer_model(tmp_path, regression)
    create_customers(as_batch.sql, rows)
    yield declared(
        tmp_path,
        name="churn",
        table={"name": "customers", "created": "created_at", "features": [*rows.columns], "output": "churn_score"},
        model={"file": "model.onnx", "task": "regression"},
    )
    as_batch.sql("DROP TABLE customers")


@pytest.fixture(scope="session")
def regression() -> Any:
    return fitted(Ridge(), lambda known: known["spent"] * 2 + known["age"])


def prepared(shop: Installation, churn: Declaration) -> None:
    """Grants the rights that are printed for a pipeline, and prepares its table with them."""
    for statement in grant_statements(churn.items):
        shop.sql(statement.rstrip(";"))
    initialize_database(engine_for(database_settings(shop.environment("migrations"))), item_table(churn.items))


def test_the_batch_scores_the_table_of_a_declared_pipeline_with_the_rights_that_are_printed_for_it(
    as_batch: Installation, churn: Declaration, regression: Any
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_of(instance, churn, hour=HOUR).success
        prepared(as_batch, churn)
        assert run_of(instance, churn, hour=HOUR).success
    pipeline = churn.load()
    tried = try_pipeline(engine_for(pipeline.database), pipeline, load_model(pipeline.model, pipeline.items))
    assert (tried.items, tried.scored, tried.compared) == (20, 20, 20)
    np.testing.assert_allclose(scores(as_batch.sql), regression.predict(customers(20)).ravel(), rtol=1e-5)
    with pytest.raises(pymysql.err.OperationalError) as refused:
        as_batch.account("batch").execute("UPDATE customers SET spent = 0", database=as_batch.items)
    assert refused.value.args[0] in REFUSED


def test_the_web_api_registers_and_corrects_rows_of_a_declared_pipeline_with_the_rights_that_are_printed_for_it(
    as_batch: Installation, churn: Declaration
) -> None:
    as_batch.sql("ALTER TABLE customers MODIFY id INTEGER AUTO_INCREMENT")
    prepared(as_batch, churn)
    values = {"age": 42, "plan": "gold", "spent": 12.5, "active": True}
    with served({**as_batch.environment("api"), "API_KEY": KEY}, [churn]) as api:
        answer = api.post("/pipelines/churn/data", json={"values": values}, headers={"Idempotency-Key": "a"})
        assert answer.json() == {"ids": [21]}
        assert api.patch("/pipelines/churn/data/1", json={"values": values}).json()["values"] == values
        assert api.get("/pipelines/churn/hours").json() == []
    rows = as_batch.sql("SELECT age, plan, spent, active FROM customers WHERE id IN (1, 21)")
    assert rows == [(42, "gold", 12.5, 1)] * 2
    with pytest.raises(pymysql.err.OperationalError) as refused:
        as_batch.account("api").execute("DELETE FROM customers", database=as_batch.items)
    assert refused.value.args[0] in REFUSED
