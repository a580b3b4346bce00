"""Columns of a table as one: a JSON list that the server makes of them, under a name that no column has.

So that an item whose values stand in columns is read, compared and checked as one whose values stand in a list.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from batch_assets.errors import TableError

_LARGEST_DOUBLE = "1.7976931348623157e308"
_WITHOUT_JSON = (sa.LargeBinary, sa.BINARY, sa.VARBINARY, mysql.BIT)


class JSONList(sa.Column[str]):
    """The values of some columns as a JSON list, in their order; NULL is null in it.

    Args:
        name: What it is called where rows are read.
        columns: The columns, of one table.
    """

    inherit_cache = False

    def __init__(self, name: str, columns: Sequence[sa.Column[Any]], key: str | None = None) -> None:
        super().__init__(name, sa.Text(), key=key or name, nullable=False)
        self.listed = tuple(columns)


@compiles(JSONList)
def _on_servers(element: JSONList, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(sa.func.json_array(*element.listed, type_=sa.Text()), **options)


@compiles(JSONList, "sqlite")
def _on_sqlite(element: JSONList, compiler: SQLCompiler, **options: Any) -> str:
    result_map = options.pop("add_to_result_map", None)
    if result_map is not None:
        result_map(element.name, element.name, (element,), element.type)
    values = ", ".join(_sqlite_value(compiler.process(column, **options)) for column in element.listed)
    return f"json_array({values})"


def _sqlite_value(column: str) -> str:
    """Returns a value for SQLite's `json_array`, which rounds numbers to 15 digits and fails on what JSON lacks."""
    finite = f"{column} BETWEEN -{_LARGEST_DOUBLE} AND {_LARGEST_DOUBLE}"
    exactly = f"printf('%!.17g', {column})"
    number = f"CASE WHEN {finite} THEN json({exactly}) ELSE {exactly} END"
    return f"CASE typeof({column}) WHEN 'real' THEN {number} WHEN 'blob' THEN hex({column}) ELSE {column} END"


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
