"""Hours of `items`: counted right, and their failed items recorded with what is written, or not at all."""

import datetime

import pytest
import sqlalchemy as sa

from batch_assets.database.batches import Batch, FailedRow
from batch_assets.database.engine import engine_from_environment
from batch_assets.database.hours import (
    FailedItems,
    Hour,
    HourLeft,
    count_by_hour,
    failed_ids,
    first_created,
    hours_left,
    model_versions,
    take_stock,
)
from batch_assets_tests.conftest import Sql
from batch_assets_tests.pipeline import END, GOOD, START, assert_hour_adds_up, correct, failed_of, insert_items

pytestmark = pytest.mark.usefixtures("tables")

HOUR = Hour(datetime.datetime.fromisoformat(START))
NEXT = Hour(HOUR.end)
BEFORE, LAST = "2026-11-02 04:59:59", "2026-11-02 05:59:59"


@pytest.fixture
def engine(tables) -> sa.Engine:
    return engine_from_environment()


def failed(key: int, text: str, code: str = "code", message: str = "message") -> FailedRow:
    return FailedRow(key, text, code, message)


def recorded(engine: sa.Engine, *rows: FailedRow, predicted: tuple[int, ...] = (), run_id: str = "run") -> None:
    """Records a batch as a run does."""
    failed_items = FailedItems(engine, HOUR, "version", run_id)
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


def test_an_hour_is_half_open_and_written_as_its_partition():
    assert HOUR.key == "2026-11-02-05:00"
    assert HOUR.end == datetime.datetime.fromisoformat(END)
    assert NEXT.key == "2026-11-02-06:00"


def test_the_stock_of_an_hour_is_that_hours_only(engine, sql: Sql):
    insert_items(sql, ['"x"'], BEFORE)
    first = insert_items(sql, [GOOD[0], "[1, 2]"], START)
    last = insert_items(sql, ["null", '{"a": 1}', GOOD[1]], LAST)
    insert_items(sql, ['"x"'], END)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", last[2])
    recorded(engine, failed(first[1], "[1, 2]"))
    stock = take_stock(engine, HOUR)
    counts = stock.counts
    assert (counts.hour, counts.items, counts.predicted, counts.failed, counts.pending) == (HOUR, 5, 1, 1, 3)
    assert stock.first == (first[0], HOUR.start)
    assert stock.last == (last[2], datetime.datetime.fromisoformat(LAST))
    assert stock.shapes == {"list of 4": 2, "list of 2": 1, "null": 1, "dict": 1}


def test_the_stock_of_an_hour_without_items_is_zero(engine, sql: Sql):
    insert_items(sql, GOOD, END)
    stock = take_stock(engine, HOUR)
    assert (stock.counts.items, stock.counts.predicted, stock.counts.failed, stock.counts.pending) == (0, 0, 0, 0)
    assert (stock.first, stock.last, stock.shapes) == (None, None, {})


def test_items_are_counted_by_hour_oldest_first(engine, sql: Sql):
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
        for counts in count_by_hour(engine, start, end)
    ]
    assert counted == [
        ("2026-11-02-04:00", 1, 0, 0, 1),
        ("2026-11-02-05:00", 3, 1, 1, 1),
        ("2026-11-02-06:00", 3, 0, 0, 3),
    ]
    assert count_by_hour(engine, NEXT.end + datetime.timedelta(hours=1), NEXT.end + datetime.timedelta(days=1)) == []
    assert first_created(engine) == datetime.datetime.fromisoformat("2026-11-02 03:59:59")


def test_a_table_without_items_has_no_oldest_one(engine):
    assert first_created(engine) is None


def test_failed_rows_of_items_that_are_gone_or_predicted_are_not_counted(engine, sql: Sql):
    gone, done, bad = insert_items(sql, ["[1]", "[2]", "[3]"])
    recorded(engine, failed(gone, "[1]"), failed(done, "[2]"), failed(bad, "[3]"))
    sql("DELETE FROM items WHERE id = %s", gone)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", done)
    assert failed_ids(engine, HOUR) == {bad}
    assert failed_ids(engine, NEXT) == set()
    (counts,) = count_by_hour(engine, HOUR.start, HOUR.end)
    assert (counts.items, counts.predicted, counts.failed, counts.pending) == (2, 1, 1, 0)
    assert take_stock(engine, HOUR).counts == counts


# Failed items


def test_a_failed_item_is_recorded_with_its_reason_hour_run_and_model(engine, sql: Sql):
    (bad,) = insert_items(sql, ["[1]"], LAST)
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    recorded(engine, failed(bad, "[1]", "wrong_length", "1 Wert, das Modell nimmt 4, 花"))
    (row,) = sql("SELECT * FROM failed_items")
    key, hour, code, message, attempts, first, last, version, run_id = row
    assert (key, str(hour), code, message) == (bad, START, "wrong_length", "1 Wert, das Modell nimmt 4, 花")
    assert (attempts, version, run_id) == (1, "version", "run")
    assert first == last
    after = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert before <= datetime.datetime.fromisoformat(str(first)) <= after


