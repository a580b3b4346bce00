"""What all tests share: a clean environment, real servers, and a way to look at tables without the package."""

import contextlib
import functools
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from batch_assets_tests.support.database import DatabaseOfTest, Sql
from batch_assets_tests.support.instance import INSTANCE_OF_TESTS, ROOT
from batch_assets_tests.support.processes import MARK, kill_marked, new_mark, watch_run
from batch_assets_tests.support.servers import Server, server_for_tests
from batch_assets_tests.support.shared_server import answering_workers, server_of_run

if TYPE_CHECKING:
    import dagster as dg
    import numpy as np
    import sqlalchemy as sa
    from numpy.typing import NDArray

    from batch_assets.settings.database import MySQLSettings, SQLiteSettings
    from batch_assets_tests.support.registry import Registry

# Which server to use is the developer's to say; all else of what is set on a machine would only change results.
# Done on import: before any test module, and with it Dagster or the package, can have read it.
SERVER_SETTINGS = {name: value for name, value in os.environ.items() if name.startswith("MYSQL_")}
for name in list(os.environ):
    if name.startswith(("MYSQL_", "BATCH_", "CHALLENGER_", "DAGSTER_", "API_", "MLFLOW_")) or name in {
        "MODEL_FILEPATH",
        "LABEL_FILEPATH",
        "SAMPLE_DATA_PATH",
        # Doubles the time that every subprocess needs to start.
        "PYTHONDONTWRITEBYTECODE",
    }:
        del os.environ[name]
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
# As often as in production, without the pauses in between.
os.environ["BATCH_TRANSIENT_RETRY_SECONDS"] = "0.05"
os.environ["SECONDS_BETWEEN_LOOKS_FOR_BACKFILLS"] = "1"
# gRPC's handlers run in a forked process before it becomes another program. Once a server ended so before it had begun.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A shell that runs the tests in the background has them ignore SIGINT, and with them all that they start and end so.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere, and no time limit for one: two suites side by side make any machine slow.
hypothesis.settings.load_profile("ci")

pytest_plugins = ["batch_assets_tests.support.skipping"]

MOST_WORKERS = 8
# Tests that use one of the fixtures, or have the marker's name as a parameter, have the marker.
MARKED_BY_FIXTURES = {
    "server": {"server", "server_environment", "odd_server", "secured"},
    "daemon": {"running"},
    # To import MLflow takes three seconds.
    "slow": {"registry"},
}
# Their tests have Dagster store assets or run jobs in the test's own process.
DAGSTER_ROOMS = {"io_manager", "orchestration"}
_MARK = pytest.StashKey[str]()

# What the whole run has, in the process that has started it: ended in the reverse order when the run ends.
_run = contextlib.ExitStack()
_servers_used: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Runs the suite side by side, and what somebody has picked out in this process, which is there at once."""
    # Without pytest's cache there is no --last-failed.
    last_failed = config.getoption("lf", default=False)
    picked = config.option.keyword or last_failed or any(".py" in argument for argument in config.args)
    # One more than there are cores: many a test waits for a process of its own.
    return 0 if picked else min((os.cpu_count() or 1) + 1, MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """Gives the run a mark, by which all of its processes are found; the workers are given that of the whole run."""
    shared = _shared(config)
    config.stash[_MARK] = shared["mark"] if shared else new_mark()
    if not shared:
        _run.callback(watch_run(config.stash[_MARK]).communicate, timeout=60)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist what it shares with the others."""
    node.workerinput |= {"mark": node.config.stash[_MARK], "server": _server_for_workers()}


def pytest_unconfigure() -> None:
    """Ends the server, and what is left of the run's processes."""
    _run.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by room and by fixtures, and puts first what takes longest: no worker begins it last."""
    for item in items:
        assert isinstance(item, pytest.Function)
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        parameters = {value for value in values if isinstance(value, str)}
        for marker, fixtures in MARKED_BY_FIXTURES.items():
            if fixtures & set(item.fixturenames) or marker in parameters:
                item.add_marker(marker)
        if item.path.parent.name in DAGSTER_ROOMS:
            item.add_marker("dagster")
        if item.get_closest_marker("above_sql") and _is_on_both_databases(item) and "server" in parameters:
            item.add_marker("repeated")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _is_on_both_databases(item: pytest.Function) -> bool:
    """Whether the fixture divides the test into one on SQLite and one on a server, and not the test itself."""
    named = any(mark.args[0] == "database_environment" for mark in item.iter_markers("parametrize"))
    return "database_environment" in item.fixturenames and not named


def _shared(config: pytest.Config) -> dict[str, Any] | None:
    """What a worker of pytest-xdist has been told, None in the process that is no worker."""
    return getattr(config, "workerinput", None)


@functools.cache
def _started_server() -> Server:
    server = _run.enter_context(server_for_tests(SERVER_SETTINGS))
    _servers_used.append(server.version)
    return server


@functools.cache
def _server_for_workers() -> tuple[str, bytes]:
    return _run.enter_context(answering_workers(_started_server))


@pytest.fixture(scope="session")
def server(_server_of_run: Server) -> Server:
    """A real server for the whole run and all of its workers, started when the first test asks for it."""
    return _server_of_run


@pytest.fixture(scope="session")
def _server_of_run(request: pytest.FixtureRequest) -> Server:
    """The same for fixtures, also where the tests of a module have a server of their own."""
    shared = _shared(request.config)
    return server_of_run(shared["server"]) if shared else _started_server()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which server the tests have seen: a result without it proves little."""
    terminalreporter.write_line(f"database server: {', '.join(_servers_used) or 'none was needed'}")


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Keeps what Alembic reads of a folder of migrations: Dagster has it read for each instance and each run."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    read = ScriptDirectory.from_config
    kept: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in kept:
            kept[location] = read(config)
        return kept[location]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


