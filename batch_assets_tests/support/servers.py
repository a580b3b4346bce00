"""Real MySQL and MariaDB servers for the tests, started and stopped by the tests themselves.

A stand-in would prove nothing here: what has to hold (locks, transactions, JSON, time zones, cut connections)
is what servers differ in. So the tests use the server in MYSQL_SERVER, or start a private one, or install one.
Where none can be had, a test that needs one is skipped with a sentence that says how to get one; in CI it fails.
"""

import contextlib
import dataclasses
import fcntl
import functools
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from batch_assets_tests.support.programs import MissingProgramError

STARTUP_SECONDS = 120
SHUTDOWN_SECONDS = 120
COMMAND_SECONDS = 900
USER = "batch"
# What is committed outlives a server that is killed, though not a machine that loses its power.
OPTIONS_OF_TESTS = ("--innodb-flush-log-at-trx-commit=2",)
# Far from UTC and not a whole hour: a connection that forgets SET time_zone lands in another hour at once.
TIME_ZONE = "+05:30"

Rows = list[tuple[Any, ...]]

# Reads one byte from the pipe that the process of the tests holds open. The byte means that the server was
# stopped in an orderly way; the end of the file means that the tests were killed, and nobody else is left to
# stop the server and to remove its folder.
_WATCHDOG = """
import os, shutil, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if not sys.stdin.buffer.read(1):
    try:
        os.kill(int(sys.argv[1]), signal.SIGKILL)
    except ProcessLookupError:
        pass
    shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


@dataclasses.dataclass(frozen=True)
class Server:
    """Where a running server listens, and an account that may do everything there."""

    host: str
    port: int
    user: str
    password: str = dataclasses.field(repr=False)
    version: str
    # Whether to encrypt where the server can: to connect then takes MySQL and a client 25 milliseconds instead of one.
    tls: bool = True

    @property
    def is_mariadb(self) -> bool:
        return "mariadb" in self.version.lower()

    @property
    def processlist(self) -> str:
        """What to SELECT a connection's `id`, `db` and `info` from.

        SHOW PROCESSLIST and MySQL's table in the information schema fail as soon as another connection's statement
        has characters that their column cannot hold.
        """
        if self.is_mariadb:
            return "information_schema.processlist"
        columns = "processlist_id AS id, processlist_db AS db, processlist_info AS info"
        return f"(SELECT {columns} FROM performance_schema.threads) AS processlist"

    def environment(self, database: str) -> dict[str, str]:
        """The variables with which the package finds `database` on this server."""
        return {
            "MYSQL_SERVER": self.host,
            "MYSQL_PORT": str(self.port),
            "MYSQL_USER": self.user,
            "MYSQL_PASSWORD": self.password,
            "MYSQL_DATABASE": database,
        }

    def execute(self, statement: str, *parameters: object, database: str | None = None) -> Rows:
        """Runs one statement over a connection of its own, in UTC, and returns the rows.

        Independent of the package on purpose: the tests must not believe what they test.
        """
        # Imported late: preparing a server's folder must work in a Python without any package.
        import pymysql

        connection = pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=10,
            ssl_disabled=not self.tls,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Makes an empty database with a name of its own, and drops it afterwards."""
        name = f"batch_assets_test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        try:
            yield name
        finally:
            # A connection that a test has left open in a transaction would block DROP DATABASE for ever.
            for (thread,) in self.execute(f"SELECT id FROM {self.processlist} WHERE db = %s", name):
                with contextlib.suppress(Exception):
                    self.execute(f"KILL {thread}")
            self.execute(f"DROP DATABASE {name}")

    def copy_tables(self, source: str, target: str, *, with_rows: str) -> None:
        """Makes the tables of one database in another one, without their rows but for those of one table."""
        tables = self.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", source)
        for (name,) in tables:
            self.execute(f"CREATE TABLE {name} LIKE {source}.{name}", database=target)
        self.execute(f"INSERT INTO {with_rows} SELECT * FROM {source}.{with_rows}", database=target)


