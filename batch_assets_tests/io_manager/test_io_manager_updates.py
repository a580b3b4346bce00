"""The MySQL IO manager as it updates columns of existing rows: what is set, what is left, what goes together."""

import datetime
import json
import threading
from decimal import Decimal
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.stored_assets import FIRST, HOURS, SECOND, refused, store, stored

ODD_TEXTS = [
    "plain",
    "",
    'it\'s "quoted" and `quoted`',
    "back\\slash \\n \\' \\",
    "100% %s %(x)s %%",
    "? :name {x} $1",
    "line\nbreak\ttab\r",
    "żółć ünï 日本語",
    "🍋🏳️‍🌈",
    "x" * 70_000,
    "); DROP TABLE orders; --",
]


def naive(*parts: int) -> datetime.datetime:
    """A time without a zone, which in the database is one of UTC."""
    return datetime.datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


@pytest.fixture(autouse=True)
def orders(database_environment: dict[str, str], sql: Sql) -> None:
    json_type = "JSON" if "MYSQL_SERVER" in database_environment else "TEXT"
    sql(
        f"CREATE TABLE orders (id BIGINT PRIMARY KEY, `values` {json_type} NOT NULL, `order` {json_type} NULL, "
        "note LONGTEXT NULL, number BIGINT NULL, at DATETIME NOT NULL)"
    )
    for number in range(1, 5):
        hour = 5 if number < 4 else 6
        sql(
            "INSERT INTO orders VALUES (%s, %s, NULL, 'old', 0, %s)", number, f"[{number}]", f"2026-01-01 0{hour}:10:00"
        )


def updating(rows: Any, *columns: str, **metadata: Any) -> dg.AssetsDefinition:
    given = {"partition_expr": "at", "key": "id", "update_columns": list(columns)} | metadata
    return stored(lambda _: rows() if callable(rows) else rows, None, HOURS, **given)


def notes(sql: Sql) -> list[str | None]:
    return [row[0] for row in sql("SELECT note FROM orders ORDER BY id")]


def test_values_are_set_in_the_rows_of_their_keys(sql: Sql) -> None:
    frame = pd.DataFrame({"number": [30, 10], "note": ["three", "one"], "id": [3, 1]})
    metadata = store(updating(frame, "note", "number"), FIRST)
    assert (metadata["rows"], metadata["left"]) == (2, 0)
    assert metadata["dagster/table_name"] == "orders"
    assert metadata["write_seconds"] >= 0
    assert sql("SELECT id, note, number FROM orders ORDER BY id") == [
        (1, "one", 10),
        (2, "old", 0),
        (3, "three", 30),
        (4, "old", 0),
    ]


def test_a_row_that_has_the_value_already_counts_as_updated() -> None:
    frame = pd.DataFrame({"id": [1, 2], "note": ["old", "new"]})
    for _ in range(2):
        metadata = store(updating(frame, "note"), FIRST)
        assert (metadata["rows"], metadata["left"]) == (2, 0)


def test_a_column_may_be_set_to_null(sql: Sql) -> None:
    frame = pd.DataFrame({"id": [1, 2, 3], "note": [None, "x", None], "number": pd.array([None, 5, pd.NA], "Int64")})
    store(updating(frame, "note", "number"), FIRST)
    assert sql("SELECT note, number FROM orders ORDER BY id") == [(None, None), ("x", 5), (None, None), ("old", 0)]
    store(updating(frame.assign(note=None, number=None), "note", "number"), FIRST)
    assert notes(sql) == [None, None, None, "old"]


def test_texts_arrive_as_they_are(sql: Sql) -> None:
    for text in ODD_TEXTS:
        frame = pd.DataFrame({"id": [1, 2, 3], "note": ["short", text, None]})
        store(updating(frame, "note"), FIRST)
        assert notes(sql)[:3] == ["short", text, None]


