"""Values on their way into a column: the same on every database, and never silently another value."""

import datetime
import json
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from types import NoneType
from typing import Any

import sqlalchemy as sa

from batch_assets.errors import TableError

_Convert = Callable[[sa.Column[Any], Any], Any]


def stored_values(column: sa.Column[Any], values: Iterable[Any]) -> list[Any]:
    """Returns values as the driver takes them for a column.

    Times become UTC without a zone, cut to the digits that the column holds (MySQL would round them, into the
    next hour at worst), or the day in their own zone for a DATE; lists and dictionaries JSON; NaN NULL; numbers
    of numpy those of Python.

    Args:
        column: The column, as the database has it.
        values: Its value in each row.

    Raises:
        TableError: The column cannot hold a value: it is infinite, or no time, or not a whole number.
    """
    ready, convert = _conversion(column)
    return [value if type(value) in ready else _converted(column, value, convert) for value in values]


def _conversion(column: sa.Column[Any]) -> tuple[frozenset[type], _Convert]:
    if isinstance(column.type, sa.DateTime):
        return frozenset({NoneType}), _time
    if isinstance(column.type, sa.Date):
        return frozenset({NoneType}), _day
    if isinstance(column.type, sa.Integer):
        return frozenset({NoneType, int, bool}), _whole_number
    return frozenset({NoneType, int, bool, str, bytes}), _any


def _converted(column: sa.Column[Any], value: Any, convert: _Convert) -> Any:
    if type(value).__module__ == "numpy":  # asked so, since it costs nothing where numpy is not in use
        value = value.tolist()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and math.isinf(value):
        raise _fault(column, value, "which no table can hold: replace it by a number or by NULL")
    return convert(column, value)


def _time(column: sa.Column[Any], value: Any) -> str:
    if isinstance(value, str):
        value = _parsed(column, value)
    if isinstance(value, datetime.datetime):
        if value.tzinfo:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        digits = getattr(column.type, "fsp", 6) or 0
        # SQLite compares texts, so that a fraction of nothing must not be written.
        fraction = f".{value.microsecond:06d}"[: digits + 1] if digits and value.microsecond else ""
        return f"{value.isoformat(sep=' ', timespec='seconds')}{fraction}"
    if isinstance(value, datetime.date):
        return f"{value} 00:00:00"
    raise _fault(column, value, "which is no time: give it a datetime")


def _day(column: sa.Column[Any], value: Any) -> str:
    if isinstance(value, str):
        value = _parsed(column, value)
    if isinstance(value, datetime.datetime):
        value = value.date()
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise _fault(column, value, "which is no date: give it a date")


def _parsed(column: sa.Column[Any], text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        raise _fault(column, text, "which is no time: write it as 2026-11-01 05:00:00") from None


def _whole_number(column: sa.Column[Any], value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = None
    # The server would round 1.5; SQLite would store it, and texts too.
    if number is None or (not isinstance(value, str) and number != value):
        raise _fault(column, value, "which is not a whole number: round it, or make the column DOUBLE")
    return number


def _any(column: sa.Column[Any], value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return _json(column, value)
    if isinstance(value, datetime.datetime):
        return _time(column, value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    # SQLite has no decimals; its column makes a number of the text.
    return str(value) if isinstance(value, Decimal) else value


def _json(column: sa.Column[Any], value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise _fault(column, value, f"which is not JSON ({error})") from error


def _plain(value: Any) -> Any:
    if type(value).__module__ == "numpy":
        return value.tolist()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise TypeError(f"it holds a {type(value).__name__}")


def _fault(column: sa.Column[Any], value: Any, what: str) -> TableError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    return TableError(
        f"The column {column.name} of {column.table.fullname} was given {shown}, {what}. Nothing of it was stored."
    )