class PrivateServer:
    """A server with a folder, a port and an account of its own that can be stopped, killed and restarted.

    Args:
        options: further options of the server, for example `--require-secure-transport=ON`.
        binary: `mariadbd` or `mysqld`; found or installed when not given.
        root: the folder that the server sees as `/`, when it lives in one (see .ci/oracle_mysql.py).
    """

    def __init__(self, *options: str, binary: str | None = None, root: Path | None = None) -> None:
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._root = root
        self._binary = binary or find_server() or install_server()
        self._password = secrets.token_hex(16)
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._version = ""
        self._account = _account(root)
        self._is_mariadb = "mariadb" in self._run(self._binary, "--version").lower()
        self.folder = _make_folder(root, self._account)
        self._data = self.folder / "data"
        self.log = self.folder / "log"

    @property
    def server(self) -> Server:
        """What the tests need to know to use it."""
        tls = any(option.startswith(("--ssl", "--require-secure-transport")) for option in self.options)
        return Server("127.0.0.1", self.port, USER, self._password, self._version, tls)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        if self.is_running:
            raise RuntimeError("this private server is running already")
        if self._data.exists():
            self._start()
            return
        try:
            self._initialize()
            for attempt in (1, 2, 3):
                try:
                    self._start(f"--init-file={self._inside(self._write_init_file())}")
                    break
                except RuntimeError as fault:
                    # Somebody else took the port between our looking for a free one and using it.
                    if attempt == 3 or "already in use" not in str(fault):
                        raise
                    self.port = free_port()
        except BaseException:
            self.close()
            raise

    def stop(self, kill: bool = False) -> None:
        """Stops the server in an orderly way, or with `kill` as a crash would."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                process.wait(SHUTDOWN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(SHUTDOWN_SECONDS)
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            with contextlib.suppress(BrokenPipeError):
                watchdog.communicate(b".", timeout=SHUTDOWN_SECONDS)

    def restart(self, *options: str, kill: bool = False) -> None:
        """Stops and starts the server on the same port and data, with new options if any are given."""
        self.stop(kill)
        self.options = options or self.options
        self.start()

    def close(self) -> None:
        """Stops the server and removes its folder."""
        try:
            # Nobody needs the data any more, so nothing is gained by an orderly end.
            self.stop(kill=True)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _initialize(self) -> None:
        """Makes the data folder."""
        if self._is_mariadb:
            installer = shutil.which("mariadb-install-db", path=_path())
            if installer is None:
                raise MissingProgramError(
                    "mariadb-install-db",
                    f"{self._binary} came without it (on Debian: apt-get install mariadb-server-core)",
                )
            self._run(
                installer,
                "--no-defaults",
                f"--datadir={self._inside(self._data)}",
                f"--tmpdir={self._inside(self.folder)}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                # Without it, a machine that cannot look up its own name gets no tables.
                "--force",
            )
        else:
            self._run(
                self._binary,
                "--no-defaults",
                *self._as_user(),
                "--initialize-insecure",
                f"--datadir={self._inside(self._data)}",
                f"--tmpdir={self._inside(self.folder)}",
                "--secure-file-priv=NULL",
            )

    def _write_init_file(self) -> Path:
        """The statements that the server runs before it listens: at no moment is there an open account."""
        statements = [
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{self._password}'",
            f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%' WITH GRANT OPTION",
        ]
        if self._is_mariadb:
            # A fresh MariaDB has ''@'localhost', which shadows 'batch'@'%' for connections from this machine.
            statements.append("DELETE FROM mysql.global_priv WHERE User IN ('', 'root')")
        else:
            statements.append("DROP USER IF EXISTS 'root'@'localhost'")
        statements.append("FLUSH PRIVILEGES")
        file = self.folder / "init.sql"
        file.write_text("".join(f"{statement};\n" for statement in statements), "utf-8")
        file.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(file, *self._account)
        return file

    def _start(self, *once: str) -> None:
        """Starts the process and its watchdog, and waits for the first answer."""
        command = [
            *self._prefix(),
            self._binary,
            "--no-defaults",
            *self._as_user(),
            f"--datadir={self._inside(self._data)}",
            f"--tmpdir={self._inside(self.folder)}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self._inside(self.folder / 's.sock')}",
            f"--pid-file={self._inside(self.folder / 'server.pid')}",
            f"--default-time-zone={TIME_ZONE}",
            "--innodb-buffer-pool-size=256M",
            "--skip-log-bin",
            *([] if self._is_mariadb else ["--mysqlx=OFF", "--secure-file-priv=NULL"]),
            *self.options,
            *once,
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": _path()},
                cwd="/",
                # Ctrl-C in the terminal is for the tests; they end the server when they are done with it.
                start_new_session=True,
                **self._identity(),
            )
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(self.process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._wait_until_it_answers(self.process)
        except BaseException:
            self.stop(kill=True)
            raise

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        import pymysql

        deadline = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                self._version = str(self.server.execute("SELECT VERSION()")[0][0])
            except pymysql.err.MySQLError as error:
                fault = error
            else:
                return
            if process.poll() is not None:
                raise RuntimeError(f"{self._binary} ended with status {process.returncode}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self._binary} has not answered within {STARTUP_SECONDS} s ({fault}):\n{self._tail()}"
                )
            time.sleep(0.05)

    def _tail(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-30:])

    def _inside(self, path: Path) -> str:
        """The path as the server sees it."""
        return str(path) if self._root is None else f"/{path.relative_to(self._root)}"

    def _prefix(self) -> list[str]:
        """What puts the server into its root: /proc is mounted in a namespace that ends with the server."""
        return [] if self._root is None else ["unshare", f"--root={self._root}", "--mount-proc", "--"]

    def _as_user(self) -> list[str]:
        """In a root of its own the server must begin as root, so that /proc can be mounted."""
        return [] if self._root is None else ["--user=mysql"]

    def _identity(self) -> dict[str, Any]:
        """Servers refuse to run as root: as root, run as somebody else."""
        if self._root is not None or os.geteuid() != 0:
            return {}
        user, group = self._account
        return {"user": user, "group": group, "extra_groups": ()}

    def _run(self, *command: str) -> str:
        return run_to_end([*self._prefix(), *command], env={"PATH": _path()}, cwd="/", **self._identity())


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server_for_tests(environment: Mapping[str, str] = os.environ) -> Iterator[Server]:
    """The server in MYSQL_SERVER, or a private one for as long as the context lasts."""
    if environment.get("MYSQL_SERVER"):
        yield _server_in(environment)
    else:
        with private_server(*OPTIONS_OF_TESTS) as private:
            yield private.server


@contextlib.contextmanager
def private_server(*options: str) -> Iterator[PrivateServer]:
    """A private server for as long as the context lasts, however it ends."""
    with PrivateServer(*options) as private:
        yield private


def find_server() -> str | None:
    """The path of `mariadbd` or `mysqld`, if either is installed with all that it needs."""
    binary = shutil.which("mariadbd", path=_path()) or shutil.which("mysqld", path=_path())
    # Debian has MariaDB's server without what prepares its folder, which is in the client's package.
    if binary and Path(binary).resolve().name == "mariadbd" and not shutil.which("my_print_defaults", path=_path()):
        return None
    return binary


def install_server() -> str:
    """Installs MariaDB's server where that is a matter of one command, and returns its path.

    Raises:
        MissingProgramError: That cannot be done here, or has failed.
    """
    try_to_install("mariadb-server-core", "mariadb-client-core")
    binary = find_server()
    if binary is None:
        raise MissingProgramError(
            "a MySQL or MariaDB server",
            "install one (on Debian: apt-get install mariadb-server-core mariadb-client-core), or set MYSQL_SERVER,"
            " MYSQL_USER and MYSQL_PASSWORD to one on which the tests may create databases",
        )
    return binary


@functools.cache
def try_to_install(*packages: str) -> None:
    """Installs packages of Debian where that can be done, and not again for each test where it has failed.

    Args:
        packages: Those of programs: they bring no service, so that nothing starts and nothing is set up.
    """
    if os.geteuid() == 0 and {"debian", "ubuntu"} & set(_like()):
        try:
            apt_install(*packages)
        except RuntimeError as fault:
            print(f"{' and '.join(packages)} could not be installed: {fault}", file=sys.stderr)  # noqa: T201


def apt_install(*packages: str) -> None:
    """Installs packages of Debian; two test runs that do so at the same time wait for each other."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    options = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    with (Path(tempfile.gettempdir()) / "batch-assets-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # One unreachable source of many is no reason to give up: what is needed may be known already.
        with contextlib.suppress(RuntimeError):
            run_to_end(["apt-get", *options, "update"], env=environment)
        run_to_end(["apt-get", *options, "install", "--yes", "--no-install-recommends", *packages], env=environment)