def test_many_texts_of_all_lengths_arrive_in_one_batch(sql: Sql) -> None:
    frame = pd.DataFrame({"id": [1, 2, 3], "note": ["x", "y" * 70_000, "z" * 300]})
    store(updating(frame, "note"), FIRST)
    assert [len(note or "") for note in notes(sql)] == [1, 70_000, 300, 3]


def test_json_arrives_whole(sql: Sql) -> None:
    values = [[0.1], {"text": ODD_TEXTS, "long": ["y" * 1000] * 30}, None]
    for given in (values, [value if value is None else json.dumps(value) for value in values]):
        store(updating(pd.DataFrame({"id": [1, 2, 3], "order": given}), "order"), FIRST)
        loaded = [row[0] for row in sql("SELECT `order` FROM orders WHERE id < 4 ORDER BY id")]
        assert [None if text is None else json.loads(text) for text in loaded] == values


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("BIGINT", [2**63 - 1, None, -(2**63)]),
        ("BIGINT UNSIGNED", [2**63 - 1, 1, 0]),
        ("DECIMAL(30,10)", [Decimal("1.5"), Decimal("-0.25"), None]),
        ("DOUBLE", [1.5, 1e300, -1e-300]),
        ("DOUBLE", [1, 2.5, None]),
        ("DATETIME", [naive(2026, 1, 1, 5), None, naive(1970, 1, 2)]),
        ("DATE", [datetime.date(2026, 1, 1), None, datetime.date(1900, 12, 31)]),
        ("VARBINARY(300)", [b"\x00\xff'\\%s", b"", bytes(range(256))]),
        ("VARCHAR(9)", ["007", "1e3", "null"]),
        ("BOOLEAN", [True, False, None]),
    ],
)
def test_values_of_every_type_keep_their_value(
    sql: Sql, database_environment: dict[str, str], kind: str, values: list[Any]
) -> None:
    sql(f"ALTER TABLE orders ADD COLUMN extra {kind} NULL")
    frame = pd.DataFrame({"id": [1, 2, 3], "extra": pd.Series(values, dtype=object)})
    store(updating(frame, "extra"), FIRST)
    loaded = [row[0] for row in sql("SELECT extra FROM orders WHERE id < 4 ORDER BY id")]
    if "MYSQL_SERVER" not in database_environment and kind in {"DATETIME", "DATE"}:
        values = [None if value is None else str(value) for value in values]
    if "MYSQL_SERVER" not in database_environment and kind.startswith("DECIMAL"):
        values = [None if value is None else float(value) for value in values]
    assert loaded == values


def test_a_value_that_a_column_cannot_hold_is_refused(sql: Sql) -> None:
    for values, sentence in (
        ([1.5, 2], "which is not a whole number"),
        ([float("inf"), 2], "which no table can hold"),
        (["many", 2], "which is not a whole number"),
    ):
        frame = pd.DataFrame({"id": [1, 2], "number": pd.Series(values, dtype=object)})
        assert sentence in refused(updating(frame, "number"), FIRST)
    assert sql("SELECT DISTINCT number FROM orders") == [(0,)]


def test_a_null_where_none_may_be_is_refused(sql: Sql) -> None:
    frame = pd.DataFrame({"id": [1, 2], "values": ["[9]", None]})
    assert "refused a statement" in refused(updating(frame, "values"), FIRST)
    assert [json.loads(row[0]) for row in sql("SELECT `values` FROM orders ORDER BY id")] == [[1], [2], [3], [4]]


def test_a_row_that_was_changed_since_it_was_read_is_left(sql: Sql) -> None:
    def rows() -> Batches:
        read = {row[0]: row[1] for row in sql("SELECT id, `values` FROM orders WHERE id < 4")}
        sql("UPDATE orders SET `values` = '[99]' WHERE id = 2")
        return Batches([Batch(("id", "values", "note"), [(key, read[key], "new") for key in sorted(read)])])

    metadata = store(updating(rows, "note", unchanged_columns=["values"]), FIRST)
    assert (metadata["rows"], metadata["left"]) == (2, 1)
    assert notes(sql) == ["new", "old", "new", "old"]


