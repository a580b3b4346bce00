"""The servers that the tests run on must themselves do what the tests rely on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pymysql
import pytest

from batch_assets_tests.support import servers
from batch_assets_tests.support.certificates import Authority
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.programs import MissingProgramError
from batch_assets_tests.support.servers import (
    PrivateServer,
    Server,
    free_port,
    private_server,
    run_to_end,
    server_for_tests,
)

pytestmark = pytest.mark.server


@pytest.fixture
def _a_server_is_installed() -> None:
    if servers.find_server() is None:
        servers.install_server()


def is_running(pid: int) -> bool:
    # In a container without an init nobody reaps what a killed parent leaves: a zombie has ended all the same.
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def assert_gone(pid: int, folder: Path) -> None:
    assert not is_running(pid)
    assert not folder.exists()


def test_private_server_answers_in_its_odd_time_zone_and_is_gone_afterwards() -> None:
    with private_server() as private:
        server = private.server
        assert private.process is not None
        pid, folder = private.process.pid, private.folder
        assert psutil.Process(pid).uids().real != 0 or os.geteuid() != 0
        # The session of `execute` is in UTC; what the server gives to others is not.
        assert server.execute("SELECT @@global.time_zone, @@session.time_zone") == [("+05:30", "+00:00")]
        assert server.execute("SELECT %s, '100%%'", 7) == [(7, "100%")]
        assert server.execute("SELECT '100%'") == [("100%",)]
        assert server.version == server.execute("SELECT VERSION()")[0][0]
        assert server.is_mariadb == ("MariaDB" in server.version)
        assert server.execute("SELECT COUNT(*) FROM mysql.user WHERE User IN ('', 'root')") == [(0,)]
        assert server.password not in repr(server)
    assert_gone(pid, folder)


def test_private_server_is_gone_when_the_test_fails() -> None:
    pid, folder = 0, Path()
    with contextlib.suppress(ZeroDivisionError), private_server() as private:
        assert private.process is not None
        pid, folder = private.process.pid, private.folder
        raise ZeroDivisionError
    assert pid
    assert_gone(pid, folder)


@pytest.mark.usefixtures("_a_server_is_installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_private_server_is_gone_when_the_run_is_interrupted(number: signal.Signals) -> None:
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a shell's background
        "from batch_assets_tests.support.servers import private_server\n"
        "with private_server() as private:\n"
        "    print(private.process.pid, private.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        assert is_running(int(pid))
        process.send_signal(number)
    deadline = time.monotonic() + 30
    while (is_running(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert_gone(int(pid), Path(folder))


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_private_server_keeps_its_data_and_port_over_a_restart(kill: bool) -> None:
    with private_server("--max-connections=33") as private:
        server = private.server
        server.execute("CREATE DATABASE kept")
        server.execute("CREATE TABLE numbers (number INTEGER)", database="kept")
        server.execute("INSERT INTO numbers VALUES (1), (2)", database="kept")
        private.stop(kill=kill)
        assert not private.is_running
        with pytest.raises(pymysql.err.OperationalError):
            server.execute("SELECT 1")
        private.start()
        assert private.server == server
        assert server.execute("SELECT SUM(number) FROM numbers", database="kept") == [(3,)]
        assert server.execute("SELECT @@max_connections") == [(33,)]
        private.restart("--max-connections=35", kill=kill)
        assert server.execute("SELECT @@max_connections") == [(35,)]


def test_private_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    private = PrivateServer("--no-such-option")
    with pytest.raises(RuntimeError, match="no-such-option"):
        private.start()
    assert not private.is_running
    assert not private.folder.exists()


def test_server_in_the_environment_is_used_as_it_is(server: Server) -> None:
    with server_for_tests(server.environment("")) as found:
        assert found == server


def test_server_in_the_environment_that_insists_on_encryption_is_used_with_it(tmp_path: Path) -> None:
    private = PrivateServer()
    private.options = ("--require-secure-transport=ON", *Authority(tmp_path, "our authority").served_by(private))
    with private, server_for_tests(private.server.environment("")) as found:
        assert found.tls
        assert found.execute("SHOW STATUS LIKE 'Ssl_cipher'")[0][1]


def test_unreachable_server_in_the_environment_fails_with_a_sentence() -> None:
    environment = {"MYSQL_SERVER": "127.0.0.1", "MYSQL_PORT": str(free_port()), "MYSQL_USER": "somebody"}
    with (
        pytest.raises(RuntimeError, match=r"MYSQL_SERVER names a server that the tests cannot use \(somebody@"),
        server_for_tests(environment),
    ):
        pytest.fail("there is no server at this port")


def test_no_server_to_be_had_is_a_missing_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "find_server", lambda: None)
    monkeypatch.setattr(servers, "try_to_install", lambda *_: None)
    with (
        pytest.raises(MissingProgramError, match=r"this needs a MySQL or MariaDB server: install one .*MYSQL_SERVER"),
        server_for_tests({}),
    ):
        pytest.fail("there is no server")


def test_what_cannot_be_installed_is_not_tried_for_each_test(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, ...]] = []

    def fail(*packages: str) -> None:
        tried.append(packages)
        raise RuntimeError("apt-get failed")

    monkeypatch.setattr(servers, "find_server", lambda: None)
    monkeypatch.setattr(servers, "apt_install", fail)
    monkeypatch.setattr(servers, "_like", lambda: ["debian"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    servers.try_to_install.cache_clear()
    for _ in range(2):
        with pytest.raises(MissingProgramError):
            servers.install_server()
    assert tried == [("mariadb-server-core", "mariadb-client-core")]


def test_a_command_that_does_not_end_is_killed_with_a_sentence() -> None:
    with pytest.raises(RuntimeError, match=r"time\.sleep\(600\) has not ended within 1 s"):
        run_to_end([sys.executable, "-c", "import time; time.sleep(600)"], timeout=1)


def test_every_test_has_an_empty_database_of_its_own(database_environment: dict[str, str], sql: Sql) -> None:
    assert database_environment.items() <= os.environ.items()
    assert ("MYSQL_SERVER" in os.environ) == ("MYSQL_SERVER" in database_environment)
    sql("CREATE TABLE numbers (number INTEGER, name VARCHAR(10))")
    sql("INSERT INTO numbers VALUES (%s, %s), (2, '100%%')", 1, "%s")
    assert sql("SELECT * FROM numbers WHERE number < %s ORDER BY number", 3) == [(1, "%s"), (2, "100%")]


def test_database_is_dropped_though_a_connection_has_it_locked(server: Server) -> None:
    with server.database() as name:
        connection = pymysql.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, database=name
        )
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE numbers (number INTEGER)")
            cursor.execute("INSERT INTO numbers VALUES (1)")
    connection._force_close()  # type: ignore[attr-defined]
    assert (name,) not in server.execute("SHOW DATABASES")


def test_environment_of_the_machine_does_not_reach_the_tests() -> None:
    ours = "BATCH_TRANSIENT_RETRY_SECONDS"
    assert [name for name in os.environ if name.startswith(("MYSQL_", "BATCH_"))] == [ours]
    assert os.environ["DAGSTER_DISABLE_TELEMETRY"] == "yes"
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