def test_another_failure_counts_one_attempt_more_and_keeps_the_first_time(engine, sql: Sql):
    (bad,) = insert_items(sql, ["[1]"])
    recorded(engine, failed(bad, "[1]"), run_id="first")
    sql("UPDATE failed_items SET first_failed_at = %s, last_failed_at = %s", START, START)
    recorded(engine, failed(bad, "[1]", "other", "another reason"), run_id="second")
    assert failed_of(sql) == {bad: ("other", "another reason", 2)}
    ((first, last, run_id),) = sql("SELECT first_failed_at, last_failed_at, run_id FROM failed_items")
    assert str(first) == START
    assert str(last) > END
    assert run_id == "second"


def test_many_failed_items_are_recorded_at_once(engine, sql: Sql):
    texts = [f'["{"ü%s?" * 30}", {number}]' for number in range(12_000)]
    ids = insert_items(sql, texts)
    recorded(engine, *(failed(key, text) for key, text in zip(ids, texts, strict=True)))
    assert set(failed_of(sql)) == set(ids)
    recorded(engine, predicted=tuple(ids))  # which have no prediction in the table
    assert set(failed_of(sql)) == set(ids)
    sql("UPDATE items SET prediction = '[1, 0, 0]'")
    recorded(engine)
    assert failed_of(sql) == {}


def test_an_item_that_was_predicted_is_taken_off_in_the_transaction_that_predicts_it(engine, sql: Sql):
    one, other = insert_items(sql, ["[1]", "[2]"])
    recorded(engine, failed(one, "[1]"), failed(other, "[2]"))
    failed_items = FailedItems(engine, HOUR, "version", "run")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = :key"), {"key": one})
        failed_items.record(connection, Batch(("id",), [(one,)]))
        assert set(failed_of(sql)) == {one, other}
    assert set(failed_of(sql)) == {other}
    assert_hour_adds_up(sql)


def test_nothing_is_recorded_when_the_transaction_is_undone(engine, sql: Sql):
    one, other = insert_items(sql, ["[1]", "[2]"])
    recorded(engine, failed(one, "[1]"))
    failed_items = FailedItems(engine, HOUR, "version", "run")
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(sa.text("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = :key"), {"key": one})
        failed_items.record(connection, Batch(("id",), [(one,)], [failed(other, "[2]")]))
        transaction.rollback()
    assert failed_of(sql) == {one: ("code", "message", 1)}
    assert assert_hour_adds_up(sql) == (2, 0, 1, 1)


def test_nothing_is_recorded_of_an_item_that_was_corrected_deleted_or_predicted_meanwhile(engine, sql: Sql):
    corrected, deleted, predicted, bad = insert_items(sql, ["[1]", "[2]", "[3]", "[4]"])
    rows = [failed(key, f"[{number}]") for number, key in enumerate((corrected, deleted, predicted, bad), 1)]
    correct(sql, corrected)
    sql("DELETE FROM items WHERE id = %s", deleted)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", predicted)
    recorded(engine, *rows)
    assert set(failed_of(sql)) == {bad}
    assert assert_hour_adds_up(sql) == (3, 1, 1, 1)


def test_failed_rows_whose_items_the_service_deleted_or_scored_are_taken_off_at_once(engine, sql: Sql):
    gone, done, bad = insert_items(sql, ["[1]", "[2]", "[3]"])
    recorded(engine, failed(gone, "[1]"), failed(done, "[2]"), failed(bad, "[3]"))
    sql("INSERT INTO failed_items SELECT 77, %s, code, message, attempts, first_failed_at, last_failed_at,"
        " model_version, run_id FROM failed_items WHERE item_id = %s", END, bad)  # fmt: skip
    sql("DELETE FROM items WHERE id = %s", gone)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", done)
    FailedItems(engine, HOUR, "version", "run")
    assert set(failed_of(sql)) == {bad, 77}  # the other hour's row is that hour's business


def test_a_message_that_no_database_can_hold_is_recorded_all_the_same(engine, sql: Sql):
    (bad,) = insert_items(sql, ["[1]"])
    recorded(engine, failed(bad, "[1]", message="half a letter: \ud800"))
    assert failed_of(sql) == {bad: ("code", "half a letter: \\ud800", 1)}


# What is left


def test_hours_with_failed_or_pending_items_are_left_latest_first(engine, sql: Sql):
    (bad,) = insert_items(sql, ["[1]"])
    (worse,) = insert_items(sql, ["[2]"], "2026-11-02 08:10:00")
    recorded(engine, failed(bad, "[1]"), failed(worse, "[2]"))
    summarise(sql, START, 3)
    summarise(sql, "2026-11-02 04:00:00", 0)
    summarise(sql, "2026-11-02 07:00:00", 4)
    assert [(left.hour.key, left.failed, left.pending) for left in hours_left(engine)] == [
        ("2026-11-02-08:00", 1, 0),
        ("2026-11-02-07:00", 0, 4),
        ("2026-11-02-05:00", 1, 3),
    ]
    sql("DELETE FROM items")
    sql("DELETE FROM run_summary WHERE hour > %s", START)
    assert hours_left(engine) == [HourLeft(HOUR, 0, 3)]


def test_the_model_of_each_hour_is_that_of_its_summary(engine, sql: Sql):
    summarise(sql, START, 0, "one")
    summarise(sql, END, 0, None)
    summarise(sql, "2026-11-02 07:00:00", 0, "two")
    assert model_versions(engine, HOUR.start, NEXT.end) == {HOUR: "one"}
