"""No password in what is printed, logged, stored or shown: runs are made to fail, and all that they wrote searched.

What the messages themselves must look like, other tests say.
"""

import contextlib
import os
import sqlite3
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from batch_assets.database.schema.setup import initialize_database
from batch_assets.errors import SettingsError
from batch_assets.io_manager import MySQLIOManager
from batch_assets_tests.support.accounts import (
    BATCH_ASSETS,
    DAGSTER_COMMAND,
    PASSWORD,
    installation,
    private_server_like,
)
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.instance import ROOT, running_instance
from batch_assets_tests.support.pipeline import GOOD, insert_items, run_command
from batch_assets_tests.support.servers import Server, free_port

# Letters and digits, which no encoding changes.
WRONG = "Linguine5Pappardelle"
RUNS = """{ runsOrError { ... on Runs { results { runId status runConfigYaml tags { key value } } } } }"""
SHOWN = """query Shown($repository: RepositorySelector!) {
  instance { info daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors { message stack } } } }
  workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value } } } }
  allTopLevelResourceDetailsOrError(repositorySelector: $repository) { ... on ResourceDetailsList { results {
    name configuredValues { key value type } configFields { name defaultValueAsJson }
  } } }
}"""
REPOSITORY = {"repositoryLocationName": "batch_assets.definitions", "repositoryName": "__repository__"}


