"""Rows that the server hands over packed: the same as one by one, whatever is in them."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from batch_assets.database.connection.engine import PACKED_BYTES
from batch_assets.database.slices.reading import read_batches
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment


@pytest.fixture
def packed(server_environment: dict[str, str]) -> Iterator[list[str]]:
    """The statements in which rows were asked for packed."""
    asked: list[str] = []

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "GROUP_CONCAT" in statement:
            asked.append(statement)

    engine = engine_from_environment()
    event.listen(engine, "before_cursor_execute", listen)
    yield asked
    event.remove(engine, "before_cursor_execute", listen)


def read(table_slice: TableSlice) -> list[tuple[Any, ...]]:
    return [tuple(row) for batch in read_batches(engine_from_environment(), table_slice) for row in batch.rows]


def test_packed_rows_are_what_is_stored(sql: Sql, packed: list[str]) -> None:
    texts = [
        "",
        " ",
        "x ",
        "NULL",
        "\n",
        "a\tb\0c",
        "'\"\\",
        "é",
        "\U0001f600\uffff",
        "\u00ff\u00fe",
        "[5.1, 3.5]",
        None,
    ]
    sql(
        "CREATE TABLE many (id BIGINT UNSIGNED PRIMARY KEY, text LONGTEXT CHARACTER SET utf8mb4, "
        "latin VARCHAR(9) CHARACTER SET latin1 NOT NULL, small TINYINT, "
        "padded INT(8) UNSIGNED ZEROFILL NOT NULL, json JSON)"
    )
    first = 2**63
    for start in range(0, 6_000, 2_000):
        rows = [
            (first + 2 * n, texts[n % len(texts)], "ÿþé", None if n % 3 else -(n % 128), n, '{"a": [1]}')
            for n in range(start, start + 2_000)
        ]
        marks = ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(rows))
        sql(f"INSERT INTO many VALUES {marks}", *(value for row in rows for value in row))
    found = read(TableSlice("many"))
    assert packed
    assert found == [tuple(row) for row in sql("SELECT * FROM many ORDER BY id")]
    assert read(TableSlice("many", columns=("small", "id"), where="text = 'NULL'")) == sql(
        "SELECT small, id FROM many WHERE text = 'NULL' ORDER BY id"
    )


def test_rows_that_lie_far_from_each_other_are_not_packed(sql: Sql, packed: list[str]) -> None:
    sql("CREATE TABLE things (id INT PRIMARY KEY, kind VARCHAR(9) NOT NULL)")
    for start in range(0, 30_000, 10_000):
        numbers = range(start, start + 10_000)
        sql("INSERT INTO things VALUES " + ", ".join(f"({n}, '{'near' if n % 5 else 'far'}')" for n in numbers))
    assert sorted(read(TableSlice("things", where="kind = 'far'"))) == [
        (number, "far") for number in range(0, 30_000, 5)
    ]
    assert read(TableSlice("things", where="id = 5")) == [(5, "far")]
    assert not packed


def test_no_part_of_packed_rows_is_cut_off(sql: Sql, packed: list[str]) -> None:
    sql("CREATE TABLE large (id INT PRIMARY KEY, text LONGTEXT NOT NULL)")
    # Of 500 rows with 8,000 bytes each, the key and two ends included, the last one has a byte too many.
    length = PACKED_BYTES // 500 - 6
    rows = [(1_000 + number, "x" * (length + (number == 499))) for number in range(500)]
    rows += [(1_500, "y" * (PACKED_BYTES + 1)), *((number, "z") for number in range(1_501, 3_000))]
    for start in range(0, len(rows), 100):
        part = rows[start : start + 100]
        sql(
            f"INSERT INTO large VALUES {', '.join(['(%s, %s)'] * len(part))}", *(value for row in part for value in row)
        )
    assert read(TableSlice("large")) == rows
    assert packed
