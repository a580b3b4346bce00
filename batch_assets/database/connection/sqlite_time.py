"""How SQLite, which has no type for times, stores them."""

import datetime
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite


class SQLiteTime(sqlite.DATETIME):
    """A time as CURRENT_TIMESTAMP writes it: SQLite compares texts, which must be of one form for that."""

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[datetime.datetime | None], str | None]:
        """Returns what writes a time: fractions of a second only where there are any."""
        return lambda value: None if value is None else value.isoformat(sep=" ")
