"""Slices of tables: what they are, and what they are in SQL."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.database.tables import SQLiteTime
from batch_assets.errors import TableError


@dataclass(frozen=True)
class TimeWindows:
    """A condition on a time: it lies in one of some half open windows.

    Args:
        expression: A column, or an SQL expression.
        windows: Start and end of each, with their zone.
    """

    expression: str
    windows: tuple[tuple[datetime.datetime, datetime.datetime], ...]


@dataclass(frozen=True)
class Keys:
    """A condition on a text: it is one of some keys.

    Args:
        expression: A column, or an SQL expression.
        keys: The keys.
    """

    expression: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class TableSlice:
    """The rows of a table that belong to some partitions.

    Args:
        table: Name of the table.
        schema: The database that holds it, None for the one of the connection.
        partitions: The conditions that all hold for a row of the slice; none for the whole table.
        columns: The columns to read, None for all.
        where: A further condition on the rows to read, in SQL.
    """

    table: str
    schema: str | None = None
    partitions: tuple[TimeWindows | Keys, ...] = ()
    columns: tuple[str, ...] | None = None
    where: str | None = None

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table


def reflect(connection: sa.Connection, table_slice: TableSlice) -> sa.Table:
    """Returns the table as the database has it.

    Raises:
        TableError: There is no such table.
    """
    if table_slice.schema and connection.dialect.name == "sqlite":
        raise TableError(
            f"{table_slice} names a schema, which SQLite does not have: set MYSQL_SERVER, or leave the schema out."
        )
    try:
        table = sa.Table(
            table_slice.table,
            sa.MetaData(),
            schema=table_slice.schema,
            autoload_with=connection,
            resolve_fks=False,
        )
    except sa.exc.NoSuchTableError:
        raise TableError(
            f"There is no table {table_slice} in {connection.engine.url.database!r}: run `batch-assets init-db` "
            "if it is one of this pipeline's, or declare the columns of your own asset in its metadata "
            "`dagster/column_schema`, of which the table is then created."
        ) from None
    for column in table.columns:
        if isinstance(column.type, sa.JSON):  # as its text, which is what MariaDB and SQLite have anyway
            column.type = sa.Text()
        if connection.dialect.name == "sqlite" and isinstance(column.type, sa.DateTime):
            column.type = SQLiteTime()  # type: ignore[no-untyped-call]
    return table


def create_table(
    engine: sa.Engine,
    table_slice: TableSlice,
    columns: Mapping[str, str],
    key: str | None,
) -> None:
    """Creates the table of a slice if it is not there, with an index on the columns that partition it.

    Args:
        engine: The database.
        table_slice: Names the table.
        columns: What follows each column's name in SQL, for example `BIGINT NOT NULL`.
        key: The column that is the primary key, None for none.
    """
    quote = engine.dialect.identifier_preparer.quote
    lines = [f"{quote(name)} {definition}" for name, definition in columns.items()]
    if key:
        lines.append(f"PRIMARY KEY ({quote(key)})")
    name = ".".join(quote(part) for part in (table_slice.schema, table_slice.table) if part)
    with engine.begin() as connection:
        if sa.inspect(connection).has_table(table_slice.table, schema=table_slice.schema):
            return
        if table_slice.schema and engine.dialect.name != "sqlite":
            connection.exec_driver_sql(f"CREATE DATABASE IF NOT EXISTS {quote(table_slice.schema)}")
        options = "" if engine.dialect.name == "sqlite" else " CHARACTER SET utf8mb4"
        connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {name} ({', '.join(lines)}){options}")
        for position, partition in enumerate(table_slice.partitions):
            if partition.expression in columns and partition.expression != key:
                index = quote(f"ix_{table_slice.table}_{position}")
                connection.exec_driver_sql(f"CREATE INDEX {index} ON {name} ({quote(partition.expression)})")


def dtype_of(column: sa.Column[Any]) -> str:
    """Returns the pandas type of a table's column: the same for a slice without rows as for a full one.

    Whole numbers that may be NULL are `Int64`, texts (and JSON, as its text) `str`, dates and times
    `datetime64[us]` in UTC; what pandas has no type for stays the Python object of the driver.
    """
    kind = column.type
    if isinstance(kind, sa.Boolean):
        return "boolean" if column.nullable else "bool"
    if isinstance(kind, sa.Integer):
        name = "UInt64" if getattr(kind, "unsigned", False) else "Int64"
        return name if column.nullable else name.lower()
    if isinstance(kind, (sa.Float, sa.Double)):
        return "float64"
    if isinstance(kind, (sa.DateTime, sa.Date)):
        return "datetime64[us]"
    return "str" if isinstance(kind, sa.String) else "object"


def selected_columns(table: sa.Table, table_slice: TableSlice) -> list[sa.Column[Any]]:
    """Returns the columns that reading the slice gives.

    Raises:
        TableError: The table lacks one of them.
    """
    if table_slice.columns is None:
        return list(table.columns)
    known_columns(table, table_slice.columns)
    return [table.columns[name] for name in table_slice.columns]


def known_columns(table: sa.Table, names: Iterable[str]) -> None:
    """Raises a `TableError` that names the columns that the table lacks."""
    unknown = [name for name in names if name not in table.columns]
    if unknown:
        raise TableError(
            f"The table {table.fullname} has no column {', '.join(unknown)}; it has "
            f"{', '.join(table.columns.keys())}: mend the asset's metadata or the table."
        )


def slice_condition(table: sa.Table, table_slice: TableSlice) -> sa.ColumnElement[bool]:
    """Returns the condition that a row of the table belongs to the slice."""
    return sa.and_(sa.true(), *(_partition_condition(table, partition) for partition in table_slice.partitions))


def _partition_condition(table: sa.Table, partition: TimeWindows | Keys) -> sa.ColumnElement[bool]:
    known = partition.expression in table.columns
    column: sa.ColumnElement[Any] = (
        table.columns[partition.expression] if known else sa.literal_column(f"({partition.expression})")
    )
    if isinstance(partition, Keys):
        return column.in_(sa.literal(key, sa.String) for key in partition.keys)
    kind = column.type if known else sa.DateTime()
    return sa.or_(
        sa.false(),
        *(sa.and_(column >= _bound(start, kind), column < _bound(end, kind)) for start, end in partition.windows),
    )


def _bound(moment: datetime.datetime, kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Returns a window's bound: the day in the partition's own zone for a DATE, else the time in UTC.

    As text without fractions of a second: SQLite compares texts, and "05:00:00" comes before "05:00:00.000000".
    """
    if isinstance(kind, sa.Date):
        return sa.literal(moment.date().isoformat(), sa.String)
    return sa.literal(moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S"), sa.String)
