"""Items one by one, and in pages: what a web service does with its table."""

import datetime
import hashlib
import json
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

import pymysql
import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.connection.statements import statement_rows
from batch_assets.database.schema.pending import is_pending, is_predicted
from batch_assets.database.schema.tables import PipelineTables, registrations
from batch_assets.database.slices.reflection import known_columns, reflect
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.values import stored_values
from batch_assets.errors import DatabaseError, IdempotencyError, ItemRefusedError, TableError
from batch_assets.hours import utc_now
from batch_assets.pipeline import ItemTable

# What is wrong with the row, and not with the statement or with the server: NULL, a duplicate, out of range, cut off,
# without a default, no value of the type, too long, a foreign key, a trigger's own word, a CHECK (MySQL, MariaDB).
_REFUSALS = {1048, 1062, 1264, 1265, 1292, 1364, 1366, 1406, 1452, 1644, 3819, 4025}
_WITHOUT_DEFAULT = re.compile(r"Field '(.+)' doesn't have a default value|NOT NULL constraint failed: [^.]+\.(.+)")


class ItemFilter(StrEnum):
    """The items of which pages are read."""

    all = auto()
    predicted = auto()
    unpredicted = auto()


@dataclass(frozen=True)
class Position:
    """Where a page ends: at this item.

    Args:
        created: When it was created, in UTC without a zone.
        id: Its id.
    """

    created: datetime.datetime
    id: int


def read_page(
    engine: sa.Engine, items: sa.Table, which: ItemFilter, before: Position | None, count: int
) -> Sequence[sa.Row[Any]]:
    """Reads items, the newest first, at the cost of those that are read.

    Args:
        engine: The database.
        items: Their table.
        which: All of them, or those that have a prediction, or none.
        before: Older ones than this only; None for the newest.
        count: How many at the most.

    Returns:
        Rows with `id`, `values` as JSON text, `created_datetime` and, where the table has it, `updated_datetime`; then
        each column that is written once an item is scored, JSON as its text.
    """
    created = items.c.created_datetime
    # What was created at no time belongs to no hour, and on no page.
    page = _select_items(items).where(created.is_not(None)).order_by(created.desc(), items.c.id.desc()).limit(count)
    if before:
        # Two ranges of the index, which ends with the id: for a comparison of pairs MySQL would read it from its end.
        of_its_time = sa.and_(created == before.created, items.c.id < before.id)
        page = page.where(sa.or_(created < before.created, of_its_time))
    with snapshot(engine) as connection:
        if which is ItemFilter.predicted:
            page = page.where(is_predicted(connection, items))
        if which is ItemFilter.unpredicted:
            page = page.where(is_pending(connection, items))
        return connection.execute(page).all()


def read_item(engine: sa.Engine, items: sa.Table, item_id: int) -> sa.Row[Any] | None:
    """Returns the row of an item as `read_page` has it, None if there is none."""
    with snapshot(engine) as connection:
        return connection.execute(_select_items(items).where(items.c.id == item_id)).one_or_none()


def correct_item(
    engine: sa.Engine, items: sa.Table, item_id: int, values: Sequence[Any], columns_to_clear: Collection[str]
) -> sa.Row[Any] | None:
    """Gives an item other values and takes its prediction away, so that it is scored anew.

    Args:
        engine: The database.
        items: Their table.
        item_id: The item.
        values: What its columns get that are scored, in their order; JSON as its text.
        columns_to_clear: Those that a pipeline has written for the values as they were: they become NULL.

    Returns:
        Its row from now on as `read_page` has it, None if there is no such item.

    Raises:
        ItemRefusedError: The table does not take these values.
    """
    names: ItemTable = items.info["names"]
    with engine.begin() as connection, refusals(names):
        (stored,) = stored_rows(connection, names, [values])
        new = dict(zip(names.scored_columns, stored, strict=True)) | dict.fromkeys(columns_to_clear)
        table = sa.table(names.name, *map(sa.column, {names.key, *new}))
        connection.execute(sa.update(table).where(table.c[names.key] == item_id).values(new))
        return connection.execute(_select_items(items).where(items.c.id == item_id)).one_or_none()


def register_once(
    engine: sa.Engine, tables: PipelineTables, rows: Sequence[Sequence[Any]], key: str | None
) -> list[int]:
    """Registers items in one transaction, and no second time under the same key.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        rows: What the columns of each item get that are scored, in their order; JSON as its text.
        key: What a request that is repeated is known by; None for one that is not.

    Returns:
        Their ids, in the order of the rows; those of the first time, where the key is known.

    Raises:
        IdempotencyError: Other items were registered under the key.
        ItemRefusedError: The table does not take these items, or takes none without the service.
    """
    names: ItemTable = tables.items.info["names"]
    fingerprint = _digest("\n".join(json.dumps(row) if names.from_columns else row[0] for row in rows))
    while True:
        with engine.connect() as connection:
            known = connection.execute(_known(tables, key)).one_or_none() if key else None
            if known and known.fingerprint != fingerprint:
                raise IdempotencyError(
                    "Other items were registered under this idempotency key: send the same items again, or these under "
                    "a key of their own. Nothing was registered."
                )
            if known:
                ids: list[int] = json.loads(known.ids)
                return ids
            with refusals(names):
                ids = _insert(connection, tables.items, rows)
            # Where a request with the same key comes between, it has registered the items: these are taken back.
            if key is None or _keep(connection, tables, key, fingerprint, ids):
                connection.commit()
                return ids


