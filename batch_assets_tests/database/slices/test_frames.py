"""Rows as DataFrames and back, and what becomes of values on their way into a column."""

import datetime
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batch_assets.database.slices.frames import batch_of, frame_of
from batch_assets.database.slices.reflection import dtype_of
from batch_assets.database.slices.values import stored_values
from batch_assets.errors import TableError

CET = datetime.timezone(datetime.timedelta(hours=1))


def naive(*parts: int) -> datetime.datetime:
    """A time without a zone, which in the database is one of UTC."""
    return datetime.datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


def column(kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    found: sa.Column[Any] = sa.Table("things", sa.MetaData(), sa.Column("thing", kind)).columns["thing"]
    return found


def values_of(series: Any) -> list[Any]:
    return [row[0] for row in batch_of(pd.DataFrame({"thing": series})).rows]


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([1, 2], [1, 2]),
        ([1.0, np.nan], [1.0, None]),
        (pd.array([2**63 - 1, None], dtype="Int64"), [2**63 - 1, None]),
        (pd.array([True, pd.NA], dtype="boolean"), [True, None]),
        (["a", None], ["a", None]),
        (pd.array(["a", pd.NA], dtype="string"), ["a", None]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pd.Series([1, "a", None, 2.5, pd.NaT, pd.NA, np.nan], dtype=object), [1, "a", None, 2.5, None, None, None]),
        ([[1, 2], {"a": None}], [[1, 2], {"a": None}]),
        ([b"\x00"], [b"\x00"]),
        ([Decimal("1.10")], [Decimal("1.10")]),
        (pd.to_datetime(["2026-01-01 05:00:00.5", "NaT"]), [naive(2026, 1, 1, 5, 0, 0, 500_000), None]),
        (pd.Series([datetime.date(2026, 1, 1)], dtype=object), [datetime.date(2026, 1, 1)]),
        (
            pd.to_datetime(["2026-01-01 05:00"]).tz_localize(CET),
            [datetime.datetime(2026, 1, 1, 5, tzinfo=CET)],
        ),
    ],
)
def test_values_of_a_frame_become_those_of_python(series: Any, expected: list[Any]) -> None:
    assert values_of(series) == expected


def test_whole_numbers_beside_fractions_stay_whole() -> None:
    batch = batch_of(pd.DataFrame({"number": [1, 2], "share": [0.5, 1.0]}))
    assert [tuple(map(type, row)) for row in batch.rows] == [(int, float), (int, float)]


def test_the_index_is_left_out() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index([7, 7], name="key"))
    assert batch_of(frame).columns == ("a",)
    assert [tuple(row) for row in batch_of(frame).rows] == [(1,), (2,)]


def test_a_column_that_stands_twice_is_named() -> None:
    with pytest.raises(TableError, match="has the column a, b twice"):
        batch_of(pd.DataFrame([[1, 2, 3, 4, 5]], columns=["a", "b", "a", "c", "b"]))


DTYPES = [
    (sa.BigInteger(), "Int64", "int64", [1, 2**63 - 1]),
    (mysql.BIGINT(unsigned=True), "UInt64", "uint64", [1, 2**64 - 1]),
    (sa.Double(), "float64", "float64", [1.5, -0.0]),
    (sa.Text(), "str", "str", ["a", "5"]),
    (sa.Boolean(), "boolean", "bool", [True, False]),
    (mysql.TINYINT(display_width=1), "boolean", "bool", [1, 0]),
    (mysql.TINYINT(), "Int64", "int64", [1, 2]),
    (sa.DateTime(), "datetime64[us]", "datetime64[us]", [naive(1, 1, 1), naive(9999, 12, 31)]),
    (sa.Date(), "datetime64[us]", "datetime64[us]", [datetime.date(2026, 1, 1), datetime.date(1, 1, 1)]),
    (sa.Numeric(10, 2), "object", "object", [Decimal("1.10"), Decimal("2.00")]),
    (sa.LargeBinary(), "object", "object", [b"a", b""]),
]


@pytest.mark.parametrize(("kind", "nullable", "required", "values"), DTYPES)
def test_the_type_of_a_column_does_not_depend_on_the_rows(
    kind: Any, nullable: str, required: str, values: list[Any]
) -> None:
    for dtype, may_be_null in ((nullable, True), (required, False)):
        table_column = sa.Table("t", sa.MetaData(), sa.Column("thing", kind, nullable=may_be_null)).columns["thing"]
        assert dtype_of(table_column) == dtype
        for rows in ([], values, [*values, None] if may_be_null else values):
            frame = frame_of(["thing"], [(value,) for value in rows], {"thing": dtype})
            assert str(frame["thing"].dtype) == dtype
            loaded = [None if pd.isna(value) else value for value in frame["thing"]]
            dates = [pd.Timestamp(value) if isinstance(value, datetime.date) else value for value in rows]
            assert loaded == dates