def _server_in(environment: Mapping[str, str]) -> Server:
    import pymysql

    server = Server(
        host=environment["MYSQL_SERVER"],
        port=int(environment.get("MYSQL_PORT") or 3306),
        user=environment.get("MYSQL_USER", ""),
        password=environment.get("MYSQL_PASSWORD", ""),
        version="",
    )
    try:
        version = str(server.execute("SELECT VERSION()")[0][0])
    except pymysql.err.MySQLError as error:
        raise RuntimeError(
            "MYSQL_SERVER names a server that the tests cannot use"
            f" ({server.user}@{server.host}:{server.port}): {error}. Fix MYSQL_SERVER, MYSQL_PORT, MYSQL_USER or"
            " MYSQL_PASSWORD, or unset MYSQL_SERVER for a private server."
        ) from error
    server = dataclasses.replace(server, version=version)
    return _unencrypted(server) if server.host in {"127.0.0.1", "::1", "localhost"} else server


def _unencrypted(server: Server) -> Server:
    """The same without TLS, unless the server or the account insists on it.

    To a server that has been asked before: MySQL takes an account's first login only with TLS.
    """
    import pymysql

    unencrypted = dataclasses.replace(server, tls=False)
    try:
        unencrypted.execute("SELECT 1")
    except pymysql.err.MySQLError:
        return server
    return unencrypted