@pytest.fixture
def shop(
    server: Server, server_environment: dict[str, str], sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The folder of a Dagster instance, items in an hour, and an account with a password that can be searched for."""
    initialize_database(engine_from_environment(), ITEMS)
    insert_items(sql, GOOD)
    user = f"s_{server_environment['MYSQL_DATABASE'][-12:]}"
    server.execute(f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    try:
        server.execute(f"GRANT ALL ON {server_environment['MYSQL_DATABASE']}.* TO {user}")
        account = {"MYSQL_USER": user, "MYSQL_PASSWORD": PASSWORD, "DAGSTER_HOME": str(home)}
        for name, value in {**account, "BATCH_TRANSIENT_RETRIES": "1"}.items():
            monkeypatch.setenv(name, value)
        yield home
    finally:
        server.execute(f"DROP USER {user}")


def readable(value: object) -> str:
    """A value of a table as text: Dagster compresses its snapshots."""
    if isinstance(value, bytes):
        with contextlib.suppress(zlib.error):
            value = zlib.decompress(value)
        return value.decode("utf-8", "replace")
    return str(value)


def written(folder: Path) -> str:
    """All that stands in the files of a folder, and in the tables of those that are databases."""
    texts = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        texts.append(content.decode("utf-8", "replace"))
        if content.startswith(b"SQLite format 3"):
            with contextlib.closing(sqlite3.connect(path)) as connection:
                tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                rows = [row for (table,) in tables for row in connection.execute(f'SELECT * FROM "{table}"')]
            texts += [readable(value) for row in rows for value in row]
    return "\n".join(texts)


def assert_nowhere(text: str, *passwords: str) -> None:
    for password in passwords:
        place = text.find(password)
        assert place < 0, f"...{text[max(place - 300, 0) : place + 100]}..."


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({}, "Finished execution of run"),
        ({"MYSQL_PASSWORD": WRONG}, "fix MYSQL_USER or MYSQL_PASSWORD"),
        ({"MYSQL_PORT": "{closed}"}, "No MySQL server answers"),
        ({"MYSQL_DATABASE": "nowhere_at_all"}, "nowhere_at_all"),
        ({"MYSQL_SSL_CA": "{text}"}, "holds no certificate in PEM"),
        ({"MYSQL_SSL_MODE": "REQUIRED", "MYSQL_SSL_CERT": "{text}"}, "not a certificate and its key in PEM"),
        # What the account may not ask.
        ({"BATCH_REPLICAS": "{server}"}, "how far it is behind"),
        ({"BATCH_REPLICAS": "127.0.0.1:{closed}", "BATCH_MAX_PAUSE_SECONDS": "0"}, "does not answer"),
    ],
    ids=["success", "password", "server", "database", "authority", "certificate", "replica", "replica away"],
)
def test_a_run_that_ends_so_writes_no_password(
    fault: dict[str, str], said: str, shop: Path, server: Server, tmp_path: Path
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("This is no certificate.\n")
    known = {"closed": free_port(), "text": text, "server": f"{server.host}:{server.port}"}
    environment = {name: value.format(**known) for name, value in fault.items()}
    job = run_command(**environment)
    assert (job.status == 0) == (not fault)
    everything = job.output + written(shop)
    # It is looked for where the fault itself and what Dagster compresses are found.
    assert said in everything
    assert said in written(shop)
    assert "batch_assets/retry" in written(shop) or '"predictions"' in written(shop)
    assert_nowhere(everything, PASSWORD, WRONG)
    for arguments in (["status"], ["init-db"], ["retry", "4711"]):
        command = subprocess.run(
            [*BATCH_ASSETS, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert_nowhere((command.stdout + command.stderr).decode(), PASSWORD, WRONG)


CRASH = """
import os

import dagster as dg
import pandas as pd

from batch_assets.database.connection.engine import engine_from_url
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets.settings.database import database_settings
from batch_assets.io_manager import MySQLIOManager

SCHEMA = dg.TableSchema([dg.TableColumn("number", "BIGINT")])


@dg.asset(metadata={"dagster/column_schema": SCHEMA})
def numbers() -> pd.DataFrame:
    return pd.DataFrame({"number": [1, 2]})


@dg.asset
def crash(
    context: dg.AssetExecutionContext, numbers: pd.DataFrame, io_manager: dg.ResourceParam[MySQLIOManager]
) -> None:
    engine, settings = engine_from_environment(), database_settings(os.environ)
    everything = f"{engine} {engine.url} {settings} {settings!r} {io_manager!r} {engine_from_url(io_manager.url)}"
    print(everything, flush=True)
    context.log.info(everything)
    raise RuntimeError(f"crashed with {len(numbers)} numbers: {everything}")


defs = dg.Definitions(
    [numbers, crash],
    resources={"io_manager": MySQLIOManager(url=dg.EnvVar("SHOP_URL"))},
    executor=dg.in_process_executor,
)
"""


def test_a_step_that_crashes_with_all_it_knows_writes_no_password(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text(CRASH)
    settings = {name.removeprefix("MYSQL_").lower(): value for name, value in os.environ.items()}
    url = "mysql://{user}:{password}@{server}:{port}/{database}".format(**settings)
    done = subprocess.run(
        [*DAGSTER_COMMAND, "asset", "materialize", "-f", str(tmp_path / "crash.py"), "--select", "*"],
        cwd=shop,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SHOP_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "crashed with 2 numbers" in done.stdout
    assert "crashed with 2 numbers" in written(shop)
    assert "SHOP_URL" in written(shop)
    assert_nowhere(done.stdout + written(shop), PASSWORD)


def test_a_password_in_an_url_is_refused_where_dagster_would_show_it() -> None:
    def shown(url: str) -> str:
        defs = dg.Definitions(resources={"io_manager": MySQLIOManager(url=url)})
        return dg.serialize_value(RepositorySnap.from_def(defs.get_repository_def()))

    for url in (f"mysql://me:{PASSWORD}@db/shop", f"mysql//me:{PASSWORD}@db", f"mysql://me:{PASSWORD}/1@db:3306/shop"):
        with pytest.raises(SettingsError, match=r'give url=dg.EnvVar\("SHOP_URL"\)') as caught:
            shown(url)
        assert_nowhere(str(caught.value), PASSWORD)
    for url in ("mysql://me@db:3306/shop", "mysql://db:3306/shop", "sqlite:////tmp/a:b/batch.sqlite"):
        assert url in shown(url)
    assert "SHOP_URL" in shown(dg.EnvVar("SHOP_URL"))


@pytest.mark.slow
@pytest.mark.daemon
@pytest.mark.timeout(1200)
def test_webserver_and_daemon_do_their_work_with_the_rights_of_the_batch_and_show_no_password(
    server: Server, tmp_path: Path
) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    with private_server_like(server) as private, installation(private.server, home) as shop:
        insert_items(shop.sql, [*GOOD, "[1, 2]"])
        environment = shop.environment("batch") | {"BATCH_MAX_FAILED_ITEMS": "0"}
        with running_instance(home, ROOT / "dagster.yaml", environment) as instance:
            # The sensor requests the hour, and the run fails for its failed item.
            answer = instance.wait(RUNS, lambda found: "FAILURE" in str(found), 120)
            shown = str(instance.query(SHOWN, repository=REPOSITORY))
            arguments = [
                line
                for process in psutil.process_iter(["cmdline"])
                for line in process.info["cmdline"] or []
                if process.pid != os.getpid()
            ]
        tables = [table for (table,) in shop.sql(f"SHOW TABLES FROM {shop.dagster}")]
        stored = "\n".join(
            readable(value)
            for table in tables
            for row in shop.sql(f"SELECT * FROM {shop.dagster}.{table}")
            for value in row
        )
        assert shop.sql("SELECT COUNT(prediction) FROM items") == [(3,)]
        assert shop.sql("SELECT code FROM failed_items") == [("wrong_length",)]
    assert "LocalArtifactStorage" in shown
    assert "mysql_io_manager" in shown
    assert "BATCH_MAX_FAILED_ITEMS" in stored
    assert '"predictions"' in stored
    for text in (str(answer), shown, stored, written(home), "\n".join(arguments)):
        assert_nowhere(text, PASSWORD)
