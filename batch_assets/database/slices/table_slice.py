"""Slices of tables: what they are, and what they are in SQL."""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine.interfaces import ReflectedColumn

from batch_assets.database.connection.sqlite_time import SQLiteTime
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
class AnyOf:
    """A condition that holds where all conditions of one of some alternatives hold.

    Args:
        alternatives: The conditions of each.
    """

    alternatives: tuple[tuple[TimeWindows | Keys, ...], ...]


Partition = TimeWindows | Keys | AnyOf


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
    partitions: tuple[Partition, ...] = ()
    columns: tuple[str, ...] | None = None
    where: str | None = None

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table


class _SQLiteDecimal(sa.TypeDecorator[Decimal]):
    """A DECIMAL column of SQLite, which keeps a number with 15 digits."""

    impl = sa.Double
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        """Returns the decimal that was meant."""
        return None if value is None else Decimal(str(value))


# What the definition of a table was read as: reading it takes ten times as long as asking whether it has changed.
_tables_by_definition: dict[tuple[sa.Engine, str], tuple[str, sa.Table]] = {}


def reflect(connection: sa.Connection, table_slice: TableSlice) -> sa.Table:
    """Returns the table as the database has it.

    Raises:
        TableError: There is no such table.
    """
    _check_schema(connection, table_slice)
    place, definition = (connection.engine, str(table_slice)), _definition(connection, table_slice)
    known_definition, table = _tables_by_definition.get(place, (None, None))
    if table is None or definition is None or definition != known_definition:
        table = _reflect(connection, table_slice)
        if definition is not None:
            _tables_by_definition[place] = definition, table
    return table


def _definition(connection: sa.Connection, table_slice: TableSlice) -> str | None:
    """Returns the statement that creates the table: None for a view, and where there is no such table."""
    if connection.dialect.name == "sqlite":
        statement = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(:table)")
        return connection.execute(statement, {"table": table_slice.table}).scalar()
    if not _has_schema(connection, table_slice):
        return None
    quote = connection.dialect.identifier_preparer.quote_identifier
    name = ".".join(quote(part) for part in (table_slice.schema, table_slice.table) if part)
    try:
        found = connection.exec_driver_sql(f"SHOW CREATE TABLE {name}")
    except sa.exc.ProgrammingError:  # the one fault that has no sentence: there is no such table
        return None
    if next(iter(found.keys())) != "Table":
        found.close()
        return None
    # The number that the next row gets.
    return re.sub(r" AUTO_INCREMENT=\d+", "", found.one()[1])


def _reflect(connection: sa.Connection, table_slice: TableSlice) -> sa.Table:
    try:
        if not _has_schema(connection, table_slice):
            raise sa.exc.NoSuchTableError(table_slice.table)
        table = sa.Table(
            table_slice.table,
            sa.MetaData(),
            schema=table_slice.schema,
            autoload_with=connection,
            resolve_fks=False,
            listeners=[("column_reflect", _unescape_name)],
        )
    except sa.exc.NoSuchTableError:
        raise TableError(
            f"There is no table {table_slice} in {connection.engine.url.database!r}: run `batch-assets init-db` "
            "if it is one of this pipeline's, or declare the columns of your own asset in its metadata "
            "`dagster/column_schema`, of which the table is then created."
        ) from None
    table.info["dialect"] = connection.dialect.name
    for column in table.columns:
        column.type = _type_to_use(connection, column.type)
    table.info["invisible"] = _invisible_columns(connection, table)
    return table


def _unescape_name(inspector: sa.Inspector, _table: sa.Table, column: ReflectedColumn) -> None:
    """Corrects the name of a column, which SQLAlchemy takes as MySQL writes it in a statement: with ` doubled."""
    if inspector.dialect.name != "sqlite":
        column["name"] = column["name"].replace("``", "`")


def _invisible_columns(connection: sa.Connection, table: sa.Table) -> set[str]:
    """Returns the columns that `SELECT *` leaves out: helpers like ours, which are computed."""
    if connection.dialect.name == "sqlite" or not any(column.computed is not None for column in table.columns):
        return set()
    statement = sa.text(
        "SELECT column_name FROM information_schema.columns WHERE table_name = :table AND extra LIKE '%INVISIBLE%' "
        "AND table_schema = COALESCE(:schema, DATABASE())"
    )
    return set(connection.execute(statement, {"table": table.name, "schema": table.schema}).scalars())


def _check_schema(connection: sa.Connection, table_slice: TableSlice) -> None:
    if table_slice.schema and connection.dialect.name == "sqlite":
        raise TableError(
            f"{table_slice} names a schema, which SQLite does not have: set MYSQL_SERVER, or leave the schema out."
        )


def _has_schema(connection: sa.Connection, table_slice: TableSlice) -> bool:
    return not table_slice.schema or table_slice.schema in sa.inspect(connection).get_schema_names()


def _type_to_use(connection: sa.Connection, kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    if isinstance(kind, sa.JSON):  # as its text, which is what MariaDB and SQLite have anyway
        return sa.Text()
    if connection.dialect.name == "sqlite" and isinstance(kind, sa.DateTime):
        return SQLiteTime()  # type: ignore[no-untyped-call]
    if connection.dialect.name == "sqlite" and isinstance(kind, sa.Numeric):
        return _SQLiteDecimal()
    return kind


def create_table(
    engine: sa.Engine,
    table_slice: TableSlice,
    columns: Mapping[str, str],
    key: Sequence[str] = (),
) -> None:
    """Creates the table of a slice if it is not there, with an index on the columns that partition it.

    Args:
        engine: The database.
        table_slice: Names the table.
        columns: What follows each column's name in SQL, for example `BIGINT NOT NULL`.
        key: The columns of the primary key; none for a table without one.

    Raises:
        TableError: The key names a column that is not declared.
    """
    unknown = [name for name in key if name not in columns]
    if unknown:
        raise TableError(
            f"The key of {table_slice} names {', '.join(unknown)}, and its declared columns are {', '.join(columns)}: "
            "fix the asset's metadata."
        )
    with engine.begin() as connection:
        _check_schema(connection, table_slice)
        inspector = sa.inspect(connection)
        if not _has_schema(connection, table_slice) or not inspector.has_table(table_slice.table, table_slice.schema):
            for statement in _create_statements(connection, table_slice, columns, key):
                connection.exec_driver_sql(statement)


def _create_statements(
    connection: sa.Connection, table_slice: TableSlice, columns: Mapping[str, str], key: Sequence[str]
) -> list[str]:
    quote, sqlite = connection.dialect.identifier_preparer.quote, connection.dialect.name == "sqlite"
    lines = [
        f"{quote(name)} {_sqlite_type(definition) if sqlite else definition.replace('%', '%%')}"
        # SQLite takes NULL for a primary key.
        + (" NOT NULL" if name in key and "NOT NULL" not in definition.upper() else "")
        for name, definition in columns.items()
    ]
    if key:
        lines.append(f"PRIMARY KEY ({', '.join(map(quote, key))})")
    indexed = [name for name in _expressions(table_slice.partitions) if name in columns and name not in key[:1]]
    table = ".".join(quote(part) for part in (table_slice.schema, table_slice.table) if part)
    if sqlite:
        indexes = [
            f"CREATE INDEX {quote(f'ix_{table_slice.table}_{name}')} ON {table} ({quote(name)})" for name in indexed
        ]
        return [f"CREATE TABLE {table} ({', '.join(lines)})", *indexes]
    # In the statement that creates the table: another run may be at it too.
    lines += [f"INDEX ({quote(name)})" for name in indexed]
    create = f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(lines)}) CHARACTER SET utf8mb4"
    if _has_schema(connection, table_slice):
        return [create]
    return [f"CREATE DATABASE IF NOT EXISTS {quote(table_slice.schema or '')}", create]


def _sqlite_type(definition: str) -> str:
    """Says in SQLite's words what it would take for numbers: types that it does not know become NUMERIC."""
    definition = re.sub(r"^(JSON|ENUM|SET)\b( ?\([^)]*\))?", "TEXT", definition, flags=re.IGNORECASE)
    return re.sub(r"^(VARBINARY|BINARY)\b( ?\([^)]*\))?", "BLOB", definition, flags=re.IGNORECASE)


def _expressions(partitions: Iterable[Partition]) -> list[str]:
    """Returns the columns or expressions of some conditions, each once."""
    found: dict[str, None] = {}
    for partition in partitions:
        if isinstance(partition, AnyOf):
            found.update(dict.fromkeys(_expressions(partition.alternatives[0] if partition.alternatives else ())))
        else:
            found[partition.expression] = None
    return list(found)


def dtype_of(column: sa.Column[Any]) -> str:
    """Returns the pandas type of a table's column: the same for a slice without rows as for a full one.

    Whole numbers that may be NULL are `Int64`, texts (and JSON, as its text) `str`, dates and times
    `datetime64[us]` in UTC; what pandas has no type for stays the Python object of the driver.
    """
    kind = column.type
    # What MySQL makes of a column that is declared BOOLEAN.
    if isinstance(kind, sa.Boolean) or getattr(kind, "display_width", None) == 1:
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
        return [column for column in table.columns if column.name not in table.info["invisible"]]
    known_columns(table, table_slice.columns)
    return [table.columns[name] for name in table_slice.columns]


def known_columns(table: sa.Table, names: Iterable[str]) -> None:
    """Raises a `TableError` that names the columns that the table lacks."""
    unknown = [name for name in names if name not in table.columns]
    if unknown:
        raise TableError(
            f"The table {table.fullname} has no column {', '.join(unknown)}; it has "
            f"{', '.join(table.columns.keys())}: fix the asset's metadata or the table."
        )


def slice_condition(table: sa.Table, table_slice: TableSlice) -> sa.ColumnElement[bool]:
    """Returns the condition that a row of the table belongs to the slice.

    Raises:
        TableError: A column cannot hold what the partitions are.
    """
    return _all_of(table, table_slice.partitions)


def partition_columns(table_slice: TableSlice) -> str:
    """Returns the columns or expressions by which the rows of the slice are found."""
    return ", ".join(_expressions(table_slice.partitions))


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
