"""The values of items in the form in which they are scored."""

from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.json_lists import JSONList
from batch_assets.database.slices.reflection import reflect
from batch_assets.database.slices.table_slice import TableSlice


def slice_to_score(items: sa.Table) -> TableSlice:
    """Returns the table of the items as a run reads and updates it: values in columns are packed, where the server can.

    Args:
        items: The table of the items.
    """
    values = items.c["values"]
    if not isinstance(values, JSONList):
        return TableSlice(items.name)
    lists = ((values.name, tuple(column.name for column in values.listed)),)
    return TableSlice(items.name, json_lists=lists, packed_lists=True)


def values_to_score(connection: sa.Connection, items: sa.Table) -> sa.Column[Any]:
    """Returns the column of the values as a run reads it.

    Args:
        connection: The database.
        items: The table of the items. A list of columns is that of another object for the same table.

    Raises:
        TableError: There is no such table or column.
    """
    values = items.c["values"]
    # Whether columns can be packed, only the database knows.
    return reflect(connection, slice_to_score(items)).columns[values.name] if isinstance(values, JSONList) else values
