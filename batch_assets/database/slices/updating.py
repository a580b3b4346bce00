"""Updating columns of existing rows of a slice."""

import pickle
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from tempfile import TemporaryFile
from types import NoneType
from typing import Any, NamedTuple

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot, writing
from batch_assets.database.connection.statements import batch_table, checksum_sql, checksums, statement_rows
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.conditions import slice_condition
from batch_assets.database.slices.packed_update import PackedUpdate, are_close_together
from batch_assets.database.slices.reflection import known_columns, reflect
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.values import stored_values
from batch_assets.errors import TableError

_CHECKSUM_DIGITS = 10

_Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True)
class ColumnUpdate:
    """ItemFilter columns of existing rows are to be updated.

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
    target = _Target(engine, table, update, _condition(engine, table, table_slice))
    with closing(_prepared_batches(target, batches)) as source:
        write = _write_at_once if batches.at_once else _write_one_by_one
        return write(engine, batches, source)


@dataclass(frozen=True)
class _Target:
    """What is to be updated, and the condition in SQL that a row belongs to the slice."""

    engine: sa.Engine
    table: sa.Table
    update: ColumnUpdate
    condition: str

    @property
    def name(self) -> str:
        return self.engine.dialect.identifier_preparer.format_table(self.table)

    def column(self, name: str) -> str:
        return f"{self.name}.{self.engine.dialect.identifier_preparer.quote(name)}"

    def checksum(self, name: str) -> str:
        return checksum_sql(self.engine, self.column(name))


class PreparedBatch(NamedTuple):
    """A batch, the statements that write it, and the seconds that it took to make them."""

    batch: Batch
    statements: list[_Statement]
    seconds: float


def _prepared_batches(target: _Target, batches: Batches) -> Generator[PreparedBatch]:
    update = target.update
    wanted = (update.key, *update.columns, *update.unchanged)
    with closing(iter(batches)) as source:
        for batch in source:
            start = time.perf_counter()
            _known_columns_of_batch(target.table, batch.columns, wanted)
            statements = _statements(target, batch)
            yield PreparedBatch(batch, statements, time.perf_counter() - start)


def _write_one_by_one(engine: sa.Engine, batches: Batches, source: Iterator[PreparedBatch]) -> Updated:
    def write_batch(made: PreparedBatch) -> Updated:
        start = time.perf_counter()
        with writing(engine) as connection:
            updated = _write_batch(connection, batches, made)
        return replace(updated, write_seconds=time.perf_counter() - start)

    done = Updated()
    written: deque[Future[Updated]] = deque()
    # One connection writes: two took a core more from the others on the server, and were hardly faster, see
    # docs/explanation/facts.md. A second batch waits in line, so that it need not wait for one.
    with ThreadPoolExecutor(1, "writer") as executor:
        for made in source:
            while len(written) > 1:
                done += _result(executor, written.popleft())
            # Here, where somebody who ends the run ends the wait too.
            if batches.before_write:
                batches.before_write(len(made.batch))
            written.append(executor.submit(write_batch, made))
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
        for made in source:
            pickle.dump(tuple(made), file)
            count, rows = count + 1, rows + len(made.batch)
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


def _write_batch(connection: sa.Connection, batches: Batches, made: PreparedBatch) -> Updated:
    rows = sum(connection.exec_driver_sql(*statement).rowcount for statement in made.statements)
    if batches.in_transaction:
        batches.in_transaction(connection, made.batch)
    return Updated(rows, len(made.batch) - rows, encode_seconds=made.seconds)


def _statements(target: _Target, batch: Batch) -> list[_Statement]:
    table, update = target.table, target.update
    columns = [stored_values(table.columns[name], batch.column(name)) for name in (update.key, *update.columns)]
    columns += [checksums(batch.column(name)) for name in update.unchanged]
    rows = list(zip(*columns, strict=True))
    if _is_number(target):
        rows.sort(key=itemgetter(0))
    parts = statement_rows(target.engine, rows)
    return [_packed_update(target, part) or _joined_update(target, part) for part in parts]


def _is_number(target: _Target) -> bool:
    """Whether rows are found by a whole number that is their primary key, on a server."""
    column = target.table.columns[target.update.key]
    return (
        target.table.info["dialect"] != "sqlite"
        and isinstance(column.type, sa.Integer)
        and list(target.table.primary_key.columns) == [column]
    )


def _packed_update(target: _Target, rows: Sequence[Sequence[Any]]) -> _Statement | None:
    """Returns the statement that has the server cut the values of each row from a literal, if it can."""
    update = target.update
    keys, *others = ([row[column] for row in rows] for column in range(len(rows[0])))
    values, old_checksums = others[: len(update.columns)], others[len(update.columns) :]
    texts_alone = set(map(type, chain.from_iterable(values))) <= {str, NoneType}
    if not (texts_alone and _is_number(target) and are_close_together(keys)):
        return None
    packed = PackedUpdate(keys, target.column(update.key))
    texts = [packed.texts(column) for column in values]
    sets = [f"{target.column(name)} = {text[0]}" for name, text in zip(update.columns, texts, strict=True) if text]
    if len(sets) < len(texts):
        return None
    conditions = [packed.is_key()] if packed.has_gaps else []
    for name, column in zip(update.unchanged, old_checksums, strict=True):
        old, parameter = packed.numbers(column, _CHECKSUM_DIGITS)
        conditions.append((f"COALESCE({target.checksum(name)}, {10**_CHECKSUM_DIGITS - 1}) = {old}", parameter))
    between = f"{target.column(update.key)} BETWEEN {packed.first} AND {packed.last}"
    where = " AND ".join([between, *(condition for condition, _ in conditions), f"({target.condition})"])
    parameters = (*(text[1] for text in texts if text), *(parameter for _, parameter in conditions))
    return f"UPDATE {target.name} FORCE INDEX (PRIMARY) SET {', '.join(sets)} WHERE {where}", parameters


def _joined_update(target: _Target, rows: Sequence[Sequence[Any]]) -> _Statement:
    """Returns the statement that joins the rows as a table: for values and keys of any kind."""
    update, sqlite = target.update, target.engine.dialect.name == "sqlite"
    quote = target.engine.dialect.identifier_preparer.quote
    names = ["row_key", *(f"new_{i}" for i, _ in enumerate(update.columns))]
    names += [f"old_{i}" for i, _ in enumerate(update.unchanged)]
    batch, parameters = batch_table(target.engine, names, rows)
    # SQLite does not take the table's name in front of a column that is set.
    target_of = quote if sqlite else target.column
    same = "IS" if sqlite else "<=>"
    sets = ", ".join(f"{target_of(column)} = batch.new_{i}" for i, column in enumerate(update.columns))
    conditions = [f"{target.column(update.key)} = {_key_in_batch(target)}"]
    conditions += [f"{target.checksum(column)} {same} batch.old_{i}" for i, column in enumerate(update.unchanged)]
    where = " AND ".join([*conditions, f"({target.condition})"])
    if sqlite:
        return f"UPDATE {target.name} SET {sets} FROM {batch} WHERE {where}", parameters
    return f"UPDATE {batch} STRAIGHT_JOIN {target.name} SET {sets} WHERE {where}", parameters


def _condition(engine: sa.Engine, table: sa.Table, table_slice: TableSlice) -> str:
    options = {"literal_binds": True, "include_table": True}
    return str(slice_condition(table, table_slice).compile(dialect=engine.dialect, compile_kwargs=options))


def _key_in_batch(target: _Target) -> str:
    """Returns the key of the rows to update, such that the server finds them by the index of the column."""
    kind = target.table.columns[target.update.key].type
    collation = target.table.info["collations"].get(target.update.key)
    if collation:
        return f"CONVERT(batch.row_key USING {collation.partition('_')[0]}) COLLATE {collation}"
    if target.table.info["dialect"] != "sqlite" and isinstance(kind, (sa.DateTime, sa.Date)):
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
