"""Making the tables: on an empty database, and around a table that the service already lives on."""

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn

from batch_assets.database.connection.json_lists import JSONList
from batch_assets.database.schema.migrations import VERSION_TABLE
from batch_assets.database.schema.pending import pending_column, pending_index
from batch_assets.database.schema.tables import (
    actuals,
    baselines,
    challenger_hours,
    challenger_predictions,
    failed_items,
    hour_locks,
    hour_models,
    hour_profiles,
    hour_quality,
    hour_requests,
    incidents,
    item_models,
    promotions,
    registrations,
    run_summary,
)
from batch_assets.errors import DatabaseError, DatabaseUnavailableError, TableError
from batch_assets.pipeline import ITEM_TABLE, ItemTable

OTHER_PROCESS_SECONDS = 600
# While a statement that changes a table waits for a transaction that uses it, all others wait behind it.
TABLE_LOCK_SECONDS = 10
BOOKKEEPING_TABLES = (
    failed_items,
    run_summary,
    hour_locks,
    hour_requests,
    registrations,
    baselines,
    hour_profiles,
    incidents,
    actuals,
    hour_quality,
    hour_models,
    item_models,
    promotions,
    challenger_predictions,
    challenger_hours,
)
_WAITED_TOO_LONG = 1205
# The server cannot do it at once, or not without keeping the service out.
_WOULD_REWRITE = {1845, 1846}
_TEXT = (sa.JSON, sa.Text, sa.String)
_ITEMS = {
    "id": ("an integer", (sa.Integer,)),
    "values": ("JSON", _TEXT),
    "prediction": ("JSON", _TEXT),
    "created_datetime": ("TIMESTAMP", (sa.DateTime, sa.TIMESTAMP)),
    "updated_datetime": ("TIMESTAMP", (sa.DateTime, sa.TIMESTAMP)),
}
# What is written to a column decides its type.
_ANSWERS = {
    "label": ("text or JSON", _TEXT),
    "probability": ("DOUBLE or JSON", (*_TEXT, sa.Numeric, sa.Float)),
    "value": ("DOUBLE or JSON", (*_TEXT, sa.Numeric, sa.Float)),
}


def initialize_database(engine: sa.Engine, *declared: sa.Table) -> list[str]:
    """Creates the tables that are missing and adopts those of the service, with rows in them, as they are.

    Run twice it changes nothing; of two processes the second waits for the first. What was interrupted it finishes,
    and a table that was dropped it creates anew.

    Args:
        engine: The database.
        declared: The tables of the service. Of these, `items` is created where it is missing.

    Returns:
        What was done, a sentence each; empty when there was nothing to do.

    Raises:
        TableError: A table that is there lacks a column or has one of another type.
        DatabaseUnavailableError: Another process has been at it for ten minutes, or uses the table of
            the service in a transaction that does not end.
    """
    tables = [table.name for table in BOOKKEEPING_TABLES]
    with_items = any(map(_is_contract, declared))
    if with_items:
        tables = [ITEM_TABLE.name, *tables]
    with engine.connect() as connection, _alone(connection):
        before = set(sa.inspect(connection).get_table_names())
        views = set(sa.inspect(connection).get_view_names())
        for items in declared:
            if items.name in before | views or not _is_contract(items):
                _check_items(connection, items)
        if VERSION_TABLE not in before:
            _check_ours(connection, before)
        _migrate(connection, anew=not before.issuperset(tables), with_items=with_items)
        after = set(sa.inspect(connection).get_table_names())
        _check_ours(connection, after)
        done = [f"created table {name}" for name in tables if name in after - before]
        for items in declared:
            if _add_index(connection, items):
                done.append(f"added an index on {items.name}.{items.c.created_datetime.name}")
            done += _add_pending(connection, items)
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
        if not connection.invalidated:  # the lock ends with the connection
            connection.execute(sa.select(sa.func.release_lock(name)))


def _migrate(connection: sa.Connection, anew: bool, *, with_items: bool) -> None:
    from alembic import command  # noqa: PLC0415 - what only init-db needs, nobody else waits for
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update({"connection": connection, "with_items": with_items})
    if anew:  # every step looks first whether it has been done
        command.stamp(config, "base")
    with _short_waits(connection):
        command.upgrade(config, "head")