def _account(root: Path | None) -> tuple[int, int]:
    """The user and group that own the data: `mysql`, or `nobody` where there is no such user, or oneself."""
    if root is not None:
        for line in (root / "etc/passwd").read_text("utf-8").splitlines():
            name, _, user, group, *_ = line.split(":")
            if name == "mysql":
                return int(user), int(group)
        raise RuntimeError(f"there is no user mysql in {root}")
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    for name in ("mysql", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise RuntimeError("a database server must not run as root, and there is neither a user mysql nor nobody")


def _make_folder(root: Path | None, account: tuple[int, int]) -> Path:
    """An empty folder that belongs to the server's user and that this user can reach."""
    if root is not None:
        parents = [root / "tmp"]
    elif os.geteuid() != 0:
        parents = [Path(tempfile.gettempdir())]
    else:
        # root's own temporary folder may be closed to everybody else.
        parents = [Path(name) for name in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
        parents = [path for path in parents if _is_reachable(path)]
    if not parents:
        raise RuntimeError("the database server's user can reach none of the temporary folders")
    folder = Path(tempfile.mkdtemp(prefix="batch-assets-", dir=parents[0]))
    if os.geteuid() == 0:
        os.chown(folder, *account)
    return folder


def _is_reachable(folder: Path) -> bool:
    folder = folder.resolve()
    return all(path.is_dir() and path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def _path() -> str:
    """The path of programs, with the folders of system programs that only root's path has."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _like() -> list[str]:
    """The names in ID and ID_LIKE of /etc/os-release."""
    try:
        text = Path("/etc/os-release").read_text("utf-8")
    except FileNotFoundError:
        return []
    return re.findall(r"[a-z]+", " ".join(re.findall(r"^(?:ID|ID_LIKE)=(.*)$", text, re.MULTILINE)))


def run_to_end(command: list[str], timeout: float = COMMAND_SECONDS, **options: Any) -> str:
    """Runs a command to its end and returns what it printed; a failure is raised with that.

    Args:
        command: The program and its arguments.
        timeout: The command is killed and has failed after these seconds.
        options: Others of `subprocess.run`.

    Raises:
        RuntimeError: The command failed.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout,
            **options,
        )
    except subprocess.TimeoutExpired as fault:
        raise RuntimeError(f"{' '.join(command)} has not ended within {timeout:.0f} s") from fault
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise RuntimeError(f"{' '.join(command)} failed with status {done.returncode}:\n{tail}")
    return str(done.stdout)
