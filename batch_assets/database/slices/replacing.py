"""Writing a slice of a table: replacing its rows."""

from contextlib import closing
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import writing
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.conditions import partition_columns, slice_condition
from batch_assets.database.slices.reading import count_rows
from batch_assets.database.slices.reflection import reflect
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.values import stored_values
from batch_assets.errors import DatabaseUnavailableError, DuplicateKeyError, TableError
from batch_assets.wording import counted

_WITHOUT_TRANSACTIONS = {"MyISAM", "MRG_MyISAM", "Aria", "MEMORY", "CSV", "ARCHIVE", "BLACKHOLE"}


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
    # Without locks on gaps: a DELETE that finds nothing would lock the one in which its rows would lie, up to the next
    # row that there is, and two runs that each store an hour of their own for the first time would end in a deadlock.
    # What the gaps would protect from are rows of others in the same slice: a key refuses them, or `_check_all_inside`.
    deleted = stored = 0
    try:
        with writing(engine) as connection, closing(iter(batches)) as source:
            table = reflect(connection, table_slice)
            _check_transactional(table)
            condition = slice_condition(table, table_slice)
            deleted = connection.execute(sa.delete(table).where(condition)).rowcount
            for batch in source:
                _insert(connection, table, batch)
                if batches.in_transaction:
                    batches.in_transaction(connection, batch)
                stored += len(batch)
            _check_all_inside(connection, table, table_slice, stored)
    except DuplicateKeyError as error:
        # Two of the new rows have one key, or somebody has stored rows since the old ones were deleted.
        others = count_rows(engine, [table_slice])[0] - deleted
        if others:
            raise _somebody_else_wrote(table_slice, others) from error
        raise
    return stored


def _somebody_else_wrote(table_slice: TableSlice, rows: int) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"Somebody else wrote {counted(rows, 'row')} to the partition that is being stored in {table_slice}: "
        "nothing was stored, the old rows stay. The same run may succeed when the other one is done."
    )


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
    inside_slice = sa.select(sa.func.count()).select_from(table).where(slice_condition(table, table_slice))
    inside = connection.execute(inside_slice.with_for_update(read=True)).scalar_one()
    if inside < stored:
        raise TableError(
            f"{stored - inside} of {stored} rows do not belong to the partition that is being stored in "
            f"{table_slice} ({partition_columns(table_slice)}): nothing was stored, the old rows stay."
        )
    if inside > stored:
        raise _somebody_else_wrote(table_slice, inside - stored)


def _check_transactional(table: sa.Table) -> None:
    kind = table.kwargs.get("mysql_engine") or table.kwargs.get("mariadb_engine")
    if kind in _WITHOUT_TRANSACTIONS:
        raise TableError(
            f"The table {table.fullname} is kept by {kind}, which has no transactions, so that its rows cannot be "
            f"replaced at once: ALTER TABLE {table.fullname} ENGINE=InnoDB."
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
