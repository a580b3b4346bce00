"""What is left of the hours is found exactly, and an hour is taken by one."""

import datetime
import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa

from batch_assets.database.connection.statements import checksum
from batch_assets.database.records.hour_requests import (
    compare_and_set_request,
    delete_request,
    read_requests,
    reset_attempts,
)
from batch_assets.database.records.remaining import failed_rows, remaining_by_hour
from batch_assets.database.records.summaries import hours_with_summary
from batch_assets.errors import RetryError
from batch_assets.hours import Hour
from batch_assets.retrying.decision import HourRequest, Remaining
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.pipeline import END, GOOD, HALF_PAST, START, assert_hour_adds_up, correct, insert_items

pytestmark = pytest.mark.usefixtures("tables")

HOUR = Hour(datetime.datetime.fromisoformat(START))
NEXT = Hour(HOUR.end)
FIRST = Hour(datetime.datetime.fromisoformat("2026-11-01"))
AT = datetime.datetime.fromisoformat("2026-11-02T07:00:00")
ROW = HourRequest(1, "late items", "3 30 0 0", AT)
THREADS = 8


@pytest.fixture
def engine(tables: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


def fail(sql: Sql, key: int, text: str, attempts: int = 1, *, hour: str = START, at: str = END) -> None:
    """Records that an item failed with these values."""
    sql(
        "INSERT INTO failed_items (item_id, hour, code, message, attempts, first_failed_at, last_failed_at,"
        " model_version, run_id, values_checksum) VALUES (%s, %s, 'not_a_list', 'it is no list', %s, %s, %s,"
        " 'version', 'run', %s)",
        *(key, hour, attempts, at, at, checksum(text)),
    )


def left(engine: sa.Engine, end: datetime.datetime = NEXT.end, first: Hour = FIRST) -> dict[str, Remaining]:
    return {hour.key: left for hour, left in remaining_by_hour(engine, TABLES, first, end, 3).items()}


# What is left


def test_an_empty_table_and_a_scored_one_have_nothing_left(engine: sa.Engine, sql: Sql) -> None:
    assert left(engine) == {}
    insert_items(sql, GOOD)
    sql("UPDATE items SET prediction = '[1, 0, 0]'")
    assert left(engine) == {}


def test_what_has_no_prediction_is_counted_by_hour_with_its_largest_id(engine: sa.Engine, sql: Sql) -> None:
    insert_items(sql, GOOD[:1], "2026-11-02 04:59:59")
    first, second, done = insert_items(sql, GOOD, START)
    (last,) = insert_items(sql, GOOD[:1], "2026-11-02 05:59:59")
    (following,) = insert_items(sql, GOOD[:1], END)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", done)
    assert left(engine) == {
        "2026-11-02-04:00": Remaining(1, first - 1),
        HOUR.key: Remaining(3, last),
        NEXT.key: Remaining(1, following),
    }
    assert second < last


def test_only_the_hours_asked_for_are_looked_at(engine: sa.Engine, sql: Sql) -> None:
    for moment in ("2026-10-31 23:59:59", "2026-11-01 00:00:00", "2026-11-02 05:59:59", END):
        insert_items(sql, GOOD[:1], moment)
    assert list(left(engine, HOUR.end)) == ["2026-11-01-00:00", HOUR.key]
    assert list(left(engine, HOUR.end, HOUR)) == [HOUR.key]


def test_failed_items_are_told_apart_by_what_may_become_of_them(engine: sa.Engine, sql: Sql) -> None:
    pending, again, hopeless, corrected, other = insert_items(sql, ["[1]", "[2]", "[3]", "[4]", "[5]"])
    fail(sql, again, "[2]", attempts=2)
    fail(sql, hopeless, "[3]", attempts=3)
    fail(sql, corrected, "[4]", attempts=3)
    fail(sql, other, "[5]", attempts=7)
    assert left(engine) == {HOUR.key: Remaining(1, other, failed=1, corrected=0, given_up=3)}
    correct(sql, corrected)
    assert left(engine) == {HOUR.key: Remaining(1, other, failed=2, corrected=1, given_up=2)}
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id IN (%s, %s)", pending, again)
    assert left(engine) == {HOUR.key: Remaining(0, other, failed=1, corrected=1, given_up=2)}
    assert Remaining(given_up=2).fingerprint == Remaining(given_up=5).fingerprint


def test_failed_rows_whose_items_are_gone_do_not_count(engine: sa.Engine, sql: Sql) -> None:
    (gone,) = insert_items(sql, ["[1]"])
    fail(sql, gone, "[1]")
    sql("DELETE FROM items")
    assert left(engine) == {}


def test_hours_with_a_summary_are_found_among_those_asked_for(engine: sa.Engine, sql: Sql) -> None:
    for hour in (HOUR, NEXT):
        sql(
            "INSERT INTO run_summary (hour, items, predicted, failed, pending, label_counts, run_id, finished_at)"
            " VALUES (%s, 1, 1, 0, 0, '{}', 'run', %s)",
            *(str(hour.start), END),
        )
    many = [Hour(FIRST.start + datetime.timedelta(hours=number)) for number in range(2500)]
    assert hours_with_summary(engine, TABLES, many) == {HOUR, NEXT}
    assert hours_with_summary(engine, TABLES, [NEXT, FIRST]) == {NEXT}
    assert hours_with_summary(engine, TABLES, []) == set()


def test_failed_items_are_listed_latest_first_and_no_more_than_asked_for(engine: sa.Engine, sql: Sql) -> None:
    one, two, three, done = insert_items(sql, ["[1]", "[2]", "[3]", "[4]"])
    fail(sql, one, "[1]", attempts=3, at="2026-11-02 06:30:00")
    fail(sql, two, "[2]", attempts=2, at="2026-11-02 06:40:00")
    fail(sql, three, "[0]", attempts=3, at="2026-11-02 06:20:00")
    fail(sql, done, "[4]")
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", done)
    rows = failed_rows(engine, TABLES, 10, 3)
    assert [(row.item_id, row.attempts, bool(row.given_up)) for row in rows] == [
        (two, 2, False),
        (one, 3, True),
        (three, 3, False),
    ]
    assert (rows[0].hour, rows[0].code, rows[0].message) == (HOUR.start, "not_a_list", "it is no list")
    assert [row.item_id for row in failed_rows(engine, TABLES, 1, 3)] == [two]


# The bookkeeping


def test_an_hour_is_claimed_once_and_again_only_by_who_knows_its_last_state(engine: sa.Engine) -> None:
    assert compare_and_set_request(engine, TABLES, HOUR, None, ROW)
    assert not compare_and_set_request(engine, TABLES, HOUR, None, replace(ROW, reason="schedule"))
    assert read_requests(engine, TABLES) == {HOUR: ROW}
    later = replace(ROW, requests=2, requested_at=AT + datetime.timedelta(minutes=5))
    assert compare_and_set_request(engine, TABLES, HOUR, ROW, later)
    assert not compare_and_set_request(engine, TABLES, HOUR, ROW, replace(ROW, reason="failed run"))
    assert not compare_and_set_request(engine, TABLES, HOUR, replace(later, requested_at=AT), ROW)
    given_up = replace(later, given_up_at=AT, given_up_because="its run was canceled")
    assert compare_and_set_request(engine, TABLES, HOUR, later, given_up)
    assert not compare_and_set_request(engine, TABLES, HOUR, later, later)
    assert compare_and_set_request(engine, TABLES, NEXT, None, ROW)
    assert read_requests(engine, TABLES) == {HOUR: given_up, NEXT: ROW}
    assert not delete_request(engine, TABLES, HOUR, later)
    assert delete_request(engine, TABLES, HOUR, given_up)
    assert read_requests(engine, TABLES) == {NEXT: ROW}
    assert not compare_and_set_request(engine, TABLES, HOUR, given_up, ROW)


@pytest.mark.parametrize("before", [None, ROW])
def test_of_many_who_want_an_hour_at_once_one_gets_it(engine: sa.Engine, before: HourRequest | None) -> None:
    if before:
        compare_and_set_request(engine, TABLES, HOUR, None, before)
    got: list[bool] = []
    together = threading.Barrier(THREADS, timeout=60)

    def want(number: int) -> None:
        together.wait()
        after = replace(ROW, requests=10 + number, requested_at=AT + datetime.timedelta(minutes=1))
        got.append(compare_and_set_request(engine, TABLES, HOUR, before, after))

    threads = [threading.Thread(target=want, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * (THREADS - 1) + [True]


# Putting back


def test_an_item_that_is_put_back_is_pending_again_and_its_hour_is_no_longer_given_up(
    engine: sa.Engine, sql: Sql
) -> None:
    one, other = insert_items(sql, ["[1]", "[2]"])
    fail(sql, one, "[1]", attempts=3)
    fail(sql, other, "[2]", attempts=3)
    compare_and_set_request(
        engine, TABLES, HOUR, None, replace(ROW, given_up_at=AT, given_up_because="its run was canceled")
    )
    assert reset_attempts(engine, TABLES, [], [one], AT) == (1, [HOUR])
    assert left(engine) == {HOUR.key: Remaining(1, other, given_up=1)}
    later = AT + datetime.timedelta(seconds=1)
    assert read_requests(engine, TABLES) == {HOUR: HourRequest(0, "put back", "", later)}
    assert assert_hour_adds_up(sql) == (2, 0, 1, 1)


def test_an_hour_that_is_put_back_takes_all_its_failed_items_with_it_and_no_others(engine: sa.Engine, sql: Sql) -> None:
    one, two = insert_items(sql, ["[1]", "[2]"], HALF_PAST)
    (other,) = insert_items(sql, ["[3]"], END)
    fail(sql, one, "[1]", attempts=3)
    fail(sql, two, "[2]")
    fail(sql, other, "[3]", hour=END)
    assert reset_attempts(engine, TABLES, [HOUR], [], AT) == (2, [HOUR])
    assert left(engine) == {HOUR.key: Remaining(2, two), NEXT.key: Remaining(0, other, failed=1)}
    assert reset_attempts(engine, TABLES, [HOUR], [other], AT) == (1, [HOUR, NEXT])


def test_an_hour_in_which_nothing_has_failed_is_put_back_if_it_has_pending_items_or_was_given_up(
    engine: sa.Engine, sql: Sql
) -> None:
    compare_and_set_request(engine, TABLES, HOUR, None, replace(ROW, given_up_at=AT, given_up_because="no model"))
    assert reset_attempts(engine, TABLES, [HOUR], [], AT) == (0, [HOUR])
    insert_items(sql, GOOD, END)
    assert reset_attempts(engine, TABLES, [NEXT], [], AT) == (0, [NEXT])


def test_what_cannot_be_put_back_is_said_and_changes_nothing(engine: sa.Engine, sql: Sql) -> None:
    bad, pending, done, doubtful = insert_items(sql, ["[1]", *GOOD])
    fail(sql, bad, "[1]")
    fail(sql, doubtful, GOOD[2])
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id IN (%s, %s)", done, doubtful)
    for key, reason in (
        (77, "There is no item 77: nothing was put back."),
        (pending, f"The item {pending} has not failed, it is pending"),
        (done, f"The item {done} has not failed, it has a prediction: nothing was put back."),
        (doubtful, f"The item {doubtful} has not failed, it has a prediction"),
    ):
        with pytest.raises(RetryError, match=reason):
            reset_attempts(engine, TABLES, [], [bad, key], AT)
    with pytest.raises(RetryError, match="in the hour 2026-11-02-06:00, it has no items: nothing was put back"):
        reset_attempts(engine, TABLES, [NEXT], [bad], AT)
    insert_items(sql, GOOD, END)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE created_datetime >= %s", END)
    with pytest.raises(RetryError, match="2026-11-02-06:00, all its items have predictions: nothing was put back"):
        reset_attempts(engine, TABLES, [HOUR, NEXT], [], AT)
    assert left(engine) == {HOUR.key: Remaining(1, pending, failed=1)}
    assert read_requests(engine, TABLES) == {}
