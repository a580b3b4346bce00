"""Slices in SQL: which rows belong to one."""

import datetime
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batch_assets.database.slices.table_slice import AnyOf, Keys, Partition, TableSlice, expressions
from batch_assets.errors import TableError


def slice_condition(table: sa.Table, table_slice: TableSlice) -> sa.ColumnElement[bool]:
    """Returns the condition that a row of the table belongs to the slice.

    Raises:
        TableError: A column cannot hold what the partitions are.
    """
    return _all_of(table, table_slice.partitions)


def partition_columns(table_slice: TableSlice) -> str:
    """Returns the columns or expressions by which the rows of the slice are found."""
    return ", ".join(expressions(table_slice.partitions))


def _all_of(table: sa.Table, partitions: Iterable[Partition]) -> sa.ColumnElement[bool]:
    return sa.and_(sa.true(), *(_partition_condition(table, partition) for partition in partitions))


def _partition_condition(table: sa.Table, partition: Partition) -> sa.ColumnElement[bool]:
    if isinstance(partition, AnyOf):
        return sa.or_(sa.false(), *(_all_of(table, alternative) for alternative in partition.alternatives))
    if isinstance(partition, Keys):
        return _key_condition(table, partition)
    column = _column(table, partition.expression)
    kind = sa.DateTime() if column is None else column.type
    if not isinstance(kind, (sa.DateTime, sa.Date, sa.String)):
        raise TableError(
            f"The column {partition.expression} of {table.fullname} is {kind}, which no time window can be compared "
            "with: name a DATETIME, TIMESTAMP or DATE column in partition_expr, or an SQL expression that gives one."
        )
    moment: sa.ColumnElement[Any] = sa.literal_column(f"({partition.expression})") if column is None else column
    if column is None and _is_sqlite(table):
        moment = sa.func.datetime(moment)  # a day alone would come before its first moment, as a text
    return sa.or_(
        sa.false(),
        *(sa.and_(moment >= _bound(start, kind), moment < _bound(end, kind)) for start, end in partition.windows),
    )


def _key_condition(table: sa.Table, partition: Keys) -> sa.ColumnElement[bool]:
    if not partition.keys:
        return sa.false()
    column = _column(table, partition.expression)
    value: sa.ColumnElement[Any] = sa.literal_column(f"({partition.expression})") if column is None else column
    keys = [sa.literal(key, sa.String) for key in partition.keys]
    if _is_sqlite(table) or not (column is None or isinstance(column.type, sa.String)):
        return value.in_(keys)
    # By default MySQL takes A for a, and é for e: the partition of one would replace the rows of the other.
    exact = sa.func.hex(sa.cast(value, mysql.CHAR(charset="utf8mb4")))
    return sa.and_(value.in_(keys), exact.in_([key.encode().hex().upper() for key in partition.keys]))


def _is_sqlite(table: sa.Table) -> bool:
    return bool(table.info["dialect"] == "sqlite")


def _column(table: sa.Table, expression: str) -> sa.Column[Any] | None:
    return table.columns.get(expression)


def _bound(moment: datetime.datetime, kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Returns a window's bound: the day in the partition's own zone for a DATE, else the time in UTC.

    As text without fractions of a second: SQLite compares texts, and "05:00:00" comes before "05:00:00.000000".
    """
    if isinstance(kind, sa.Date):
        return sa.literal(moment.date().isoformat(), sa.String)
    return sa.literal(moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S"), sa.String)