def _select_items(items: sa.Table) -> sa.Select[Any]:
    names: ItemTable = items.info["names"]
    known = [items.c[key] for key in ("id", "values", "created_datetime", "updated_datetime") if key in items.c]
    # Under names of their own: a table may call its answer as another one calls its key.
    answers: list[sa.Label[Any]] = [
        sa.column(output.column).label(f"answer_{place}") for place, output in enumerate(names.outputs)
    ]
    return sa.select(*(column.label(column.key) for column in known), *answers)


def _known(tables: PipelineTables, key: str) -> sa.Select[str, str]:
    columns = registrations.c
    known = sa.and_(tables.has(registrations), columns.idempotency_key == _digest(key))
    return sa.select(columns.fingerprint, columns.ids).where(known)


def _insert(connection: sa.Connection, items: sa.Table, rows: Sequence[Sequence[Any]]) -> list[int]:
    """Inserts items and returns their ids, which one statement gives in their order."""
    names: ItemTable = items.info["names"]
    sqlite, quote = connection.dialect.name == "sqlite", connection.dialect.identifier_preparer.quote
    columns = ", ".join(map(quote, names.scored_columns))
    row = f"({', '.join('?' if sqlite else '%s' for _ in names.scored_columns)})"
    ids: list[int] = []
    for part in statement_rows(connection, stored_rows(connection, names, rows)):
        statement = f"INSERT INTO {quote(names.name)} ({columns}) VALUES {', '.join([row] * len(part))}"
        result = connection.exec_driver_sql(statement, tuple(value for values in part for value in values))
        if sqlite:  # which names the last one
            ids += range(result.lastrowid - len(part) + 1, result.lastrowid + 1)
            continue
        step = connection.exec_driver_sql("SELECT @@auto_increment_increment").scalar_one()
        ids += range(result.lastrowid, result.lastrowid + step * len(part), step)
    created = connection.execute(sa.select(items.c.created_datetime).where(items.c.id == ids[-1])).one_or_none()
    if created is None:
        raise _not_numbered(names)
    if created[0] is None:
        raise _without_default(names, names.created)
    return ids


def stored_rows(connection: sa.Connection, names: ItemTable, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """Returns rows as their columns hold them: a server would make another number of what they do not hold.

    Args:
        connection: The database.
        names: The table.
        rows: What the columns of each item get that are scored, in their order; JSON as its text.

    Raises:
        ItemRefusedError: A column does not hold a value.
    """
    if not names.from_columns:
        return rows
    table = reflect(connection, TableSlice(names.name))
    known_columns(table, names.scored_columns)
    columns = [table.columns[name] for name in names.scored_columns]
    try:
        given = [stored_values(column, values) for column, values in zip(columns, zip(*rows, strict=True), strict=True)]
    except TableError as error:
        raise ItemRefusedError(str(error)) from error
    return list(zip(*given, strict=True))


@contextmanager
def refusals(names: ItemTable) -> Iterator[None]:
    """Tells what a table does not take from what goes wrong with the database.

    Raises:
        ItemRefusedError: It is a value, or the lack of one.
    """
    try:
        yield
    except OverflowError as error:  # of SQLite's driver, before the database sees the number
        raise ItemRefusedError(
            f"The table {names.name} does not take a whole number of more than 64 bits: send what its columns hold. "
            "Nothing was stored."
        ) from error
    except DatabaseError as error:
        cause = error.__cause__
        number = cause.args[0] if isinstance(cause, pymysql.err.MySQLError) and cause.args else None
        if number not in _REFUSALS and not isinstance(cause, sqlite3.IntegrityError):
            raise
        reason = str(cause.args[-1]) if cause else ""
        without_default = _WITHOUT_DEFAULT.fullmatch(reason)
        column = without_default and (without_default[1] or without_default[2])
        if column and column not in names.scored_columns:
            raise _without_default(names, column) from error
        raise ItemRefusedError(
            f"The table {names.name} does not take what it was given ({reason}): send what its columns hold. Nothing "
            "was stored."
        ) from error


def check_numbered(connection: sa.Connection, items: sa.Table) -> None:
    """Raises where rows that were inserted have no key, which SQLite allows in one that is not INTEGER.

    Raises:
        ItemRefusedError: There is such a row.
    """
    without = sa.select(sa.literal(1)).select_from(items).where(items.c.id.is_(None)).limit(1)
    if connection.execute(without).first():
        raise _not_numbered(items.info["names"])


def _not_numbered(names: ItemTable) -> ItemRefusedError:
    return ItemRefusedError(
        f"The key {names.key} of {names.name} does not number rows by itself: make it AUTO_INCREMENT (on SQLite "
        "INTEGER PRIMARY KEY), or have the service insert the rows itself. Nothing was stored."
    )


def _without_default(names: ItemTable, column: str) -> ItemRefusedError:
    if column == names.key:
        return _not_numbered(names)
    return ItemRefusedError(
        f"The column {column} of {names.name} has no default value, and it is no feature, so that nobody but the "
        "service can tell what belongs there: have the service insert the rows itself, or give the column a default "
        "value. Nothing was stored."
    )


def _keep(connection: sa.Connection, tables: PipelineTables, key: str, fingerprint: str, ids: list[int]) -> bool:
    """Writes down what was registered under a key, and returns whether nobody else has done so."""
    ignore = "OR IGNORE" if connection.dialect.name == "sqlite" else "IGNORE"
    row = {
        "pipeline": tables.pipeline,
        "idempotency_key": _digest(key),
        "fingerprint": fingerprint,
        "ids": json.dumps(ids, separators=(",", ":")),
        "registered_at": utc_now().replace(microsecond=0),
    }
    return connection.execute(sa.insert(registrations).prefix_with(ignore).values(row)).rowcount == 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