@pytest.fixture(scope="session")
def _engines_of_instances_are_kept() -> Iterator[None]:
    """Keeps the engines of Dagster's SQLite files, with the statements that they have compiled, and their connections.

    Dagster makes an engine and opens the file for each event, which took a fifth of a test's time. Between two
    statements a connection holds no lock, so that other processes see the files as before. Writing is not
    synchronised: no test is about what is left of these files when a machine loses its power.
    """
    import sqlalchemy as sa
    from dagster._core.storage.event_log.sqlite import consolidated_sqlite_event_log, sqlite_event_log
    from dagster._core.storage.runs.sqlite import sqlite_run_storage
    from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

    @functools.lru_cache(maxsize=100)
    def kept(url: str, options: str) -> sa.Engine:
        engine = sa.create_engine(url, **json.loads(options), pool_size=1, max_overflow=-1)
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        return engine

    def engine_of(url: str, poolclass: type[sa.Pool], **options: object) -> sa.Engine:
        assert poolclass is sa.NullPool
        return kept(url, json.dumps(options))

    with pytest.MonkeyPatch.context() as patch:
        for module in (
            consolidated_sqlite_event_log,
            sqlite_event_log,
            sqlite_run_storage,
            sqlite_schedule_storage,
        ):
            patch.setattr(module, "create_engine", engine_of)
        yield


@pytest.fixture(autouse=True)
def _processes_end_with_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Kills what a test has started and not ended, also while a test that has had its time waits for a process."""
    config = request.config
    mark = new_mark(config.stash[_MARK])
    os.environ[MARK] = mark
    marker = request.node.get_closest_marker("timeout")
    seconds = float(marker.args[0] if marker else config.getini("timeout"))
    late = threading.Timer(seconds + 5, kill_marked, [mark])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
        # What is started from here on belongs to fixtures of a module, which end it themselves.
        os.environ[MARK] = config.stash[_MARK]
        kill_marked(mark)


@pytest.fixture(scope="session")
def _engines_of_test() -> Iterator[set["sa.Engine"]]:
    """The engines that have connected since the set was last emptied."""
    import sqlalchemy as sa

    engines: set[sa.Engine] = set()

    def add(connection: sa.Connection) -> None:
        engines.add(connection.engine)

    sa.event.listen(sa.Engine, "engine_connect", add)
    yield engines
    sa.event.remove(sa.Engine, "engine_connect", add)


@pytest.fixture(autouse=True)
def _connections_end_with_the_test(_engines_of_test: set["sa.Engine"]) -> Iterator[None]:
    """Closes the connections that pools keep: a process may open 1,024 files, and each test has another database."""
    yield
    for engine in _engines_of_test:
        engine.dispose()
    _engines_of_test.clear()


@pytest.fixture
def _database() -> DatabaseOfTest:
    return DatabaseOfTest()


@pytest.fixture
def server_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _database: DatabaseOfTest
) -> Iterator[dict[str, str]]:
    """The environment of an empty database of its own on the server."""
    with server.database() as name:
        _database.server, _database.name = server, name
        yield _set(monkeypatch, server.environment(name) | {"BATCH_ASSETS_HOME": str(tmp_path / "home")})


@pytest.fixture(params=["sqlite", "server"])
def database_environment(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    _database: DatabaseOfTest,
) -> dict[str, str]:
    """The environment of an empty database, once on SQLite and once on the server."""
    if request.param == "server":
        environment: dict[str, str] = request.getfixturevalue("server_environment")
        return environment
    home = tmp_path / "home"
    _database.file = home / "batch.sqlite"
    return _set(monkeypatch, {"BATCH_ASSETS_HOME": str(home)})


@pytest.fixture(scope="session")
def _empty_instance(tmp_path_factory: pytest.TempPathFactory, _engines_of_instances_are_kept: None) -> Path:
    """The home of an instance with its tables, to be copied: to make them takes Dagster half a second."""
    import dagster as dg

    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(INSTANCE_OF_TESTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get():
            return home


@pytest.fixture(scope="session")
def _file_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the empty tables, to be copied: to make them takes longer than many a test."""
    from batch_assets.settings.database import SQLiteSettings

    file = tmp_path_factory.mktemp("tables") / "batch.sqlite"
    _make_tables(SQLiteSettings(file))
    return file


