"""Many rows in one statement, in the words of each database."""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.json_lists import PackedList

BATCH_ROWS = 10_000
# Servers take statements of 16 MB (MariaDB) or 64 MB (MySQL) by default, and memory is to stay bounded
# where rows are large.
BATCH_CHARACTERS = 4_000_000
_TEXTS = {str, bytes}


def batch_table(
    connection: sa.Connection | sa.Engine, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> tuple[str, tuple[Any, ...]]:
    """Makes rows a table `batch` within a statement, the fastest way to hand many to a server in one.

    Args:
        connection: Decides the dialect.
        names: The columns of the table.
        rows: A sequence of values in the order of `names` for each row, at least one.

    Returns:
        The table in SQL with its name, and the parameters for it.
    """
    sqlite, mariadb = connection.dialect.name == "sqlite", getattr(connection.dialect, "is_mariadb", False)
    mark = "?" if sqlite else "%s"
    row = f"({', '.join(mark for _ in names)})"
    if not sqlite and not mariadb:
        row = f"ROW{row}"
    values = f"VALUES {', '.join(row for _ in rows)}"
    parameters = tuple(value for row in rows for value in row)
    if sqlite:
        columns = ", ".join(f"column{position} AS {name}" for position, name in enumerate(names, 1))
        return f"(SELECT {columns} FROM ({values})) AS batch", parameters
    if mariadb:  # which has no names for the columns of VALUES
        columns = ", ".join(f"NULL AS {name}" for name in names)
        return f"(SELECT {columns} FROM DUAL WHERE FALSE UNION ALL {values}) AS batch", parameters
    return f"({values}) AS batch ({', '.join(names)})", parameters


def statement_rows(
    connection: sa.Connection | sa.Engine, rows: Sequence[Sequence[Any]]
) -> Iterator[Sequence[Sequence[Any]]]:
    """Cuts rows into parts that one statement takes: bounded in characters and, on SQLite, in parameters."""
    # https://www.sqlite.org/limits.html: 32,766 parameters
    most = 30_000 // len(rows[0]) if rows and connection.dialect.name == "sqlite" else BATCH_ROWS
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        if characters_of(part) <= BATCH_CHARACTERS:
            yield part
        else:
            yield from _cut_by_characters(part)


def _cut_by_characters(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    part: list[Sequence[Any]] = []
    characters = 0
    for row in rows:
        part.append(row)
        characters += characters_of([row])
        if characters > BATCH_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part


def checksum(text: str | bytes | None) -> int | None:
    """Returns what `checksum_sql` of the same text gives: short, where the text would have to travel."""
    return checksums([text])[0]


def checksums(texts: Sequence[str | bytes | None]) -> list[int | None]:
    """Returns the checksum of each text or packed list, None for NULL."""
    return [
        None if text is None else zlib.crc32(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        for text in texts
    ]


def checksum_sql(connection: sa.Connection | sa.Engine, column: str) -> str:
    """Returns the SQL of the checksum of a column of text. MySQL 9.6 and later have neither MD5 nor SHA1."""
    return f"CRC32({column})" if connection.dialect.name == "sqlite" else f"CRC32(CONVERT({column} USING utf8mb4))"


def column_checksum_sql(connection: sa.Connection | sa.Engine, column: sa.Column[Any]) -> str:
    """Returns the SQL of the checksum of a column of text, or of a packed list, as `exec_driver_sql` takes it."""
    name = column_sql(connection, column)
    return f"CRC32({name})" if isinstance(column, PackedList) else checksum_sql(connection, name)


def checksum_of(connection: sa.Connection | sa.Engine, column: sa.Column[Any]) -> sa.ColumnElement[int]:
    """Returns the checksum of a column as an expression, see `checksum_sql`."""
    return sa.literal_column(checksum_sql(connection, condition_sql(connection, column)), sa.BigInteger)


def condition_sql(connection: sa.Connection | sa.Engine, expression: sa.ColumnElement[Any]) -> str:
    """Returns an expression in SQL with its values in it, to be made part of another expression."""
    text = str(expression.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
    # Drivers that mark parameters with % have it doubled, which is done when the whole is compiled.
    return text.replace("%%", "%") if connection.dialect.paramstyle in ("format", "pyformat") else text


def column_sql(connection: sa.Connection | sa.Engine, column: sa.Column[Any]) -> str:
    """Returns a column with its table in SQL, quoted where it must be, as `exec_driver_sql` takes it."""
    return str(column.compile(dialect=connection.dialect))


def characters_of(rows: Sequence[Sequence[Any]]) -> int:
    """Returns the length of all texts in some rows."""
    # Not zip(*rows), which takes ten times as long for so many.
    return sum(_characters_of_column([row[column] for row in rows]) for column in range(len(rows[0]) if rows else 0))


def _characters_of_column(values: Sequence[Any]) -> int:
    kinds = set(map(type, values))
    if not kinds & _TEXTS:
        return 0
    return sum(map(len, values if kinds <= _TEXTS else (value for value in values if type(value) in _TEXTS)))
