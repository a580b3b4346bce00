"""Columns that a server hands over packed: the values that are stored, and whether they have changed."""

import math
import random
import struct
from collections.abc import Sequence
from dataclasses import replace
from itertools import starmap
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.reading import read_batches
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.update_statements import ColumnUpdate
from batch_assets.database.slices.updating import update_rows
from batch_assets.inference.feature_format import FeatureReader
from batch_assets.inference.item_format import check_items
from batch_assets.packed_lists import unpacked
from batch_assets.settings.items import Feature
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment

pytestmark = pytest.mark.usefixtures("server_environment")

ROWS = 10_000
COLUMNS = {
    "number": "DOUBLE NOT NULL",
    "perhaps": "DOUBLE",
    "small": "INT UNSIGNED NOT NULL",
    "tiny": "TINYINT",
    "flag": "BOOLEAN NOT NULL",
    "words": "LONGTEXT CHARACTER SET utf8mb4",
    "50 % `off`": "VARCHAR(9) CHARACTER SET latin1 NOT NULL",
    "whole": "DOUBLE NOT NULL",
    "yes": "DOUBLE NOT NULL",
}
LISTS = (("all", tuple(COLUMNS)),)
PACKED = TableSlice("kinds", columns=("id", "all"), json_lists=LISTS, packed_lists=True)
# Not -0.0, of which MariaDB stores 0.
NUMBERS = [0.0, 0.1 + 0.2, 1 / 3, -1e15, 5e-324, 2.2e-308, 1.7976931348623157e308, -3.5e38, 123456789012345680.0]
TEXTS = ["", " ", "x ", "NULL", "null", "a\tb\0c", "'\"\\", "Blütenblatt 花 🌸", "\uffff", "100 % ' ` ; --", "[1, 2]"]


def hostile_rows() -> list[tuple[Any, ...]]:
    """Rows of every kind, the same ones every time."""
    chance = random.Random(1)

    def number() -> float:
        bits: float = struct.unpack("<d", chance.randbytes(8))[0]
        return bits if math.isfinite(bits) and chance.random() < 0.7 else chance.choice(NUMBERS)

    def words() -> str:
        return chance.choice(TEXTS) + "".join(chance.choices("ab 花🌸ü\xff\xfe", k=chance.randrange(5)))

    return [
        (
            number(),
            chance.choice([None, number()]),
            chance.choice([0, 1, 2**32 - 1, chance.randrange(2**32)]),
            chance.choice([None, -128, 127, 0]),
            chance.choice([0, 1, 1, 2]),
            chance.choice([None, words()]),
            chance.choice(["", "ÿþé", "x", "9" * 9]),
            chance.choice([0.0, 1.0, -7.0, 2.0**62, 0.5, 1e19]),
            chance.choice([0.0, 1.0, 1.0, 2.0]),
        )
        for _ in range(ROWS)
    ]


def make_table(sql: Sql, rows: Sequence[tuple[Any, ...]]) -> None:
    columns = ", ".join(f"`{name.replace('`', '``')}` {kind}" for name, kind in COLUMNS.items())
    sql(f"CREATE TABLE kinds (id INT PRIMARY KEY, {columns}, answer TEXT)")
    for start in range(0, len(rows), 1_000):
        part = [(key, *row) for key, row in enumerate(rows[start : start + 1_000], start)]
        marks = ", ".join([f"({', '.join(['%s'] * len(part[0]))}, NULL)"] * len(part))
        sql(f"INSERT INTO kinds VALUES {marks}", *(value for row in part for value in row))


def read(table_slice: TableSlice = PACKED) -> list[Any]:
    batches = [batch.column("all") for batch in read_batches(engine_from_environment(), table_slice)]
    return [value for batch in batches for value in batch]


def exactly(values: Sequence[Any]) -> str:
    """Values such that 1 is not the same as 1.0 or True."""
    return repr(list(values))


def as_numbers_of_json(values: Sequence[Any]) -> str:
    """Values such that a number is an integer where it is whole."""
    return exactly([int(each) if isinstance(each, float) and each.is_integer() else each for each in values])


@pytest.mark.parametrize("where", [None, "id % 5 = 0"], ids=["packed rows", "row by row"])
def test_packed_columns_are_what_is_stored(sql: Sql, where: str | None) -> None:
    rows = hostile_rows()
    make_table(sql, rows)
    found = read(TableSlice("kinds", None, (), ("id", "all"), where, LISTS, packed_lists=True))
    assert {type(each) for each in found} == {bytes}
    expected = rows[:: 5 if where else 1]
    assert [exactly(unpacked(each, len(COLUMNS))) for each in found] == list(map(as_numbers_of_json, expected))


