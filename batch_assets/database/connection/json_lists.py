"""Columns of a table as one: a list that the server makes of them, under a name that no column has.

So that an item whose values stand in columns is read, compared and checked as one whose values stand in a list.
"""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from batch_assets.errors import TableError
from batch_assets.packed_lists import NULL, NUMBER, TEXT, WHOLE_NUMBER

# What SQLite calls, in this process.
SQLITE_FUNCTION = "batch_assets_json_list"
_WITHOUT_JSON = (sa.LargeBinary, sa.BINARY, sa.VARBINARY, mysql.BIT)


class ListColumn(sa.Column[Any]):
    """The values of some columns in one, in their order.

    Args:
        name: What it is called where rows are read.
        kind: The type of the one.
        columns: The columns, of one table.
        key: What it is called in its table.
    """

    inherit_cache = False

    def __init__(
        self, name: str, kind: sa.types.TypeEngine[Any], columns: Sequence[sa.Column[Any]], key: str | None = None
    ) -> None:
        super().__init__(name, kind, key=key or name, nullable=False)
        self.listed = tuple(columns)


class JSONList(ListColumn):
    """The values of some columns as a JSON list; NULL is null in it.

    Args:
        name: What it is called where rows are read.
        columns: The columns, of one table.
        key: What it is called in its table.
    """

    inherit_cache = False

    def __init__(self, name: str, columns: Sequence[sa.Column[Any]], key: str | None = None) -> None:
        super().__init__(name, sa.Text(), columns, key)


class PackedList(ListColumn):
    """The values of some columns as bytes, see `batch_assets.packed_lists`: made in a quarter of a JSON list's time.

    Args:
        name: What it is called where rows are read.
        columns: The columns, of one table of a server.
        type_codes: What the values of each are.
    """

    inherit_cache = False

    def __init__(self, name: str, columns: Sequence[sa.Column[Any]], type_codes: Sequence[str]) -> None:
        super().__init__(name, sa.LargeBinary(), columns)
        self.type_codes = tuple(type_codes)


@compiles(JSONList)
def _on_servers(element: JSONList, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(sa.func.json_array(*element.listed, type_=sa.Text()), **options)


@compiles(JSONList, "sqlite")
def _on_sqlite(element: JSONList, compiler: SQLCompiler, **options: Any) -> str:
    result_map = options.pop("add_to_result_map", None)
    if result_map is not None:
        result_map(element.name, element.name, (element,), element.type)
    return f"{SQLITE_FUNCTION}({', '.join(compiler.process(column, **options) for column in element.listed)})"


@compiles(PackedList)
def _packed_on_servers(element: PackedList, compiler: SQLCompiler, **options: Any) -> str:
    result_map = options.pop("add_to_result_map", None)
    if result_map is not None:
        result_map(element.name, element.name, (element,), element.type)
    names = [compiler.process(column, **options) for column in element.listed]
    codes, numbers, texts = [], [], []
    for column, name, code in zip(element.listed, names, element.type_codes, strict=True):
        number = f"CHAR_LENGTH({name})" if code == TEXT else name
        text = f"CAST(CONVERT({name} USING utf8mb4) AS BINARY)"
        codes.append(f"IF({name} IS NULL, '{NULL}', '{code}')" if column.nullable else f"'{code}'")
        numbers.append(f"IFNULL({number}, 0)" if column.nullable else number)
        if code == TEXT:
            texts.append(f"IFNULL({text}, '')" if column.nullable else text)
    if not any(column.nullable for column in element.listed):
        codes = [f"'{''.join(element.type_codes)}'"]
    if len(numbers) % 2:
        numbers.append("0")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return f"CONCAT({', '.join([*codes, *(f'POINT({x}, {y})' for x, y in pairs), *texts])})"


def type_code_of(column: sa.Column[Any]) -> str | None:
    """Returns what the values of a column are in a packed list; None if they are nothing that it can hold."""
    kind = column.type
    if isinstance(kind, sa.Float):
        return NUMBER
    # A double does not hold all of a BIGINT.
    if isinstance(kind, sa.Integer) and not isinstance(kind, sa.BigInteger):
        return WHOLE_NUMBER
    is_text = isinstance(kind, sa.String) and not isinstance(kind, (sa.Enum, mysql.SET))
    return TEXT if is_text and column.name not in column.table.info["json"] else None


def json_list(*values: object) -> str:
    """Returns values as a JSON list, for SQLite: its own `json_array` rounds numbers, and fails on what JSON lacks."""
    return json.dumps(values, ensure_ascii=False, default=repr)


def check_json_list(connection: sa.Connection, columns: Sequence[sa.Column[Any]]) -> None:
    """Raises unless the server makes JSON of these columns that says what is in them.

    Raises:
        TableError: A column has a type of which it does not.
    """
    mariadb = getattr(connection.dialect, "is_mariadb", False)
    for column in columns:
        kind = column.type
        if isinstance(kind, _WITHOUT_JSON):
            raise TableError(
                f"The column {column} is {kind}, which cannot be scored: name a column of numbers or of text."
            )
        if mariadb and isinstance(kind, mysql.FLOAT):
            raise TableError(f"The column {column} is FLOAT, of which MariaDB hands over six digits: make it DOUBLE.")
