"""The statements that update columns of existing rows."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Any, NamedTuple

import sqlalchemy as sa

from batch_assets.database.connection.statements import batch_table, checksums, column_checksum_sql, statement_rows
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.packed_update import PackedUpdate, are_close_together
from batch_assets.database.slices.values import stored_values
from batch_assets.errors import TableError

_CHECKSUM_DIGITS = 10

Statement = tuple[str, tuple[Any, ...]]


def _known_columns_of_batch(table: sa.Table, names: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise TableError(
            f"The rows for {table.fullname} have no column {', '.join(missing)}; they have {', '.join(names)}: "
            "nothing of them was stored."
        )


@dataclass(frozen=True)
class ColumnUpdate:
    """Which columns of existing rows are to be updated.

    Args:
        key: The column by which a row is found.
        columns: The columns that are set.
        unchanged: Columns of text or JSON, or lists of columns, that must still be as the batch has them: a row that
            somebody has changed meanwhile is left as it is.
    """

    key: str
    columns: tuple[str, ...]
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What is to be updated, and the condition in SQL that a row belongs to the slice."""

    engine: sa.Engine
    table: sa.Table
    update: ColumnUpdate
    condition: str

    @property
    def name(self) -> str:
        """The table in SQL."""
        return self.engine.dialect.identifier_preparer.format_table(self.table)

    def column(self, name: str) -> str:
        """Returns a column of the table in SQL."""
        return f"{self.name}.{self.engine.dialect.identifier_preparer.quote(name)}"

    def checksum(self, name: str) -> str:
        """Returns the checksum of a column in SQL."""
        return column_checksum_sql(self.engine, self.table.columns[name])


class PreparedBatch(NamedTuple):
    """A batch, the statements that write it, and the seconds that it took to make them."""

    batch: Batch
    statements: list[Statement]
    seconds: float


def prepared_batches(target: Target, batches: Batches) -> Generator[PreparedBatch]:
    """Yields each batch with the statements that write it.

    Raises:
        TableError: A batch lacks a column that is needed, or has another one.
    """
    update = target.update
    wanted = (update.key, *update.columns, *update.unchanged)
    with closing(iter(batches)) as source:
        for batch in source:
            start = time.perf_counter()
            _known_columns_of_batch(target.table, batch.columns, wanted)
            statements = _statements(target, batch)
            yield PreparedBatch(batch, statements, time.perf_counter() - start)


def _statements(target: Target, batch: Batch) -> list[Statement]:
    table, update = target.table, target.update
    columns = [stored_values(table.columns[name], batch.column(name)) for name in (update.key, *update.columns)]
    columns += [checksums(batch.column(name)) for name in update.unchanged]
    rows = list(zip(*columns, strict=True))
    if _is_number(target):
        rows.sort(key=itemgetter(0))
    parts = statement_rows(target.engine, rows)
    return [_packed_update(target, part) or _joined_update(target, part) for part in parts]


def _is_number(target: Target) -> bool:
    """Whether rows are found by a whole number that is their primary key, on a server."""
    column = target.table.columns[target.update.key]
    return (
        target.table.info["dialect"] != "sqlite"
        and isinstance(column.type, sa.Integer)
        and list(target.table.primary_key.columns) == [column]
    )


def _packed_update(target: Target, rows: Sequence[Sequence[Any]]) -> Statement | None:
    """Returns the statement that has the server cut the values of each row from a literal, if it can."""
    update = target.update
    keys, *others = ([row[column] for row in rows] for column in range(len(rows[0])))
    values, old_checksums = others[: len(update.columns)], others[len(update.columns) :]
    values = [
        _as_texts(target.table.columns[name], column) for name, column in zip(update.columns, values, strict=True)
    ]
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


def _as_texts(column: sa.Column[Any], values: list[Any]) -> list[Any]:
    """Writes the numbers of a DOUBLE as texts of all their digits, of which the server makes the same numbers."""
    if not isinstance(column.type, sa.Float) or not set(map(type, values)) <= {float, NoneType}:
        return values
    return [None if value is None else repr(value) for value in values]


def _joined_update(target: Target, rows: Sequence[Sequence[Any]]) -> Statement:
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


def _key_in_batch(target: Target) -> str:
    """Returns the key of the rows to update, such that the server finds them by the index of the column."""
    kind = target.table.columns[target.update.key].type
    collation = target.table.info["collations"].get(target.update.key)
    if collation:
        return f"CONVERT(batch.row_key USING {collation.partition('_')[0]}) COLLATE {collation}"
    if target.table.info["dialect"] != "sqlite" and isinstance(kind, (sa.DateTime, sa.Date)):
        return f"CAST(batch.row_key AS {'DATETIME(6)' if isinstance(kind, sa.DateTime) else 'DATE'})"
    return "batch.row_key"
