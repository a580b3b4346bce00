"""What all tests share: a clean environment, real servers, and a way to look at tables without the package."""

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from batch_assets_tests.support.servers import Rows, Server, server_for_tests

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Which server to use is the developer's to say; all else of what is set on a machine would only change results.
# Done on import: before any test module, and with it Dagster or the package, can have read it.
SERVER_SETTINGS = {name: value for name, value in os.environ.items() if name.startswith("MYSQL_")}
for name in list(os.environ):
    if name.startswith(("MYSQL_", "BATCH_", "DAGSTER_", "API_")) or name in {
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

# A shell that runs the tests in the background has them ignore SIGINT, and with them all that they start and end so.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere, and no time limit for one: two suites side by side make any machine slow.
hypothesis.settings.load_profile("ci")

Sql = Callable[..., Rows]

_servers_used: list[str] = []


class _Database:
    """The database of the running test, for the fixture `sql`."""

    server: Server | None = None
    name: str = ""
    file: Path | None = None

    def execute(self, statement: str, *parameters: object) -> Rows:
        if self.server is not None:
            return self.server.execute(statement, *parameters, database=self.name)
        if self.file is None:
            pytest.fail("`sql` needs `database_environment` or `server_environment` beside it")
        if parameters:
            statement = statement.replace("%s", "?").replace("%%", "%")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self.file, timeout=30, isolation_level=None)) as connection:
            return connection.execute(statement, parameters).fetchall()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A real server for the whole run, started when the first test asks for it."""
    with server_for_tests(SERVER_SETTINGS) as server:
        _servers_used.append(server.version)
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which server the tests have seen: a result without it proves little."""
    terminalreporter.write_line(f"database server: {', '.join(_servers_used) or 'none was needed'}")


@pytest.fixture
def _database() -> _Database:
    return _Database()


@pytest.fixture
def server_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _database: _Database
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
    _database: _Database,
) -> dict[str, str]:
    """The environment of an empty database, once on SQLite and once on the server."""
    if request.param == "server":
        environment: dict[str, str] = request.getfixturevalue("server_environment")
        return environment
    home = tmp_path / "home"
    _database.file = home / "batch.sqlite"
    return _set(monkeypatch, {"BATCH_ASSETS_HOME": str(home)})


@pytest.fixture
def tables(database_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a database with the empty tables, and of a Dagster instance of its own."""
    from batch_assets.database.schema.setup import initialize_database
    from batch_assets_tests.support.engines import engine_from_environment

    initialize_database(engine_from_environment())
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return database_environment | _set(monkeypatch, {"DAGSTER_HOME": str(home)})


@pytest.fixture(scope="session")
def many_items() -> tuple[list[str], "NDArray[np.float64]"]:
    """As many items as an hour may well have, and what scikit-learn says of them."""
    from batch_assets.iris.training import iris_items
    from batch_assets_tests.support.pipeline import iris_probabilities

    texts = [json.dumps(values) for values in iris_items(65_322, seed=7)]
    return texts, iris_probabilities(texts)


@pytest.fixture
def sql(_database: _Database) -> Sql:
    """`sql(statement, *parameters)` returns rows, over a new connection each time: it sees what is committed.

    Parameters are written %s on every database; a % that is none is doubled where there are parameters.
    """
    return _database.execute


def _set(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment
