"""Updating columns of existing rows of a slice."""

import pickle
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from tempfile import TemporaryFile

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot, writing
from batch_assets.database.connection.json_lists import ListColumn
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.conditions import slice_condition
from batch_assets.database.slices.reflection import known_columns, reflect
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.update_statements import ColumnUpdate, PreparedBatch, Target, prepared_batches
from batch_assets.errors import TableError


@dataclass(frozen=True)
class Updated:
    """What an update did: rows updated, rows skipped since they were gone or changed, and seconds.

    Those of `encode_seconds` went into making statements; for those of `write_seconds` the server was at work.
    """

    rows: int = 0
    skipped: int = 0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0

    def __add__(self, other: "Updated") -> "Updated":
        return Updated(
            self.rows + other.rows,
            self.skipped + other.skipped,
            self.encode_seconds + other.encode_seconds,
            self.write_seconds + other.write_seconds,
        )


def update_rows(engine: sa.Engine, table_slice: TableSlice, update: ColumnUpdate, batches: Batches) -> Updated:
    """Updates columns of existing rows of a slice: a transaction for each batch, or one for all.

    Batch by batch, the next ones are made while the server works on the last. At once, all of them are made first
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
    target = Target(engine, table, update, _condition(engine, table, table_slice))
    with closing(prepared_batches(target, batches)) as source:
        write = _write_at_once if batches.at_once else _write_one_by_one
        return write(engine, batches, source)


def _write_one_by_one(engine: sa.Engine, batches: Batches, source: Iterator[PreparedBatch]) -> Updated:
    def write_batch(prepared: PreparedBatch) -> Updated:
        start = time.perf_counter()
        try:
            with writing(engine) as connection:
                updated = _write_batch(connection, batches, prepared)
        finally:
            seconds = time.perf_counter() - start
            if batches.after_write:
                batches.after_write(seconds)
        return replace(updated, write_seconds=seconds)

    done = Updated()
    written: deque[Future[Updated]] = deque()
    # One connection writes: two took a core more from the others on the server, and were hardly faster, see
    # docs/explanation/facts.md. A second batch waits in line, so that it need not wait for one.
    with ThreadPoolExecutor(1, "writer") as executor:
        for prepared in source:
            while len(written) > 1:
                done += _result(executor, written.popleft())
            # Here, where somebody who ends the run ends the wait too.
            if batches.before_write:
                batches.before_write(len(prepared.batch))
            written.append(executor.submit(write_batch, prepared))
        for future in written:
            done += _result(executor, future)
    return done


def _result(executor: ThreadPoolExecutor, future: Future[Updated]) -> Updated:
    try:
        return future.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise


def _write_at_once(engine: sa.Engine, batches: Batches, source: Iterator[PreparedBatch]) -> Updated:
    with TemporaryFile() as file:
        count = rows = 0
        for prepared in source:
            pickle.dump(tuple(prepared), file)
            count, rows = count + 1, rows + len(prepared.batch)
        file.seek(0)
        if batches.before_write:
            batches.before_write(rows)
        start = time.perf_counter()
        done = Updated()
        with writing(engine) as connection:
            for _ in range(count):
                # What this process has just written itself.
                done += _write_batch(connection, batches, PreparedBatch(*pickle.load(file)))  # noqa: S301
    return replace(done, write_seconds=time.perf_counter() - start)


def _write_batch(connection: sa.Connection, batches: Batches, prepared: PreparedBatch) -> Updated:
    rows = sum(connection.exec_driver_sql(*statement).rowcount for statement in prepared.statements)
    if batches.in_transaction:
        batches.in_transaction(connection, prepared.batch)
    return Updated(rows, len(prepared.batch) - rows, encode_seconds=prepared.seconds)


def _condition(engine: sa.Engine, table: sa.Table, table_slice: TableSlice) -> str:
    options = {"literal_binds": True, "include_table": True}
    return str(slice_condition(table, table_slice).compile(dialect=engine.dialect, compile_kwargs=options))


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
    other = [
        name
        for name in update.unchanged
        if not isinstance(table.columns[name], ListColumn) and not isinstance(table.columns[name].type, sa.String)
    ]
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