def _is_contract(items: sa.Table) -> bool:
    """Whether it is the table that we create where it is missing."""
    return bool(items.info["names"] == ITEM_TABLE)


def _check_items(connection: sa.Connection, items: sa.Table) -> None:
    try:
        there = {column["name"]: column for column in sa.inspect(connection).get_columns(items.name)}
    except sa.exc.NoSuchTableError:
        raise TableError(
            f"There is no table {items.name} in {connection.engine.url.database!r}: create it, or name the table of "
            "your service in `table.name`; nothing was changed."
        ) from None
    faults = [fault for column, wanted in _wanted(items) for fault in _faults(column, there, *wanted)]
    key = sa.inspect(connection).get_pk_constraint(items.name)["constrained_columns"]
    # A table that is partitioned by time needs the time as a further column of its key.
    if items.c.id.name in there and key[:1] != [items.c.id.name]:
        faults.append(f"{items.c.id.name} must be the primary key (it is {', '.join(key) or 'none'})")
    if items.name in sa.inspect(connection).get_view_names():
        faults = ["it is a view, and must be a table"]
    if connection.dialect.name != "sqlite":
        faults += [*_storage_faults(connection, items), *_moving_time_faults(connection, items)]
    if faults:
        raise TableError(
            f"The table {items.name} in {connection.engine.url.database!r} cannot be used as it is: "
            f"{'; '.join(faults)}. Fix the table, or use another database; nothing was changed."
        )


def _moving_time_faults(connection: sa.Connection, items: sa.Table) -> list[str]:
    """Refuses a time of creation that the server moves: writing a prediction would take the row to another hour."""
    moved = sa.text(
        "SELECT extra FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = :table "
        "AND column_name = :column AND extra LIKE '%on update%'"
    )
    created = items.c.created_datetime.name
    if connection.execute(moved, {"table": items.name, "column": created}).scalar() is None:
        return []
    return [f"the column {created} has ON UPDATE, by which every change of a row moves it to another hour"]


def _storage_faults(connection: sa.Connection, items: sa.Table) -> list[str]:
    looked_up = sa.text(
        "SELECT tables.engine, engines.transactions FROM information_schema.tables JOIN information_schema.engines "
        "ON engines.engine = tables.engine WHERE table_schema = DATABASE() AND table_name = :table"
    )
    storage = connection.execute(looked_up, {"table": items.name}).one_or_none()
    if storage is None or storage[1] == "YES":
        return []
    return [f"its storage engine {storage[0]} has no transactions (ALTER TABLE {items.name} ENGINE=InnoDB)"]


def _check_ours(connection: sa.Connection, there: Container[str]) -> None:
    for table in BOOKKEEPING_TABLES:
        if table.name in there:
            names = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
            missing = [column.name for column in table.columns if column.name not in names]
            if missing:
                raise TableError(
                    f"The table {table.name} in {connection.engine.url.database!r} has no {', '.join(missing)}: rename "
                    "it and run `batch-assets init-db` again, which then creates it anew, or use another database."
                )


def _wanted(items: sa.Table) -> Iterator[tuple[sa.Column[Any], tuple[str, tuple[type, ...]]]]:
    """Yields the columns that a table must have, and what they must be."""
    names: ItemTable = items.info["names"]
    for key, wanted in _ITEMS.items():
        if key in items.c and key != "prediction" and not isinstance(items.c[key], JSONList):
            yield items.c[key], wanted
    if names.from_columns:
        for feature in items.c["values"].listed:
            yield feature, ("a feature", ())
    for output in names.outputs:
        column: sa.Column[Any] = sa.Column(output.column, nullable=True)
        yield column, _ANSWERS.get(output.form, _ITEMS["prediction"])


def _faults(
    expected: sa.Column[Any], there: Mapping[str, ReflectedColumn], wanted: str, types: tuple[type, ...]
) -> list[str]:
    name, column = expected.name, there.get(expected.name)
    if column is None:
        return [f"the column {name} ({wanted}) is missing"]
    faults = []
    if types and not isinstance(column["type"], types):
        faults.append(f"the column {name} is {column['type']}, and must be {wanted}")
    if types and expected.nullable and not column["nullable"]:
        faults.append(f"the column {name} must allow NULL, which is what an item has before it is scored")
    return faults


