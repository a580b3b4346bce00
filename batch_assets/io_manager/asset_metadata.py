"""What the metadata of an asset and of an input ask for, checked."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import sqlalchemy as sa

from batch_assets.database.connection.statements import BATCH_ROWS
from batch_assets.database.slices.batches import Batches, is_frame
from batch_assets.database.slices.creation import create_table
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.update_statements import ColumnUpdate
from batch_assets.errors import TableError

# What may follow a column's name: a type with numbers or texts in brackets. SQLite would take any word for a
# type, and make numbers of texts that look like some.
_SQL_TYPE = re.compile(
    r"(TINYINT|SMALLINT|MEDIUMINT|INT|INTEGER|BIGINT|BOOL|BOOLEAN|FLOAT|DOUBLE|REAL|DECIMAL|NUMERIC|CHAR|VARCHAR"
    r"|(TINY|MEDIUM|LONG)?(TEXT|BLOB)|BINARY|VARBINARY|DATE|TIME|DATETIME|TIMESTAMP|YEAR|JSON|ENUM|SET)"
    r"( ?\([\w ,.'-]+\))?( \w+)*",
    re.IGNORECASE,
)


def column_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the columns that metadata name: one, or several."""
    return (value,) if isinstance(value, str) else tuple(value)


def column_update(metadata: Mapping[str, Any]) -> ColumnUpdate | None:
    """Returns which columns of existing rows are to be updated; None where rows are replaced.

    Raises:
        TableError: The metadata name no key, or several columns.
    """
    if not metadata.get("update_columns"):
        return None
    key = column_names(metadata.get("key") or ())
    if len(key) != 1:
        raise TableError(
            f'update_columns needs the one column by which rows are found, and the asset\'s metadata "key" is {key}: '
            "name the column there."
        )
    return ColumnUpdate(
        key[0], column_names(metadata["update_columns"]), column_names(metadata.get("unchanged_columns") or ())
    )


def rows_of_batches(context: dg.InputContext, wanted: Mapping[str, Any]) -> tuple[int, int | None]:
    """Returns how many rows a batch of an input has at the most, and how many the first one, None for as many.

    Raises:
        TableError: `batch_rows` or `first_batch_rows` is not a number of rows.
    """
    for name in ("batch_rows", "first_batch_rows"):
        rows = wanted.get(name, BATCH_ROWS)
        if not isinstance(rows, int) or rows < 1:
            raise TableError(f"{name} of the input {context.name} is {rows!r}: make it a number of rows, 1 or more.")
    return wanted.get("batch_rows", BATCH_ROWS), wanted.get("first_batch_rows")


def create_declared(engine: sa.Engine, table_slice: TableSlice, metadata: Mapping[str, Any]) -> None:
    """Creates the table that an asset declares in `dagster/column_schema`, if it is not there.

    Raises:
        TableError: A column is declared with something that is no type of MySQL.
    """
    schema = metadata.get("dagster/column_schema")
    if not schema:
        return
    columns = {}
    for column in schema.columns:
        if not _SQL_TYPE.fullmatch(column.type):
            raise TableError(
                f"The type of column {column.name} is {column.type!r}, which is no type of MySQL: declare it as for "
                "example BIGINT or VARCHAR(40) in dagster/column_schema."
            )
        constraints = [] if column.constraints.nullable else ["NOT NULL"]
        constraints += ["UNIQUE"] if column.constraints.unique else []
        columns[column.name] = " ".join([column.type, *constraints, *column.constraints.other])
    create_table(engine, table_slice, columns, column_names(metadata.get("key") or ()))


def as_batches(obj: object, context: dg.OutputContext) -> Batches:
    """Returns what an asset returned as batches.

    Raises:
        TableError: It is neither a DataFrame nor `Batches`.
    """
    if isinstance(obj, Batches):
        return obj
    if not is_frame(type(obj)):
        nothing = " (or annotate it with -> None if it stores its rows by itself)" if obj is None else ""
        raise TableError(
            f"{context.step_key} returned {type(obj).__name__}, which cannot be stored in a table: return a pandas "
            f"DataFrame or Batches{nothing}. Nothing was stored, the old rows stay."
        )
    return Batches([obj])  # type: ignore[list-item]


def check_annotation(context: dg.InputContext) -> None:
    """Checks that an input is annotated with something that can be loaded.

    Raises:
        TableError: It is annotated with another type.
    """
    wanted = context.dagster_type.typing_type
    if wanted not in {Any, Batches} and not is_frame(wanted):
        raise TableError(
            f"The input {context.name} is annotated with {getattr(wanted, '__name__', wanted)}: annotate it with "
            "pandas.DataFrame or with Batches, or not at all for a DataFrame."
        )
