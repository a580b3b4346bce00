"""Hours of `items`: counted right."""

import datetime
import json

import pytest
import sqlalchemy as sa

from batch_assets.database.records.failed_items import FailedItems, failed_ids
from batch_assets.database.records.hour_counts import count_by_hour, first_created, model_versions, take_stock
from batch_assets.database.slices.batch import Batch, FailedRow
from batch_assets.hours import Hour
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, TABLES, engine_from_environment
from batch_assets_tests.support.pipeline import END, GOOD, START, insert_items

pytestmark = pytest.mark.usefixtures("tables")

HOUR = Hour(datetime.datetime.fromisoformat(START))
NEXT = Hour(HOUR.end)
BEFORE, LAST = "2026-11-02 04:59:59", "2026-11-02 05:59:59"


@pytest.fixture
def engine(tables: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


def failed(key: int, text: str, code: str = "code", message: str = "message") -> FailedRow:
    return FailedRow(key, text, code, message)


def recorded(engine: sa.Engine, *rows: FailedRow, predicted: tuple[int, ...] = (), run_id: str = "run") -> None:
    """Records a batch as a run does."""
    failed_items = FailedItems(engine, TABLES, HOUR, "version", run_id)
    failed_items.begin()
    with engine.begin() as connection:
        failed_items.record(connection, Batch(("id",), [(key,) for key in predicted], rows))


def summarise(sql: Sql, hour: str, pending: int, model_version: str | None = "version") -> None:
    sql(
        "INSERT INTO run_summary (hour, items, predicted, failed, pending, label_counts, run_id, finished_at,"
        " model_version) VALUES (%s, 10, 5, 0, %s, '{}', 'run', %s, %s)",
        hour,
        pending,
        END,
        model_version,
    )


# Counting


def test_an_hour_is_half_open_and_written_as_its_partition() -> None:
    assert HOUR.key == "2026-11-02-05:00"
    assert HOUR.end == datetime.datetime.fromisoformat(END)
    assert NEXT.key == "2026-11-02-06:00"


def test_the_stock_of_an_hour_is_that_hours_only(engine: sa.Engine, sql: Sql) -> None:
    insert_items(sql, ['"x"'], BEFORE)
    first = insert_items(sql, [GOOD[0], "[1, 2]"], START)
    last = insert_items(sql, ["null", '{"a": 1}', GOOD[1]], LAST)
    insert_items(sql, ['"x"'], END)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", last[2])
    recorded(engine, failed(first[1], "[1, 2]"))
    stock = take_stock(engine, TABLES, HOUR)
    counts = stock.counts
    assert (counts.hour, counts.items, counts.predicted, counts.failed, counts.pending) == (HOUR, 5, 1, 1, 3)
    assert stock.first == (first[0], HOUR.start)
    assert stock.last == (last[2], datetime.datetime.fromisoformat(LAST))
    assert stock.shapes == {"list of 4": 2, "list of 2": 1, "null": 1, "dict": 1}


def test_the_stock_does_not_look_at_the_shape_of_what_is_very_long(engine: sa.Engine, sql: Sql) -> None:
    insert_items(sql, [json.dumps("x" * 100_000), json.dumps([1] * 30_000)], START)
    assert take_stock(engine, TABLES, HOUR).shapes == {"more than 100,000 characters": 1, "list of 30000": 1}


def test_the_stock_of_an_hour_without_items_is_zero(engine: sa.Engine, sql: Sql) -> None:
    insert_items(sql, GOOD, END)
    stock = take_stock(engine, TABLES, HOUR)
    assert (stock.counts.items, stock.counts.predicted, stock.counts.failed, stock.counts.pending) == (0, 0, 0, 0)
    assert (stock.first, stock.last, stock.shapes) == (None, None, {})


def test_items_are_counted_by_hour_oldest_first(engine: sa.Engine, sql: Sql) -> None:
    insert_items(sql, GOOD, END)
    bad, done, _ = insert_items(sql, ["[1]", *GOOD[:2]], LAST)
    insert_items(sql, GOOD, "2026-11-02 07:00:00")
    insert_items(sql, GOOD[:1], BEFORE)
    insert_items(sql, GOOD[:1], "2026-11-02 03:59:59")
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", done)
    recorded(engine, failed(bad, "[1]"))
    start, end = HOUR.start - datetime.timedelta(hours=1), NEXT.end
    counted = [
        (counts.hour.key, counts.items, counts.predicted, counts.failed, counts.pending)
        for counts in count_by_hour(engine, TABLES, start, end)
    ]
    assert counted == [
        ("2026-11-02-04:00", 1, 0, 0, 1),
        ("2026-11-02-05:00", 3, 1, 1, 1),
        ("2026-11-02-06:00", 3, 0, 0, 3),
    ]
    assert (
        count_by_hour(engine, TABLES, NEXT.end + datetime.timedelta(hours=1), NEXT.end + datetime.timedelta(days=1))
        == []
    )
    assert first_created(engine, ITEMS) == datetime.datetime.fromisoformat("2026-11-02 03:59:59")


def test_a_table_without_items_has_no_oldest_one(engine: sa.Engine) -> None:
    assert first_created(engine, ITEMS) is None


def test_failed_rows_of_items_that_are_gone_or_predicted_are_not_counted(engine: sa.Engine, sql: Sql) -> None:
    gone, done, bad = insert_items(sql, ["[1]", "[2]", "[3]"])
    recorded(engine, failed(gone, "[1]"), failed(done, "[2]"), failed(bad, "[3]"))
    sql("DELETE FROM items WHERE id = %s", gone)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", done)
    assert failed_ids(engine, TABLES, HOUR) == {bad}
    assert failed_ids(engine, TABLES, NEXT) == set()
    (counts,) = count_by_hour(engine, TABLES, HOUR.start, HOUR.end)
    assert (counts.items, counts.predicted, counts.failed, counts.pending) == (2, 1, 1, 0)
    assert take_stock(engine, TABLES, HOUR).counts == counts


# Models


def test_the_model_of_each_hour_is_that_of_its_summary(engine: sa.Engine, sql: Sql) -> None:
    summarise(sql, START, 0, "one")
    summarise(sql, END, 0, None)
    summarise(sql, "2026-11-02 07:00:00", 0, "two")
    assert model_versions(engine, TABLES, HOUR.start, NEXT.end) == {HOUR: "one"}