def _add_index(connection: sa.Connection, items: sa.Table) -> bool:
    created, quote = items.c.created_datetime.name, connection.dialect.identifier_preparer.quote
    if _has_index(connection, items, [created]):
        return False
    index = quote(f"ix_{items.name}_{created}")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"CREATE INDEX {index} ON {quote(items.name)} ({quote(created)})")
    else:
        _alter_online(connection, items, f"ADD INDEX {index} ({quote(created)}), ALGORITHM=INPLACE, LOCK=NONE")
    return True


def _add_pending(connection: sa.Connection, items: sa.Table) -> list[str]:
    """Makes what has no prediction cost what there is of it, see `pending.py`."""
    quote = connection.dialect.identifier_preparer.quote
    column, index, created = pending_column(items), pending_index(items), items.c.created_datetime.name
    if connection.dialect.name == "sqlite":
        if any(there["name"] == index for there in sa.inspect(connection).get_indexes(items.name)):
            return []
        pending = f"({quote(created)}) WHERE {quote(items.c.prediction.name)} IS NULL"
        connection.exec_driver_sql(f"CREATE INDEX {quote(index)} ON {quote(items.name)} {pending}")
        return ["added an index on the items without a prediction"]
    done = []
    if column not in {there["name"] for there in sa.inspect(connection).get_columns(items.name)}:
        refusal = _add_pending_column(connection, items)
        if refusal:
            return [refusal]
        done.append(f"added the virtual column {items.name}.{column}")
    if not _has_index(connection, items, [column, created]):
        columns = f"{quote(column)}, {quote(created)}"
        _alter_online(connection, items, f"ADD INDEX {quote(index)} ({columns}), ALGORITHM=INPLACE, LOCK=NONE")
        done.append(f"added an index on {items.name}.{column}")
    return done


def _add_pending_column(connection: sa.Connection, items: sa.Table) -> str | None:
    """Adds the column; returns a sentence if the server would have to write the table anew for it."""
    # In a comment for MySQL alone, which knows the word since 8.0.23.
    invisible = "INVISIBLE" if getattr(connection.dialect, "is_mariadb", False) else "/*!80023 INVISIBLE */"
    name, quote = pending_column(items), connection.dialect.identifier_preparer.quote
    expression = f"({quote(items.c.prediction.name)} IS NULL)"
    column = f"{quote(name)} TINYINT GENERATED ALWAYS AS {expression} VIRTUAL {invisible}"
    try:
        _alter_online(connection, items, f"ADD COLUMN {column}, ALGORITHM=INSTANT")
    except DatabaseError as error:
        number = error.__cause__.args[0] if error.__cause__ else None
        if number not in _WOULD_REWRITE:
            raise
        return (
            f"{items.name} goes without the column {name}, which cannot be added to it online: what is pending is "
            "found by reading whole hours. To have it, in an hour in which the service can do without the table: "
            f"ALTER TABLE {quote(items.name)} ADD COLUMN {column}; then run init-db again."
        )
    return None


def _has_index(connection: sa.Connection, items: sa.Table, columns: list[str]) -> bool:
    indexes = sa.inspect(connection).get_indexes(items.name)
    # SQLite's index of the pending items begins with the time too, and has no others.
    whole = [index for index in indexes if connection.dialect.name != "sqlite" or index["name"] != pending_index(items)]
    return any(index["column_names"][: len(columns)] == columns for index in whole)


def _alter_online(connection: sa.Connection, items: sa.Table, change: str) -> None:
    """Changes the table while the service goes on reading and writing, or is refused."""
    with _short_waits(connection):
        table = connection.dialect.identifier_preparer.format_table(items)
        connection.exec_driver_sql(f"ALTER TABLE {table} {change}")


@contextmanager
def _short_waits(connection: sa.Connection) -> Iterator[None]:
    """Has what changes a table wait a short while only for the transactions that use it."""
    if connection.dialect.name == "sqlite":
        yield
        return
    connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {TABLE_LOCK_SECONDS}")
    try:
        yield
    except DatabaseUnavailableError as error:
        if not error.__cause__ or error.__cause__.args[0] != _WAITED_TOO_LONG:
            raise
        raise DatabaseUnavailableError(
            f"{error} Here a table was to be changed, and somebody has had it in use for {TABLE_LOCK_SECONDS} seconds: "
            "let the runs end, then run `batch-assets init-db` again, which goes on where this one stopped."
        ) from error
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql("SET SESSION lock_wait_timeout = DEFAULT")