def test_a_value_that_does_not_fit_the_type_of_its_column_is_named() -> None:
    with pytest.raises(TableError, match="The column flag cannot be loaded as bool"):
        frame_of(["flag"], [(2,)], {"flag": "bool"})
    with pytest.raises(TableError, match="The column number cannot be loaded as int64"):
        frame_of(["number"], [("many",)], {"number": "int64"})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (sa.Integer(), np.int64(5), 5),
        (sa.Integer(), 5.0, 5),
        (sa.Integer(), float("nan"), None),
        (sa.Integer(), np.float64("nan"), None),
        (sa.Integer(), True, True),
        (sa.Integer(), "7", 7),
        (sa.Double(), np.float32(0.5), 0.5),
        (sa.Double(), 1.5, 1.5),
        (sa.Numeric(), Decimal("1.10"), "1.10"),
        (sa.Text(), "007", "007"),
        (sa.Text(), np.str_("a"), "a"),
        (sa.Text(), [1, None, "ü"], '[1, null, "ü"]'),
        (sa.Text(), np.array([1.5, 2.0]), "[1.5, 2.0]"),
        (sa.Text(), {"a": [np.int64(1), np.float32(0.5)]}, '{"a": [1, 0.5]}'),
        (sa.Text(), {"at": naive(2026, 1, 1, 5)}, '{"at": "2026-01-01T05:00:00"}'),
        (sa.LargeBinary(), b"\x00", b"\x00"),
        (sa.DateTime(), datetime.datetime(2026, 1, 1, 0, 30, tzinfo=CET), "2025-12-31 23:30:00"),
        (sa.DateTime(), pd.Timestamp("2026-01-01 00:30", tz=CET), "2025-12-31 23:30:00"),
        (sa.DateTime(), np.datetime64("2026-01-01T05:00:00"), "2026-01-01 05:00:00"),
        (sa.DateTime(), datetime.date(2026, 1, 1), "2026-01-01 00:00:00"),
        (sa.DateTime(), "2026-01-01T05:00Z", "2026-01-01 05:00:00"),
        (sa.DateTime(), naive(2026, 1, 1, 5, 59, 59, 999_999), "2026-01-01 05:59:59.999999"),
        (mysql.DATETIME(), naive(2026, 1, 1, 5, 59, 59, 999_999), "2026-01-01 05:59:59"),
        (mysql.DATETIME(fsp=3), naive(2026, 1, 1, 5, 59, 59, 999_999), "2026-01-01 05:59:59.999"),
        (mysql.TIMESTAMP(fsp=6), naive(2026, 1, 1, 5, 0, 0, 7), "2026-01-01 05:00:00.000007"),
        (sa.Date(), datetime.datetime(2026, 1, 1, 0, 30, tzinfo=CET), "2026-01-01"),
        (sa.Date(), datetime.date(2026, 1, 1), "2026-01-01"),
        (sa.Date(), "2026-01-01 05:00", "2026-01-01"),
    ],
)
def test_a_value_is_written_as_its_column_holds_it(kind: Any, value: Any, expected: Any) -> None:
    assert stored_values(column(kind), [value, None]) == [expected, None]


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (sa.Integer(), 1.5, "which is not a whole number"),
        (sa.Integer(), "one", "which is not a whole number"),
        (sa.Integer(), [1], "which is not a whole number"),
        (sa.Double(), float("inf"), "which no table can hold"),
        (sa.Double(), np.float64("-inf"), "which no table can hold"),
        (sa.Integer(), float("inf"), "which no table can hold"),
        (sa.Text(), [float("nan")], "which is not JSON"),
        (sa.Text(), [object()], "which is not JSON"),
        (sa.DateTime(), "noon", "which is no time"),
        (sa.DateTime(), 5, "which is no time"),
        (sa.Date(), 5, "which is no date"),
    ],
)
def test_a_value_that_a_column_cannot_hold_is_named(kind: Any, value: Any, sentence: str) -> None:
    with pytest.raises(TableError, match=sentence) as fault:
        stored_values(column(kind), [None, value])
    assert str(fault.value).startswith("The column thing of things was given ")


def test_a_long_value_is_not_shown_in_full() -> None:
    with pytest.raises(TableError) as fault:
        stored_values(column(sa.DateTime()), ["x" * 10_000])
    assert len(str(fault.value)) < 300


def test_json_of_a_list_can_be_read_back() -> None:
    value = {"text": 'it\'s "1" \\ 🍋', "numbers": [1, 2.5, None, True]}
    (text,) = stored_values(column(sa.Text()), [value])
    assert json.loads(text) == value
