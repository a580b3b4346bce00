"""Reading a slice of a table."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.connection.statements import BATCH_CHARACTERS, BATCH_ROWS, characters_of
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.conditions import slice_condition
from batch_assets.database.slices.packed_read import PackedReader, can_be_packed, key_range
from batch_assets.database.slices.reflection import reflect, selected_columns
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.settings.database import READER_PATIENCE_SECONDS

# What is fetched at once may be large without a warning: rows before it were small. So it is not much.
FETCH_ROWS = 500

_Fetch = Callable[[int], Sequence[Sequence[Any]]]


def read_batches(
    engine: sa.Engine, table_slice: TableSlice, batch_rows: int = BATCH_ROWS, first_batch_rows: int | None = None
) -> Iterator[Batch]:
    """Reads a slice in one pass, from one moment's view of it, with memory that does not grow with it.

    Args:
        engine: The database.
        table_slice: What to read.
        batch_rows: Rows of a batch at the most; fewer where they are large.
        first_batch_rows: Rows of the first batch, of which each further one has twice as many as the one before, up
            to `batch_rows`: whoever waits for a batch, to write it say, waits less. None: all have `batch_rows`.

    Yields:
        The batches; none for a slice without rows.

    Raises:
        TableError: The table or a column is missing.
    """
    connection = snapshot(engine)
    try:
        table = reflect(connection, table_slice)
        columns = selected_columns(table, table_slice)
        names, condition = tuple(column.name for column in columns), _condition(table, table_slice)
        # Without a name for the reader: what it has not read must be forgotten before the connection is.
        yield from _cut(names, _reader(connection, table, columns, condition), batch_rows, first_batch_rows)
    except BaseException:
        # The driver would read what is left of the rows before it gives the connection back.
        connection.invalidate()
        raise
    finally:
        connection.close()


def read_columns(engine: sa.Engine, table_slice: TableSlice) -> list[sa.Column[Any]]:
    """Returns the columns that reading the slice gives.

    Raises:
        TableError: The table or a column is missing.
    """
    with snapshot(engine) as connection:
        table = reflect(connection, table_slice)
    return selected_columns(table, table_slice)


def count_rows(engine: sa.Engine, slices: Sequence[TableSlice]) -> list[int]:
    """Counts the rows of slices of one table, all from one moment's view of it."""
    with snapshot(engine) as connection:
        table = reflect(connection, slices[0])
        counted = sa.select(sa.func.count()).select_from(table)
        return [connection.execute(counted.where(slice_condition(table, part))).scalar_one() for part in slices]


def _condition(table: sa.Table, table_slice: TableSlice) -> sa.ColumnElement[bool]:
    condition = slice_condition(table, table_slice)
    if table_slice.where:
        condition = sa.and_(condition, sa.literal_column(f"({table_slice.where})"))
    return condition


def _reader(
    connection: sa.Connection,
    table: sa.Table,
    columns: Sequence[sa.Column[Any]],
    condition: sa.ColumnElement[bool],
) -> _Fetch:
    """Returns what reads the next rows, as many as it is asked for at the most, and none after the last one."""
    if can_be_packed(table, columns):
        # Between two ranges of rows the connection waits for whatever is done with them.
        connection.exec_driver_sql(f"SET SESSION wait_timeout = {READER_PATIENCE_SECONDS}")
        keys = key_range(connection, table, condition)
        if keys:
            rows = iter(PackedReader(connection, table, columns, condition, keys))
            return lambda count: list(islice(rows, count))
    streaming = connection.execution_options(stream_results=True, max_row_buffer=1)
    return streaming.execute(sa.select(*columns).select_from(table).where(condition)).fetchmany


def _cut(names: tuple[str, ...], fetch_rows: _Fetch, batch_rows: int, first_rows: int | None) -> Iterator[Batch]:
    rows: list[Sequence[Any]] = []
    characters, fetch, most = 0, 1, min(batch_rows, first_rows or batch_rows)
    while part := fetch_rows(min(fetch, most - len(rows))):
        rows += part
        of_part = characters_of(part)
        characters += of_part
        fits = BATCH_CHARACTERS * len(part) // (4 * of_part + 1)
        fetch = max(1, min(FETCH_ROWS, 4 * fetch, fits))
        if len(rows) >= most or characters > BATCH_CHARACTERS:
            yield Batch(names, rows)
            rows, characters, most = [], 0, min(batch_rows, 2 * most)
    if rows:
        yield Batch(names, rows)
