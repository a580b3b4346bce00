"""Columns that a server hands over packed: the values that are stored, and whether they have changed."""

import math
import random
import struct
from collections.abc import Sequence
from itertools import starmap
from typing import Any

import numpy as np
import pytest

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


@pytest.mark.parametrize("where", [None, "id % 5 = 0"], ids=["packed rows", "row by row"])
def test_packed_columns_are_what_is_stored(sql: Sql, where: str | None) -> None:
    rows = hostile_rows()
    make_table(sql, rows)
    found = read(TableSlice("kinds", None, (), ("id", "all"), where, LISTS, packed_lists=True))
    assert {type(each) for each in found} == {bytes}
    assert [exactly(unpacked(each, len(COLUMNS))) for each in found] == list(map(exactly, rows[:: 5 if where else 1]))


def test_ten_thousand_rows_of_columns_end_as_they_must_and_the_model_gets_what_is_stored(sql: Sql) -> None:
    rows = hostile_rows()
    make_table(sql, rows)
    kinds = ["f4", "f8", "i8", "f8", "?", "O", "O"]
    dtype = np.dtype(list(zip(COLUMNS, kinds, strict=True)))
    features = tuple(Feature(name, nullable=name == "perhaps") for name in COLUMNS)
    found, reader = read(), FeatureReader(features, False, dtype)
    checked = check_items(found, reader)

    def code(number: float, _perhaps: float | None, _small: int, *others: Any) -> str | None:
        tiny, flag, words, _off = others
        with np.errstate(over="ignore"):
            if np.isinf(np.float32(number)):
                return "too_large"
        if tiny is None:
            return "null_value"
        if flag not in (0, 1):
            return "not_a_boolean"
        return "null_value" if words is None else None

    codes = list(starmap(code, rows))
    assert {bad.index: bad.code for bad in checked.bad} == {key: found for key, found in enumerate(codes) if found}
    good = [key for key, found in enumerate(codes) if found is None]
    assert checked.positions.tolist() == good
    assert len(good) > ROWS / 20
    expected = [
        (float(np.float32(number)), math.nan if perhaps is None else perhaps, small, float(tiny), bool(flag), *texts)
        for number, perhaps, small, tiny, flag, *texts in (rows[key] for key in good)
    ]
    assert list(map(exactly, checked.features.tolist())) == list(map(exactly, expected))
    # Among themselves they are taken all at once, not one by one.
    good_alone = check_items([found[key] for key in good], reader)
    assert list(map(exactly, good_alone.features.tolist())) == list(map(exactly, expected))


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
    ],
)
def test_a_row_of_which_a_column_has_changed_is_left(sql: Sql, change: str) -> None:
    row = (0.3, None, 2**32 - 1, None, 1, "a", "b")
    make_table(sql, [row, row])
    (batch,) = read_batches(engine_from_environment(), PACKED)
    answers = [(key, values, "done") for key, values in batch.rows]
    sql(f"UPDATE kinds SET {change} WHERE id = 1")
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
