"""Making the tables: on an empty database, and around an `items` table that the service already lives on."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn

from batch_assets.errors import DatabaseUnavailableError, TableError

OTHER_PROCESS_SECONDS = 600
_TEXT = (sa.JSON, sa.Text, sa.String)
_ITEMS = {
    "id": ("an integer", (sa.Integer,)),
    "values": ("JSON", _TEXT),
    "prediction": ("JSON", _TEXT),
    "created_datetime": ("TIMESTAMP", (sa.DateTime, sa.TIMESTAMP)),
    "updated_datetime": ("TIMESTAMP", (sa.DateTime, sa.TIMESTAMP)),
}


def initialize_database(engine: sa.Engine) -> list[str]:
    """Creates the tables that are missing and adopts an `items` table with rows in it as it is.

    Run twice it changes nothing; of two processes the second waits for the first.

    Args:
        engine: The database.

    Returns:
        What was done, a sentence each; empty when there was nothing to do.

    Raises:
        TableError: The `items` table that is there lacks a column or has one of another type.
        DatabaseUnavailableError: Another process has been at it for ten minutes.
    """
    with engine.connect() as connection, _alone(connection):
        before = set(sa.inspect(connection).get_table_names())
        if "items" in before:
            _check_items(connection)
        _migrate(connection)
        after = set(sa.inspect(connection).get_table_names())
        done = [f"created table {name}" for name in ("items", "failed_items", "run_summary") if name in after - before]
        if _add_index(connection):
            done.append("added an index on items.created_datetime")
        connection.commit()
    return done


@contextmanager
def _alone(connection: sa.Connection) -> Iterator[None]:
    """Keeps other processes out; SQLite's transaction does that by itself, MySQL's do not cover DDL."""
    if connection.dialect.name == "sqlite":
        yield
        return
    # The names of these locks are those of the server, not of the database.
    name = "batch_assets." + sha256((connection.engine.url.database or "").encode()).hexdigest()[:32]
    taken = connection.execute(sa.select(sa.func.get_lock(name, OTHER_PROCESS_SECONDS))).scalar_one()
    if taken != 1:
        raise DatabaseUnavailableError(
            f"Another process has been setting up {connection.engine.url.database!r} for "
            f"{OTHER_PROCESS_SECONDS} seconds: wait for it, or end it."
        )
    try:
        yield
    finally:
        connection.execute(sa.select(sa.func.release_lock(name)))


def _migrate(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - what only init-db needs, nobody else waits for
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _check_items(connection: sa.Connection) -> None:
    there = {column["name"]: column for column in sa.inspect(connection).get_columns("items")}
    faults = [fault for name in _ITEMS for fault in _faults(name, there.get(name))]
    key = sa.inspect(connection).get_pk_constraint("items")["constrained_columns"]
    if "id" in there and "id" not in key:
        faults.append(f"id must be the primary key (it is {', '.join(key) or 'none'})")
    if faults:
        raise TableError(
            f"The table items in {connection.engine.url.database!r} cannot be used as it is: {'; '.join(faults)}. "
            "Mend the table, or use another database; nothing was changed."
        )


def _faults(name: str, column: ReflectedColumn | None) -> list[str]:
    wanted, types = _ITEMS[name]
    if column is None:
        return [f"the column {name} ({wanted}) is missing"]
    faults = []
    if not isinstance(column["type"], types):
        faults.append(f"the column {name} is {column['type']}, and must be {wanted}")
    if name == "prediction" and not column["nullable"]:
        faults.append("the column prediction must allow NULL, which is what an item has before it is scored")
    return faults


def _add_index(connection: sa.Connection) -> bool:
    indexes = sa.inspect(connection).get_indexes("items")
    if any(index["column_names"][0] == "created_datetime" for index in indexes):
        return False
    # On MySQL the service goes on reading and writing meanwhile, or the statement is refused.
    online = "" if connection.dialect.name == "sqlite" else ", ALGORITHM=INPLACE, LOCK=NONE"
    connection.exec_driver_sql(
        "CREATE INDEX ix_items_created_datetime ON items (created_datetime)"
        if not online
        else f"ALTER TABLE items ADD INDEX ix_items_created_datetime (created_datetime){online}"
    )
    return True
