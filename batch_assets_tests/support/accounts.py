"""Accounts that have the rights of deploy/grants and no others, on a private server: roles belong to a whole server."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.servers import PrivateServer, Rows, Server
from benchmarks.servers import server_of_kind

GRANTS = ROOT / "deploy" / "grants"
ROLES, DAGSTER, TABLES = (GRANTS / name for name in ("1_roles.sql", "2_dagster.sql", "3_tables.sql"))
NAMES = ("migrations", "batch", "prune", "api")
# Letters and digits, which no encoding of an URL or of JSON changes: it can be searched for as it is.
PASSWORD = "Vermicelli7Tagliatelle"
BATCH_ASSETS = (str(Path(sys.executable).with_name("batch-assets")),)
DAGSTER_COMMAND = (sys.executable, "-m", "dagster")


@dataclass(frozen=True)
class Installation:
    """A database of items and one of Dagster's tables, with an account for each role.

    Args:
        administrator: An account that may do everything.
        items: The database of the items.
        dagster: The database of Dagster's own tables.
        home: Becomes DAGSTER_HOME.
    """

    administrator: Server
    items: str
    dagster: str
    home: Path

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a process that has the account of a role."""
        return {
            **self.account(name).environment(self.items),
            "MYSQL_DAGSTER_DATABASE": self.dagster,
            "DAGSTER_HOME": str(self.home),
        }

    def account(self, name: str) -> Server:
        """The server as the account of a role sees it."""
        return replace(self.administrator, user=f"shop_{name}", password=PASSWORD)

    def sql(self, statement: str, *parameters: object) -> Rows:
        """Runs a statement in the database of the items, as an administrator."""
        return self.administrator.execute(statement, *parameters, database=self.items)

    def run(self, name: str, command: Sequence[str], *arguments: str) -> str:
        """Runs a command with the account of a role, and returns what it prints."""
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.home,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment(name)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@contextlib.contextmanager
def private_server_like(server: Server) -> Iterator[PrivateServer]:
    """A private server of the kind that the tests see."""
    with server_of_kind("mariadb" if server.is_mariadb else "mysql") as private:
        yield private


@contextlib.contextmanager
def accounts(server: Server, home: Path) -> Iterator[Installation]:
    """Two empty databases, and accounts as an administrator makes them before there are any tables.

    Args:
        server: A private server.
        home: An empty folder, which becomes DAGSTER_HOME.
    """
    with server.database() as items, server.database() as dagster:
        apply(server, ROLES, items)
        apply(server, DAGSTER, dagster)
        for name in NAMES:
            server.execute(f"CREATE USER IF NOT EXISTS shop_{name} IDENTIFIED BY '{PASSWORD}'")
            server.execute(f"GRANT batch_assets_{name} TO shop_{name}")
            server.execute(f"SET DEFAULT ROLE batch_assets_{name} {'FOR' if server.is_mariadb else 'TO'} shop_{name}")
        shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
        yield Installation(server, items, dagster, home)


@contextlib.contextmanager
def installation(server: Server, home: Path) -> Iterator[Installation]:
    """The same with all tables, made by the account of the migrations with the real commands."""
    with accounts(server, home) as shop:
        shop.run("migrations", BATCH_ASSETS, "init-db")
        shop.run("migrations", DAGSTER_COMMAND, "instance", "migrate")
        apply(server, TABLES, shop.items)
        yield shop


def apply(server: Server, file: Path, database: str) -> None:
    """Applies a file of grants statement by statement, as a program does."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("--")]
    for statement in re.split(r";$", "\n".join(lines), flags=re.MULTILINE):
        if statement.strip():
            server.execute(statement, database=database)
