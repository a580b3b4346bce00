"""The values of items in the form in which they are scored."""

from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.json_lists import JSONList
from batch_assets.database.slices.reflection import reflect
from batch_assets.database.slices.table_slice import TableSlice


def values_to_score(connection: sa.Connection, items: sa.Table) -> sa.Column[Any]:
    """Returns the column of the values as a run reads it: of items in columns packed, where the server can.

    Args:
        connection: The database.
        items: The table of the items. The column is that of another object for the same table.

    Raises:
        TableError: There is no such table or column.
    """
    values = items.c["values"]
    if not isinstance(values, JSONList):
        return values
    lists = ((values.name, tuple(column.name for column in values.listed)),)
    table = reflect(connection, TableSlice(items.name, json_lists=lists, packed_lists=True))
    return table.columns[values.name]
