"""Slices of tables: what they are."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass


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
        json_lists: Columns that the table does not have, each with those of which it is a JSON list.
        packed_lists: Whether these are handed over packed where the server can, see `batch_assets.packed_lists`.
    """

    table: str
    schema: str | None = None
    partitions: tuple[Partition, ...] = ()
    columns: tuple[str, ...] | None = None
    where: str | None = None
    json_lists: tuple[tuple[str, tuple[str, ...]], ...] = ()
    packed_lists: bool = False

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table


def expressions(partitions: Iterable[Partition]) -> list[str]:
    """Returns the columns or expressions of some conditions, each once."""
    found: dict[str, None] = {}
    for partition in partitions:
        if isinstance(partition, AnyOf):
            found.update(dict.fromkeys(expressions(partition.alternatives[0] if partition.alternatives else ())))
        else:
            found[partition.expression] = None
    return list(found)
