"""Rows that the server hands over packed: many of them as one value.

The driver, in pure Python, takes 3 microseconds for a row, be it ever so short, and a tenth of that to cut it from a
value that holds many. So the table is read by ranges of its primary key, each of which the server makes one value of,
wherever the keys of the rows lie close together.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batch_assets.database.connection.engine import PACKED_BYTES
from batch_assets.database.connection.json_lists import PackedList
from batch_assets.database.connection.statements import BATCH_ROWS
from batch_assets.packed_lists import fixed_bytes

# UTF-8 has no such bytes.
_END, _NULL = b"\xff", b"\xfe"
# Few rows are read faster one by one than counted, and so are rows of which there are others between any two.
_LEAST_ROWS = 1_000
_SPAN_OF_ROW = 4
# What is read first, before it is known how large the rows are. It grows as batches may, for which nothing is then read
# that is not yet wanted.
_FIRST_ROWS = 500
_STEP = 2
_STEP_BACK = 16


class KeyRange(NamedTuple):
    """The least and the greatest key of some rows, and how many they are."""

    first: int
    last: int
    rows: int


class PackedReader:
    """Rows of a table that the server hands over packed, all from one moment's view of it.

    Args:
        connection: In a transaction that sees one moment.
        table: The table.
        columns: Of numbers and texts, and packed lists, as `can_be_packed` says.
        condition: Which of the rows.
        keys: Their keys.
    """

    def __init__(
        self,
        connection: sa.Connection,
        table: sa.Table,
        columns: Sequence[sa.Column[Any]],
        condition: sa.ColumnElement[bool],
        keys: KeyRange,
    ) -> None:
        self._connection = connection
        self._key = _key(table)
        self._columns = columns
        self._keys = keys
        fields = ", ".join(f"{_packed(connection, column)}, x'{_END.hex()}'" for column in columns)
        packed: sa.ColumnElement[bytes] = sa.literal_column(f"GROUP_CONCAT({fields} SEPARATOR '')")
        # The order of the key, in which the rows lie: by another index the server would look up each.
        self._select = (
            sa.select(sa.func.count(), packed)
            .select_from(table)
            .with_hint(table, "FORCE INDEX (PRIMARY)")
            .where(condition)
        )
        has_bits = any(isinstance(column, PackedList) for column in columns)
        self._row_pattern = re.compile(b"".join(map(_pattern, columns)), re.DOTALL) if has_bits else None
        self._select_one = sa.select(*columns).where(condition)

    def __iter__(self) -> Iterator[Sequence[Any]]:
        first, last, rows = self._keys
        most = BATCH_ROWS * (last - first + 1) // rows
        width = min(most, _FIRST_ROWS)
        while first <= last:
            between = self._key.between(first, first + width - 1)
            count, packed = self._connection.execute(self._select.where(between)).one()
            columns = self._columns_of(count, packed)
            if columns is not None:
                yield from zip(*columns, strict=True)
            elif width > 1:
                width = max(1, width // _STEP_BACK)
                continue
            else:
                yield from self._connection.execute(self._select_one.where(between))
            first += width
            fits = PACKED_BYTES * width // (2 * len(packed or b"") + 1)
            width = max(1, min(most, width * _STEP, fits))

    def _columns_of(self, count: int, packed: bytes | None) -> list[list[Any]] | None:
        """Returns the values of each column; None if the server has cut something off."""
        if not count:
            return []
        number = len(self._columns)
        fields = self._fields(packed or b"")
        if len(fields) != number * count:
            return None
        return [_values(column, fields[position::number]) for position, column in enumerate(self._columns)]

    def _fields(self, packed: bytes) -> list[bytes]:
        """Returns the values of all rows that the server has not cut off."""
        if self._row_pattern is None:
            return packed.split(_END)[:-1]
        # Not `findall`: in a row that is cut off it would look for others from each byte on.
        fields: list[bytes] = []
        row = self._row_pattern.match(packed)
        while row:
            fields += row.groups()
            row = self._row_pattern.match(packed, row.end())
        return fields


def can_be_packed(table: sa.Table, columns: Sequence[sa.Column[Any]]) -> bool:
    """Whether the server can hand over these columns packed, and find the rows by ranges of a number."""
    key = list(table.primary_key.columns)
    return (
        table.info["dialect"] != "sqlite"
        and len(key) == 1
        and isinstance(key[0].type, sa.Integer)
        and all(
            isinstance(column.type, sa.Integer) or _is_text(column) or isinstance(column, PackedList)
            for column in columns
        )
    )


def key_range(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> KeyRange | None:
    """Returns the keys of some rows of a table; None if these are better read one by one."""
    key = _key(table)
    keys = sa.select(sa.func.min(key), sa.func.max(key), sa.func.count()).select_from(table).where(condition)
    found = KeyRange(*connection.execute(keys).one())
    if found.rows < _LEAST_ROWS or found.last - found.first >= _SPAN_OF_ROW * found.rows:
        return None
    return found


def _key(table: sa.Table) -> sa.Column[Any]:
    return next(iter(table.primary_key.columns))


def _is_text(column: sa.Column[Any]) -> bool:
    return isinstance(column.type, sa.String) and not isinstance(column.type, (sa.Enum, mysql.SET))


def _pattern(column: sa.Column[Any]) -> bytes:
    """Returns the regular expression of a field: the bits of a number may look like the end of one."""
    bits = b".{%d}" % fixed_bytes(len(column.listed)) if isinstance(column, PackedList) else b""
    return b"(%s[^%s]*)%s" % (bits, _END, _END)


def _packed(connection: sa.Connection, column: sa.Column[Any]) -> str:
    # Compiled for the driver, as the whole statement is once more.
    name = str(column.compile(dialect=connection.dialect)).replace("%%", "%")
    packed = f"CAST(CONVERT({name} USING utf8mb4) AS BINARY)" if _is_text(column) else name
    return f"COALESCE({packed}, x'{_NULL.hex()}')" if column.nullable else packed


def _values(column: sa.Column[Any], fields: list[bytes]) -> list[Any]:
    if isinstance(column, PackedList):
        return fields
    value = bytes.decode if _is_text(column) else int
    if column.nullable:
        return [None if field == _NULL else value(field) for field in fields]
    return list(map(value, fields))
