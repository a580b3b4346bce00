"""Writing a slice of a table: replacing its rows, or updating columns of them."""

import pickle
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import sqlalchemy as sa

from batch_assets.database.batches import Batch, Batches
from batch_assets.database.engine import snapshot
from batch_assets.database.slices import TableSlice, known_columns, partition_columns, reflect, slice_condition
from batch_assets.database.statements import batch_table, checksum, checksum_sql, statement_rows
from batch_assets.database.values import stored_values
from batch_assets.errors import DatabaseUnavailableError, TableError

_WITHOUT_TRANSACTIONS = {"MyISAM", "MRG_MyISAM", "Aria", "MEMORY", "CSV", "ARCHIVE", "BLACKHOLE"}


@dataclass(frozen=True)
class ColumnUpdate:
    """Which columns of existing rows are to be updated.

    Args:
        key: The column by which a row is found.
        columns: The columns that are set.
        unchanged: Columns of text or JSON that must still be as the batch has them: a row that somebody has
            changed meanwhile is left as it is.
    """

    key: str
    columns: tuple[str, ...]
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Updated:
    """What an update did: rows updated, rows left since they were gone or changed, seconds at the server."""

    rows: int
    left: int
    seconds: float


def replace_slice(engine: sa.Engine, table_slice: TableSlice, batches: Batches) -> int:
    """Puts rows in the place of those of a slice, in one transaction: readers see the old ones or the new ones.

    Args:
        engine: The database.
        table_slice: Whose rows are replaced.
        batches: The new rows; their columns are matched by name.

    Returns:
        The number of new rows.

    Raises:
        TableError: A column is missing or unknown, or a row does not belong to the slice. The old rows stay.
        DatabaseError: The database refused a row. The old rows stay.
        DatabaseUnavailableError: Somebody else wrote to the slice at the same time. The old rows stay.
    """
    with _replacing(engine) as connection, closing(iter(batches)) as source:
        table = reflect(connection, table_slice)
        _check_transactional(table)
        condition = slice_condition(table, table_slice)
        connection.execute(sa.delete(table).where(condition))
        stored = 0
        for batch in source:
            _insert(connection, table, batch)
            if batches.in_transaction:
                batches.in_transaction(connection, batch)
            stored += len(batch)
        _check_all_inside(connection, table, table_slice, stored)
    return stored