@pytest.fixture(scope="session")
def _database_with_tables(_server_of_run: Server) -> Iterator[str]:
    """A database on the server with the empty tables, to be copied."""
    from batch_assets.settings.database import database_settings

    with _server_of_run.database() as name:
        _make_tables(database_settings(_server_of_run.environment(name)))
        yield name


def _make_tables(settings: "MySQLSettings | SQLiteSettings") -> None:
    from batch_assets.database.connection.engine import engine_for
    from batch_assets.database.schema.setup import initialize_database
    from batch_assets_tests.support.engines import ITEMS

    engine = engine_for(settings)
    initialize_database(engine, ITEMS)
    engine.dispose()


@pytest.fixture
def empty_tables(
    database_environment: dict[str, str], _database: DatabaseOfTest, request: pytest.FixtureRequest
) -> dict[str, str]:
    """The environment of a database with the empty tables, as init-db makes them."""
    from batch_assets.settings.database import database_settings

    if _database.file:
        _database.file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(request.getfixturevalue("_file_with_tables"), _database.file)
    elif _database.server and _database.server == request.getfixturevalue("_server_of_run"):
        made = request.getfixturevalue("_database_with_tables")
        _database.server.copy_tables(made, _database.name, with_rows="batch_assets_alembic_version")
    else:  # a server of the module's own
        _make_tables(database_settings(database_environment))
    return database_environment


@pytest.fixture
def tables(
    empty_tables: dict[str, str], _empty_instance: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The environment of a database with the empty tables, and of a Dagster instance of its own."""
    home = tmp_path / "dagster"
    shutil.copytree(_empty_instance, home)
    return empty_tables | _set(monkeypatch, {"DAGSTER_HOME": str(home)})


@pytest.fixture
def instance(tables: dict[str, str]) -> Iterator["dg.DagsterInstance"]:
    """The Dagster instance of `tables`."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def shipped(
    tables: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator["dg.DagsterInstance"]:
    """The Dagster instance as the package ships it: with the embedded settings, or on a server with dagster.yaml."""
    from batch_assets.orchestration.old_runs import opened_instance

    settings = Path(tables["DAGSTER_HOME"]) / "dagster.yaml"
    with contextlib.ExitStack() as stack:
        if "MYSQL_SERVER" in tables:
            shutil.copy(ROOT / "dagster.yaml", settings)
            server: Server = request.getfixturevalue("server")
            monkeypatch.setenv("MYSQL_DAGSTER_DATABASE", stack.enter_context(server.database()))
        else:
            shutil.copy(ROOT / "batch_assets" / "embedded_dagster.yaml", settings)
        yield stack.enter_context(opened_instance(os.environ))


@pytest.fixture(scope="session", params=["folder"])
def _made_registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry, to be copied: to log its models takes MLflow seconds."""
    from batch_assets_tests.support.registry import make_registry

    folder = tmp_path_factory.mktemp("registry")
    make_registry(request.param, folder)
    return folder


@pytest.fixture
def registry(_made_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Registry":
    """An MLflow registry in a folder, or where a test asks for it in a SQLite file; the environment points to it."""
    from batch_assets_tests.support.registry import copy_registry

    registry = copy_registry(_made_registry, tmp_path)
    _set(monkeypatch, {"MLFLOW_TRACKING_URI": registry.uri, "MLFLOW_ALLOW_FILE_STORE": "true"})
    return registry


@pytest.fixture(scope="session")
def many_items() -> tuple[list[str], "NDArray[np.float64]"]:
    """As many items as an hour may well have, and what scikit-learn says of them."""
    from batch_assets.iris.training import iris_items
    from batch_assets_tests.support.pipeline import iris_probabilities

    texts = [json.dumps(values) for values in iris_items(65_322, seed=7)]
    return texts, iris_probabilities(texts)


@pytest.fixture
def sql(_database: DatabaseOfTest) -> Sql:
    """`sql(statement, *parameters)` returns rows, over a new connection each time: it sees what is committed."""
    return _database.execute


def _set(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment
