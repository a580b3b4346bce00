"""Creating a table that an asset declares."""

import re
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from batch_assets.database.slices.reflection import _check_schema, _has_schema
from batch_assets.database.slices.table_slice import TableSlice, expressions
from batch_assets.errors import TableError


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
    indexed = [name for name in expressions(table_slice.partitions) if name in columns and name not in key[:1]]
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