@contextmanager
def _replacing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begins a transaction that locks the rows it writes and no gaps between them.

    A DELETE that finds nothing locks the gap in which its rows would lie, with REPEATABLE READ up to the next
    row that there is: two runs that each store an hour of their own for the first time would end in a deadlock.
    What the gaps would protect from, rows of others in the same slice, `_check_all_inside` finds.
    """
    with engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            yield connection


def _insert(connection: sa.Connection, table: sa.Table, batch: Batch) -> None:
    _check_columns(table, batch)
    if not batch.rows:
        return
    preparer, sqlite = connection.dialect.identifier_preparer, connection.dialect.name == "sqlite"
    names = ", ".join(preparer.quote(name) for name in batch.columns)
    marks = ", ".join("?" if sqlite else "%s" for _ in batch.columns)
    values = [stored_values(table.columns[name], batch.column(name)) for name in batch.columns]
    connection.exec_driver_sql(
        f"INSERT INTO {preparer.format_table(table)} ({names}) VALUES ({marks})", list(zip(*values, strict=True))
    )


def _check_all_inside(connection: sa.Connection, table: sa.Table, table_slice: TableSlice, stored: int) -> None:
    """Has the server count, whatever the expression and the types are.

    A row outside of its slice would never be replaced by the next run, but stored a second time. The count
    waits for whoever is writing to the slice too; if that one waits for us, the server ends one of both.
    """
    counted = sa.select(sa.func.count()).select_from(table).where(slice_condition(table, table_slice))
    inside = connection.execute(counted.with_for_update(read=True)).scalar_one()
    if inside < stored:
        raise TableError(
            f"{stored - inside} of {stored} rows do not belong to the partition that is being stored in "
            f"{table_slice} ({partition_columns(table_slice)}): nothing was stored, the old rows stay."
        )
    if inside > stored:
        raise DatabaseUnavailableError(
            f"Somebody else wrote {inside - stored} rows to the partition that is being stored in {table_slice}: "
            "nothing was stored, the old rows stay. The same run may succeed when the other one is done."
        )


def _check_transactional(table: sa.Table) -> None:
    kind = table.kwargs.get("mysql_engine") or table.kwargs.get("mariadb_engine")
    if kind in _WITHOUT_TRANSACTIONS:
        raise TableError(
            f"The table {table.fullname} is kept by {kind}, which has no transactions, so that its rows cannot be "
            f"replaced at once: ALTER TABLE {table.fullname} ENGINE=InnoDB."
        )


def update_rows(engine: sa.Engine, table_slice: TableSlice, update: ColumnUpdate, batches: Batches) -> Updated:
    """Updates columns of existing rows of a slice: a transaction for each batch, or one for all.

    Batch by batch, the next one is made while the server works on the last one. At once, all of them are made first
    and wait in a file, so that the transaction, and with it the locks on the rows, lasts as long as the server needs
    for the update alone.

    Args:
        engine: The database.
        table_slice: Only its rows are updated.
        update: By which column rows are found and which columns are set.
        batches: The rows with the key, the columns to set and those that must be unchanged.

    Returns:
        What was done.

    Raises:
        TableError: A column is missing, or the key is not unique.
        DatabaseError: The database refused a value. Batches before this one stay written; at once, none is.
    """
    with snapshot(engine) as connection:
        table = reflect(connection, table_slice)
        table.info["collations"] = _collations(connection, table)
    _check_update(table, update)
    write = partial(_write_batch, table, table_slice, update, batches.in_transaction)
    with closing(_known_batches(table, update, batches)) as source:
        done = _write_at_once(engine, write, source) if batches.at_once else _write_one_by_one(engine, write, source)
    return Updated(
        sum(batch.rows for batch in done), sum(batch.left for batch in done), sum(batch.seconds for batch in done)
    )


_Write = Callable[[sa.Connection, Batch], Updated]


def _known_batches(table: sa.Table, update: ColumnUpdate, batches: Batches) -> Generator[Batch]:
    wanted = (update.key, *update.columns, *update.unchanged)
    with closing(iter(batches)) as source:
        for batch in source:
            _known_columns_of_batch(table, batch.columns, wanted)
            yield batch


def _write_one_by_one(engine: sa.Engine, write: _Write, source: Iterable[Batch]) -> list[Updated]:
    def write_batch(batch: Batch) -> Updated:
        start = time.perf_counter()
        with engine.begin() as connection:
            updated = write(connection, batch)
        return replace(updated, seconds=time.perf_counter() - start)

    done: list[Updated] = []
    with ThreadPoolExecutor(1, "writer") as writer:
        written: Future[Updated] | None = None
        for batch in source:
            if written:
                done.append(written.result())
            written = writer.submit(write_batch, batch)
        if written:
            done.append(written.result())
    return done


def _write_at_once(engine: sa.Engine, write: _Write, source: Iterable[Batch]) -> list[Updated]:
    with TemporaryFile() as file:
        count = 0
        for count, batch in enumerate(source, 1):  # noqa: B007 - is what there is to read again
            pickle.dump(batch, file)
        file.seek(0)
        start = time.perf_counter()
        with engine.begin() as connection:
            # What this process has just written itself.
            done = [write(connection, pickle.load(file)) for _ in range(count)]  # noqa: S301
    return [*done, Updated(0, 0, time.perf_counter() - start)]


def _write_batch(  # noqa: PLR0913, PLR0917 - what does not change from batch to batch is bound once
    table: sa.Table,
    table_slice: TableSlice,
    update: ColumnUpdate,
    in_transaction: Callable[[sa.Connection, Batch], None] | None,
    connection: sa.Connection,
    batch: Batch,
) -> Updated:
    updated = 0
    rows = _rows_to_send(connection, table, update, batch)
    for part in statement_rows(connection, rows):
        statement, parameters = _update_statement(connection, table, table_slice, update, part)
        updated += connection.exec_driver_sql(statement, parameters).rowcount
    if in_transaction:
        in_transaction(connection, batch)
    return Updated(updated, len(rows) - updated, 0.0)


def _rows_to_send(
    connection: sa.Connection, table: sa.Table, update: ColumnUpdate, batch: Batch
) -> list[tuple[Any, ...]]:
    columns = [stored_values(table.columns[name], batch.column(name)) for name in (update.key, *update.columns)]
    columns += [list(map(checksum, batch.column(name))) for name in update.unchanged]
    return list(zip(*columns, strict=True))


def _update_statement(
    connection: sa.Connection,
    table: sa.Table,
    table_slice: TableSlice,
    update: ColumnUpdate,
    rows: Sequence[Sequence[Any]],
) -> tuple[str, tuple[Any, ...]]:
    preparer = connection.dialect.identifier_preparer
    name, quote = preparer.format_table(table), preparer.quote
    names = ["row_key", *(f"new_{i}" for i, _ in enumerate(update.columns))]
    names += [f"old_{i}" for i, _ in enumerate(update.unchanged)]
    batch, parameters = batch_table(connection, names, rows)
    sqlite = connection.dialect.name == "sqlite"
    # SQLite does not take the table's name in front of a column that is set.
    target, same = ("", "IS") if sqlite else (f"{name}.", "<=>")
    sets = ", ".join(f"{target}{quote(column)} = batch.new_{i}" for i, column in enumerate(update.columns))
    conditions = [f"{name}.{quote(update.key)} = {_key_in_batch(table, update)}"]
    conditions += [
        f"{checksum_sql(connection, f'{name}.{quote(column)}')} {same} batch.old_{i}"
        for i, column in enumerate(update.unchanged)
    ]
    condition = slice_condition(table, table_slice).compile(
        dialect=connection.dialect, compile_kwargs={"literal_binds": True, "include_table": True}
    )
    where = " AND ".join([*conditions, f"({condition})"])
    if sqlite:
        return f"UPDATE {name} SET {sets} FROM {batch} WHERE {where}", parameters
    return f"UPDATE {batch} STRAIGHT_JOIN {name} SET {sets} WHERE {where}", parameters


def _key_in_batch(table: sa.Table, update: ColumnUpdate) -> str:
    """Returns the key of the rows to update, such that the server finds them by the index of the column."""
    kind = table.columns[update.key].type
    collation = table.info.get("collations", {}).get(update.key)
    if collation:
        return f"CONVERT(batch.row_key USING {collation.partition('_')[0]}) COLLATE {collation}"
    if table.info["dialect"] != "sqlite" and isinstance(kind, (sa.DateTime, sa.Date)):
        return f"CAST(batch.row_key AS {'DATETIME(6)' if isinstance(kind, sa.DateTime) else 'DATE'})"
    return "batch.row_key"


def _check_update(table: sa.Table, update: ColumnUpdate) -> None:
    known_columns(table, (update.key, *update.columns, *update.unchanged))
    unique = {tuple(column.name for column in table.primary_key)}
    unique |= {tuple(index.columns.keys()) for index in table.indexes if index.unique}
    unique |= {
        tuple(constraint.columns.keys())
        for constraint in table.constraints
        if isinstance(constraint, sa.UniqueConstraint)
    }
    if (update.key,) not in unique:
        raise TableError(
            f"The column {update.key} of {table.fullname} is no key: rows to update must be found by the primary key "
            'or a column with a unique index. Name one as "key" in the asset\'s metadata, or add the index.'
        )
    other = [name for name in update.unchanged if not isinstance(table.columns[name].type, sa.String)]
    if other:
        raise TableError(
            f"unchanged_columns names {', '.join(other)} of {table.fullname}, which is neither text nor JSON: leave "
            "it out."
        )


def _collations(connection: sa.Connection, table: sa.Table) -> dict[str, str]:
    """Returns the collation of each text: the server does not compare texts of two, as rows in a statement are."""
    if connection.dialect.name == "sqlite":
        return {}
    statement = sa.text(
        "SELECT column_name, collation_name FROM information_schema.columns WHERE table_name = :table "
        f"AND table_schema = {':schema' if table.schema else 'DATABASE()'} AND collation_name IS NOT NULL"
    )
    names = {"table": table.name} | ({"schema": table.schema} if table.schema else {})
    return {row[0]: row[1] for row in connection.execute(statement, names)}


def _known_columns_of_batch(table: sa.Table, names: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise TableError(
            f"The rows for {table.fullname} have no column {', '.join(missing)}; they have {', '.join(names)}: "
            "nothing of them was stored."
        )


def _check_columns(table: sa.Table, batch: Batch) -> None:
    names = batch.columns
    if not names and not batch.rows:
        return
    unknown = [name for name in names if name not in table.columns]
    missing = [column.name for column in table.columns if column.name not in names and not _filled_by_database(column)]
    if unknown or missing:
        faults = [f"{name} is not a column of the table" for name in unknown]
        faults += [f"{name} is missing in the rows" for name in missing]
        raise TableError(
            f"The columns do not fit the table {table.fullname}: {'; '.join(faults)}. Nothing was stored, the old "
            "rows stay: rename, add or drop the columns."
        )


def _filled_by_database(column: sa.Column[Any]) -> bool:
    default = column.server_default
    has_default = default is not None and str(getattr(default, "arg", "")).upper() != "NULL"
    numbered = column is column.table.autoincrement_column
    if column.table.info["dialect"] == "sqlite":  # which numbers rows by itself in a key of this type alone
        numbered = numbered and type(column.type) is sa.INTEGER
    return has_default or column.computed is not None or numbered