def test_a_null_that_stayed_one_is_unchanged(sql: Sql) -> None:
    sql("UPDATE orders SET `order` = '[]' WHERE id = 2")
    batch = Batch(("id", "order", "note"), [(1, None, "new"), (2, None, "new"), (3, "[]", "new")])
    metadata = store(updating(Batches([batch]), "note", unchanged_columns=["order"]), FIRST)
    assert (metadata["rows"], metadata["left"]) == (1, 2)
    assert notes(sql) == ["new", "old", "old", "old"]


def test_a_row_that_was_deleted_is_left_and_not_brought_back(sql: Sql) -> None:
    sql("DELETE FROM orders WHERE id = 2")
    metadata = store(updating(pd.DataFrame({"id": [1, 2, 3], "note": "new"}), "note"), FIRST)
    assert (metadata["rows"], metadata["left"]) == (2, 1)
    assert sql("SELECT id, note FROM orders ORDER BY id") == [(1, "new"), (3, "new"), (4, "old")]


def test_rows_of_another_partition_are_not_touched(sql: Sql) -> None:
    frame = pd.DataFrame({"id": [3, 4], "note": "new"})
    metadata = store(updating(frame, "note"), FIRST)
    assert (metadata["rows"], metadata["left"]) == (1, 1)
    assert notes(sql) == ["old", "old", "new", "old"]
    store(updating(frame, "note"), SECOND)
    assert notes(sql) == ["old", "old", "new", "new"]


def test_a_partition_with_odd_characters_is_updated_alone(sql: Sql) -> None:
    odd = 'it\'s 100%\\ "ünï" 🍋 :x'
    sql("UPDATE orders SET note = %s WHERE id = 2", odd)
    regions = dg.StaticPartitionsDefinition([odd, "other"])
    frame = pd.DataFrame({"id": [1, 2, 3], "number": 7})
    asset = stored(lambda _: frame, None, regions, partition_expr="note", key="id", update_columns=["number"])
    assert store(asset, odd)["rows"] == 1
    assert sql("SELECT id FROM orders WHERE number = 7") == [(2,)]


def test_rows_may_be_found_by_a_text(sql: Sql, database_environment: dict[str, str]) -> None:
    # A server refuses to compare texts of two collations, and what it is sent has that of the connection.
    collations = [""]
    if "MYSQL_SERVER" in database_environment:
        collations = ["COLLATE utf8mb4_bin", "COLLATE utf8mb4_unicode_ci", "CHARACTER SET latin1"]
    for position, collation in enumerate(collations):
        sql(f"CREATE TABLE things_{position} (code VARCHAR(40) {collation} PRIMARY KEY, amount INT)")
        for code in ("it's", "é%", "b"):
            sql(f"INSERT INTO things_{position} VALUES (%s, 0)", code)
        frame = pd.DataFrame({"code": ["é%", "it's", "c"], "amount": [1, 2, 3]})
        metadata = store(stored(lambda _, f=frame: f, name=f"things_{position}", key="code", update_columns=["amount"]))
        assert (metadata["rows"], metadata["left"]) == (2, 1)
        assert dict(sql(f"SELECT code, amount FROM things_{position}")) == {"it's": 2, "é%": 1, "b": 0}


def test_rows_may_be_found_by_a_time(sql: Sql) -> None:
    sql("CREATE TABLE summary (hour DATETIME PRIMARY KEY, amount INT)")
    for hour in ("05", "06"):
        sql(f"INSERT INTO summary VALUES ('2026-01-01 {hour}:00:00', 0)")
    frame = pd.DataFrame({"hour": [pd.Timestamp("2026-01-01 06:00"), pd.Timestamp("2026-01-01 07:00")], "amount": 1})
    metadata = store(stored(lambda _: frame, name="summary", key="hour", update_columns=["amount"]))
    assert (metadata["rows"], metadata["left"]) == (1, 1)
    assert sql("SELECT amount FROM summary ORDER BY hour") == [(0,), (1,)]