def test_of_ten_thousand_rows_of_columns_each_that_does_not_fit_fails_and_the_model_gets_the_others(sql: Sql) -> None:
    rows = hostile_rows()
    make_table(sql, rows)
    kinds = ["f4", "f8", "i8", "f8", "?", "O", "O", "i8", "?"]
    dtype = np.dtype(list(zip(COLUMNS, kinds, strict=True)))
    features = tuple(Feature(name, nullable=name == "perhaps") for name in COLUMNS)
    found, reader = read(), FeatureReader(features, False, dtype)
    checked = check_items(found, reader)

    def code(number: float, _perhaps: float | None, _small: int, *others: Any) -> str | None:
        tiny, flag, words, _off, whole, yes = others
        with np.errstate(over="ignore"):
            faults = [
                ("too_large", np.isinf(np.float32(number))),
                ("null_value", tiny is None),
                ("not_a_boolean", flag not in (0, 1)),
                ("null_value", words is None),
                ("too_large", whole == 1e19),
                ("not_an_integer", not whole.is_integer()),
                ("not_a_boolean", yes not in (0, 1)),
            ]
        return next((name for name, found in faults if found), None)

    codes = list(starmap(code, rows))
    assert {bad.index: bad.code for bad in checked.bad} == {key: found for key, found in enumerate(codes) if found}
    good = [key for key, found in enumerate(codes) if found is None]
    assert checked.positions.tolist() == good
    assert len(good) > ROWS / 20
    expected = [
        exactly(
            (
                float(np.float32(number)),
                math.nan if perhaps is None else perhaps,
                small,
                float(tiny),
                bool(flag),
                words,
                off,
                int(whole),
                bool(yes),
            )
        )
        for number, perhaps, small, tiny, flag, words, off, whole, yes in (rows[key] for key in good)
    ]
    assert list(map(exactly, checked.features.tolist())) == expected
    # Among themselves they are taken all at once, not one by one.
    at_once = reader.convert([found[key] for key in good])
    assert at_once is not None
    assert list(map(exactly, at_once.features.tolist())) == expected


def test_long_rows_of_which_the_server_cuts_off_what_is_too_much_are_read_whole(sql: Sql) -> None:
    rows = [(0.5, None, key, None, 1, str(key) * 2_500, "x", 1.0, 0.0) for key in range(1_000, 3_000)]
    # With its neighbours, more than the server packs at once.
    rows[1_500] = (0.5, None, 0, None, 1, "long" * 500_000, "x", 1.0, 0.0)
    make_table(sql, rows)
    assert [unpacked(each, len(COLUMNS))[5] for each in read()] == [row[5] for row in rows]


def test_a_packed_list_alone_is_read_many_rows_at_a_time(sql: Sql) -> None:
    make_table(sql, hostile_rows()[:3_000])
    asked: list[str] = []

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    engine = engine_from_environment()
    event.listen(engine, "before_cursor_execute", listen)
    try:
        found = read(replace(PACKED, columns=("all",)))
    finally:
        event.remove(engine, "before_cursor_execute", listen)
    assert found == read()
    assert len(asked) < 15


@pytest.mark.parametrize(
    "change",
    [
        "number = 0.30000000000000004",
        "perhaps = 0",
        "small = 4294967294",
        "tiny = 0",
        "flag = 0",
        "words = 'A', `50 % ``off``` = 'b'",
        "words = 'ab', `50 % ``off``` = ''",
        "words = NULL",
        "whole = 2",
        "yes = 5e-324",
    ],
)
@pytest.mark.parametrize("far", [False, True], ids=["keys close together", "keys far apart"])
def test_a_row_of_which_a_column_has_changed_is_left(sql: Sql, change: str, far: bool) -> None:
    row = (0.3, None, 2**32 - 1, None, 1, "a", "b", 1.0, 0.0)
    make_table(sql, [row, row])
    changed = 1_000_000 if far else 1
    sql("UPDATE kinds SET id = %s WHERE id = 1", changed)
    (batch,) = read_batches(engine_from_environment(), PACKED)
    answers = [(key, values, "done") for key, values in batch.rows]
    sql(f"UPDATE kinds SET {change} WHERE id = {changed}")
    update = ColumnUpdate("id", ("answer",), ("all",))
    done = update_rows(engine_from_environment(), PACKED, update, Batches([Batch(("id", "all", "answer"), answers)]))
    assert (done.rows, done.skipped) == (1, 1)
    assert sql("SELECT answer FROM kinds ORDER BY id") == [("done",), (None,)]


@pytest.mark.parametrize("kind", ["BIGINT", "DECIMAL(12, 3)", "DATE", "JSON", "ENUM('1', '2')"])
def test_columns_that_cannot_be_packed_come_as_a_json_list(sql: Sql, kind: str) -> None:
    sql(f"CREATE TABLE others (id INT PRIMARY KEY, number DOUBLE, other {kind})")
    sql("INSERT INTO others (id, number) VALUES (1, 0.5)")
    lists = (("all", ("number", "other")),)
    assert read(TableSlice("others", columns=("all",), json_lists=lists, packed_lists=True)) == ["[0.5, null]"]
