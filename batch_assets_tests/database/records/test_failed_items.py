"""Failed items: recorded with what is written, or not at all; tried again, given up, and tried anew when corrected."""

import datetime
import zlib

import pytest
import sqlalchemy as sa

from batch_assets.database.records.failed_items import FailedItems
from batch_assets.database.slices.batch import Batch, FailedRow
from batch_assets.hours import Hour
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.pipeline import END, LAST, START, assert_hour_adds_up, correct, failed_of, insert_items

pytestmark = pytest.mark.usefixtures("tables")

HOUR = Hour(datetime.datetime.fromisoformat(START))
MAX_ATTEMPTS = 3


@pytest.fixture
def engine(tables: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


def failed(key: int, text: str, code: str = "code", message: str = "message") -> FailedRow:
    return FailedRow(key, text, code, message)


def begun(engine: sa.Engine, run_id: str = "run") -> FailedItems:
    failed_items = FailedItems(engine, TABLES, HOUR, "version", run_id)
    failed_items.begin()
    return failed_items


def recorded(engine: sa.Engine, *rows: FailedRow, predicted: tuple[int, ...] = (), run_id: str = "run") -> None:
    """Records a batch as a run does."""
    failed_items = begun(engine, run_id)
    with engine.begin() as connection:
        failed_items.record(connection, Batch(("id",), [(key,) for key in predicted], rows))


def tried(engine: sa.Engine) -> set[int]:
    """Returns the items that a partial retry of the hour would score."""
    condition = begun(engine).to_try(MAX_ATTEMPTS)
    with engine.connect() as connection:
        return set(connection.execute(sa.text(f"SELECT id FROM items WHERE {condition}")).scalars())


def test_a_failed_item_is_recorded_with_its_reason_hour_run_and_model(engine: sa.Engine, sql: Sql) -> None:
    (bad,) = insert_items(sql, ["[1]"], LAST)
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    recorded(engine, failed(bad, "[1]", "wrong_length", "1 Wert, das Modell nimmt 4, 花"))
    (row,) = sql("SELECT * FROM failed_items")
    pipeline, key, hour, code, message, attempts, first, last, version, run_id, checksum = row
    assert (pipeline, key, str(hour)) == ("items", bad, START)
    assert (code, message) == ("wrong_length", "1 Wert, das Modell nimmt 4, 花")
    assert (attempts, version, run_id) == (1, "version", "run")
    assert first == last
    assert checksum == zlib.crc32(b"[1]")
    after = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert before <= datetime.datetime.fromisoformat(str(first)) <= after


def test_another_failure_counts_one_attempt_more_and_keeps_the_first_time(engine: sa.Engine, sql: Sql) -> None:
    (bad,) = insert_items(sql, ["[1]"])
    recorded(engine, failed(bad, "[1]"), run_id="first")
    sql("UPDATE failed_items SET first_failed_at = %s, last_failed_at = %s", START, START)
    recorded(engine, failed(bad, "[1]", "other", "another reason"), run_id="second")
    assert failed_of(sql) == {bad: ("other", "another reason", 2)}
    ((first, last, run_id),) = sql("SELECT first_failed_at, last_failed_at, run_id FROM failed_items")
    assert str(first) == START
    assert str(last) > END
    assert run_id == "second"


def test_many_failed_items_are_recorded_at_once(engine: sa.Engine, sql: Sql) -> None:
    texts = [f'["{"ü%s?" * 30}", {number}]' for number in range(12_000)]
    ids = insert_items(sql, texts)
    recorded(engine, *(failed(key, text) for key, text in zip(ids, texts, strict=True)))
    assert set(failed_of(sql)) == set(ids)
    recorded(engine, predicted=tuple(ids))  # which have no prediction in the table
    assert set(failed_of(sql)) == set(ids)
    sql("UPDATE items SET prediction = '[1, 0, 0]'")
    recorded(engine)
    assert failed_of(sql) == {}


def test_an_item_that_was_predicted_is_taken_off_in_the_transaction_that_predicts_it(
    engine: sa.Engine, sql: Sql
) -> None:
    one, other = insert_items(sql, ["[1]", "[2]"])
    recorded(engine, failed(one, "[1]"), failed(other, "[2]"))
    failed_items = begun(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = :key"), {"key": one})
        failed_items.record(connection, Batch(("id",), [(one,)]))
        assert set(failed_of(sql)) == {one, other}
    assert set(failed_of(sql)) == {other}
    assert_hour_adds_up(sql)


def test_nothing_is_recorded_when_the_transaction_is_undone(engine: sa.Engine, sql: Sql) -> None:
    one, other = insert_items(sql, ["[1]", "[2]"])
    recorded(engine, failed(one, "[1]"))
    failed_items = begun(engine)
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(sa.text("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = :key"), {"key": one})
        failed_items.record(connection, Batch(("id",), [(one,)], [failed(other, "[2]")]))
        transaction.rollback()
    assert failed_of(sql) == {one: ("code", "message", 1)}
    assert assert_hour_adds_up(sql) == (2, 0, 1, 1)


def test_nothing_is_recorded_of_an_item_that_was_corrected_deleted_or_predicted_meanwhile(
    engine: sa.Engine, sql: Sql
) -> None:
    corrected, deleted, predicted, bad = insert_items(sql, ["[1]", "[2]", "[3]", "[4]"])
    rows = [failed(key, f"[{number}]") for number, key in enumerate((corrected, deleted, predicted, bad), 1)]
    correct(sql, corrected)
    sql("DELETE FROM items WHERE id = %s", deleted)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", predicted)
    recorded(engine, *rows)
    assert set(failed_of(sql)) == {bad}
    assert assert_hour_adds_up(sql) == (3, 1, 1, 1)


def test_failed_rows_whose_items_the_service_deleted_or_scored_are_taken_off_at_once(
    engine: sa.Engine, sql: Sql
) -> None:
    gone, done, bad = insert_items(sql, ["[1]", "[2]", "[3]"])
    recorded(engine, failed(gone, "[1]"), failed(done, "[2]"), failed(bad, "[3]"))
    sql("INSERT INTO failed_items SELECT pipeline, 77, %s, code, message, attempts, first_failed_at, last_failed_at,"
        " model_version, run_id, values_checksum FROM failed_items WHERE item_id = %s", END, bad)  # fmt: skip
    sql("DELETE FROM items WHERE id = %s", gone)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", done)
    begun(engine)
    assert set(failed_of(sql)) == {bad, 77}  # the other hour's row is that hour's business


def test_a_message_that_no_database_can_hold_is_recorded_all_the_same(engine: sa.Engine, sql: Sql) -> None:
    (bad,) = insert_items(sql, ["[1]"])
    recorded(engine, failed(bad, "[1]", message="half a letter: \ud800"))
    assert failed_of(sql) == {bad: ("code", "half a letter: \\ud800", 1)}


# What is tried again


def test_a_failed_item_is_tried_until_it_has_failed_as_often_as_it_may(engine: sa.Engine, sql: Sql) -> None:
    bad, good = insert_items(sql, ["[1]", "[2]"])
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert tried(engine) == {bad, good}
        recorded(engine, failed(bad, "[1]"))
        assert failed_of(sql)[bad] == ("code", "message", attempt)
    assert tried(engine) == {good}


def test_an_item_that_was_corrected_is_tried_again_and_counted_anew(engine: sa.Engine, sql: Sql) -> None:
    (bad,) = insert_items(sql, ["[1]"])
    for _ in range(MAX_ATTEMPTS):
        recorded(engine, failed(bad, "[1]"))
    correct(sql, bad, "[2]")
    assert tried(engine) == {bad}
    recorded(engine, failed(bad, "[2]"))
    assert failed_of(sql)[bad] == ("code", "message", 1)
    assert tried(engine) == {bad}


def test_what_has_a_prediction_is_not_tried(engine: sa.Engine, sql: Sql) -> None:
    done, pending = insert_items(sql, ["[1]", "[2]"])
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", done)
    assert tried(engine) == {pending}
    sql("UPDATE items SET prediction = NULL WHERE id = %s", done)
    assert tried(engine) == {done, pending}