def test_no_rows_are_a_success(sql: Sql) -> None:
    for rows in (Batches([]), Batches([Batch(("id", "note"), [])]), pd.DataFrame({"id": [], "note": []})):
        metadata = store(updating(rows, "note"), FIRST)
        assert (metadata["rows"], metadata["left"]) == (0, 0)
    assert set(notes(sql)) == {"old"}


def test_more_rows_than_one_statement_takes_are_updated(sql: Sql) -> None:
    sql("DELETE FROM orders")
    for start in range(0, 25_000, 5_000):
        rows = ", ".join(f"({n}, '[]', NULL, 'old', 0, '2026-01-01 05:10:00')" for n in range(start, start + 5_000))
        sql(f"INSERT INTO orders VALUES {rows}")
    frame = pd.DataFrame({"id": range(25_000), "note": "x" * 300, "number": range(25_000)})
    metadata = store(updating(frame, "note", "number"), FIRST)
    assert (metadata["rows"], metadata["left"]) == (25_000, 0)
    assert sql("SELECT COUNT(*), SUM(number), MIN(LENGTH(note)) FROM orders") == [(25_000, sum(range(25_000)), 300)]


def test_what_is_done_in_the_transaction_is_undone_with_its_batch(sql: Sql) -> None:
    sql("CREATE TABLE log (id INT)")

    def note(connection: Any, batch: Batch) -> None:
        for key, _ in batch.rows:
            connection.exec_driver_sql(f"INSERT INTO log VALUES ({key})")
        if batch.rows[0][0] == 2:
            raise dg.Failure("this batch must not be")

    batches = [Batch(("id", "note"), [(key, "new")]) for key in (1, 2, 3)]
    assert "must not be" in refused(updating(Batches(batches, in_transaction=note), "note"), FIRST)
    # What another connection had in hand meanwhile may have been written, each with its own.
    assert notes(sql)[:2] == ["new", "old"]
    assert sql("SELECT id FROM log ORDER BY id") == sql("SELECT id FROM orders WHERE note = 'new' ORDER BY id")


def test_the_next_batch_is_made_while_the_last_is_written(sql: Sql) -> None:
    writing, made = threading.Event(), threading.Event()

    def wait(_: Any, batch: Batch) -> None:
        if batch.rows[0][0] == 1:
            writing.set()
            assert made.wait(30), "the next batch was not made meanwhile"

    def stream() -> Any:
        yield Batch(("id", "note"), [(1, "new")])
        assert writing.wait(30)
        made.set()
        yield Batch(("id", "note"), [(2, "new")])

    store(updating(Batches(stream(), in_transaction=wait), "note"), FIRST)
    assert notes(sql) == ["new", "new", "old", "old"]


def test_a_stream_that_ends_in_an_error_keeps_what_was_written(sql: Sql) -> None:
    def stream() -> Any:
        yield Batch(("id", "note"), [(1, "new")])
        yield Batch(("id", "note"), [(2, "new")])
        raise dg.Failure("no third batch")

    assert "no third batch" in refused(updating(Batches(stream()), "note"), FIRST)
    assert notes(sql) == ["new", "new", "old", "old"]


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"key": None}, "update_columns needs the one column"),
        ({"key": ["id", "note"]}, "update_columns needs the one column"),
        ({"key": "number"}, "The column number of orders is no key"),
        ({"key": "nothing"}, "has no column nothing"),
        ({"update_columns": ["colour"]}, "has no column colour"),
        ({"unchanged_columns": ["colour"]}, "has no column colour"),
        ({"unchanged_columns": ["number"]}, "neither text nor JSON"),
        ({"update_columns": ["number"]}, "The rows for orders have no column number; they have id, note"),
    ],
)
def test_metadata_that_cannot_be_are_refused(sql: Sql, metadata: dict[str, Any], sentence: str) -> None:
    frame = pd.DataFrame({"id": [1], "note": ["new"]})
    assert sentence in refused(updating(frame, "note", **metadata), FIRST)
    assert notes(sql) == ["old"] * 4
