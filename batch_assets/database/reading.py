"""Reading a slice of a table."""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.database.batches import Batch
from batch_assets.database.engine import snapshot
from batch_assets.database.slices import TableSlice, reflect, selected_columns, slice_condition
from batch_assets.database.statements import BATCH_CHARACTERS, BATCH_ROWS, characters_of

# What is fetched at once may be large without a warning: rows before it were small. So it is not much.
FETCH_ROWS = 500


def read_batches(engine: sa.Engine, table_slice: TableSlice, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Reads a slice in one pass, from one moment's view of it, with memory that does not grow with it.

    Args:
        engine: The database.
        table_slice: What to read.
        batch_rows: Rows of a batch at the most; fewer where they are large.

    Yields:
        The batches; none for a slice without rows.

    Raises:
        TableError: The table or a column is missing.
    """
    connection = snapshot(engine).execution_options(stream_results=True, max_row_buffer=1)
    try:
        statement = _selection(reflect(connection, table_slice), table_slice)
        yield from _cut(connection.execute(statement), batch_rows)
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


def _selection(table: sa.Table, table_slice: TableSlice) -> sa.Select[Any]:
    selection = sa.select(*selected_columns(table, table_slice)).where(slice_condition(table, table_slice))
    if table_slice.where:
        selection = selection.where(sa.literal_column(f"({table_slice.where})"))
    return selection


def _cut(result: sa.CursorResult[Any], batch_rows: int) -> Iterator[Batch]:
    names = tuple(result.keys())
    rows: list[sa.Row[Any]] = []
    characters, fetch = 0, 1
    while part := result.fetchmany(min(fetch, batch_rows - len(rows))):
        rows += part
        of_part = characters_of(part)
        characters += of_part
        fits = BATCH_CHARACTERS * len(part) // (4 * of_part + 1)
        fetch = max(1, min(FETCH_ROWS, 4 * fetch, fits))
        if len(rows) >= batch_rows or characters > BATCH_CHARACTERS:
            yield Batch(names, rows)
            rows, characters = [], 0
    if rows:
        yield Batch(names, rows)
