"""Pipelines that share a database, or even the table of their items, do not see what is recorded of each other's."""

import contextlib
import datetime

import pytest
import sqlalchemy as sa

from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.records.failed_items import FailedItems, failed_ids
from batch_assets.database.records.hour_counts import HourCounts, count_by_hour, model_versions, take_stock
from batch_assets.database.records.hour_lock import HourLock
from batch_assets.database.records.hour_requests import (
    compare_and_set_request,
    delete_request,
    read_requests,
    reset_attempts,
)
from batch_assets.database.records.items import register_once
from batch_assets.database.records.pruning import PrunedHour, Pruning, old_hours, remove_registrations
from batch_assets.database.records.remaining import failed_rows, remaining_by_hour
from batch_assets.database.records.summaries import hours_with_summary, read_summaries, read_summary
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import PipelineTables, item_table
from batch_assets.database.slices.batch import Batch, FailedRow
from batch_assets.errors import HourBusyError, RetryError
from batch_assets.hours import Hour
from batch_assets.pipeline import ItemTable
from batch_assets.reporting.summary import Outcome, Summary, store_summary
from batch_assets.retrying.decision import HourRequest, Remaining
from batch_assets.settings.items import Output
from batch_assets.settings.throttle import ThrottleSettings
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.pipeline import HALF_PAST, START, insert_items

pytestmark = pytest.mark.usefixtures("tables")

HOUR = Hour(datetime.datetime.fromisoformat(START))
AT = datetime.datetime.fromisoformat("2026-11-02T07:00:00")
MAX_ATTEMPTS = 3
SAME_TABLE = PipelineTables("another", item_table(ItemTable(outputs=(Output("another_prediction", "probabilities"),))))
OWN_TABLE = PipelineTables("own", item_table(ItemTable(name="own_items")))


@pytest.fixture
def engine(tables: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


@pytest.fixture(params=[SAME_TABLE, OWN_TABLE], ids=["same table", "own table"])
def other(request: pytest.FixtureRequest, engine: sa.Engine, sql: Sql) -> PipelineTables:
    """Another pipeline, over the same items or over a table of its own with the same ids in it."""
    other: PipelineTables = request.param
    if other is SAME_TABLE:
        sql("ALTER TABLE items ADD COLUMN another_prediction JSON")
    else:
        sql(
            "CREATE TABLE own_items (id INTEGER PRIMARY KEY, `values` JSON NOT NULL, prediction JSON, "
            "created_datetime TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, "
            "updated_datetime TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
    initialize_database(engine, other.items)
    return other


def items_of_both(sql: Sql, other: PipelineTables, count: int = 2) -> list[int]:
    """Items of the hour, for both of the pipelines."""
    keys = insert_items(sql, ["[1]"] * count)
    if other is OWN_TABLE:
        for key in keys:
            sql("INSERT INTO own_items (id, `values`, created_datetime) VALUES (%s, '[1]', %s)", key, HALF_PAST)
    return keys


def begun(engine: sa.Engine, tables: PipelineTables) -> FailedItems:
    failed_items = FailedItems(engine, tables, HOUR, "version", f"run of {tables.pipeline}")
    failed_items.begin()
    return failed_items


def record(engine: sa.Engine, tables: PipelineTables, *failed: int, predicted: tuple[int, ...] = ()) -> None:
    """Records what a run of the hour does with a batch, and predicts."""
    failed_items = begun(engine, tables)
    rows = [FailedRow(key, "[1]", "code", f"message of {tables.pipeline}") for key in failed]
    items = tables.items
    with engine.begin() as connection:
        connection.execute(sa.update(items).where(items.c.id.in_(predicted)).values({"prediction": "[1, 0, 0]"}))
        failed_items.record(connection, Batch(("id",), [(key,) for key in predicted], rows))


def recorded(sql: Sql) -> list[tuple[str, int, int]]:
    rows = sql("SELECT pipeline, item_id, attempts FROM failed_items ORDER BY pipeline, item_id")
    return [(str(pipeline), int(key), int(attempts)) for pipeline, key, attempts in rows]


def left(engine: sa.Engine, tables: PipelineTables) -> Remaining | None:
    return remaining_by_hour(engine, tables, HOUR, HOUR.end, MAX_ATTEMPTS).get(HOUR)


def throttle(engine: sa.Engine) -> Throttle:
    return Throttle(engine, ThrottleSettings(), print)


# Failed items


def test_an_item_that_failed_in_one_pipeline_is_pending_in_another(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    bad, good = items_of_both(sql, other)
    record(engine, TABLES, bad)
    assert failed_ids(engine, TABLES, HOUR) == {bad}
    assert failed_ids(engine, other, HOUR) == set()
    assert count_by_hour(engine, TABLES, HOUR.start, HOUR.end) == [HourCounts(HOUR, 2, 0, 1)]
    assert count_by_hour(engine, other, HOUR.start, HOUR.end) == [HourCounts(HOUR, 2, 0, 0)]
    assert take_stock(engine, other, HOUR).counts.pending == 2
    assert left(engine, TABLES) == Remaining(1, good, failed=1)
    assert left(engine, other) == Remaining(2, good)
    assert [row.message for row in failed_rows(engine, TABLES, 9, MAX_ATTEMPTS)] == ["message of items"]
    assert failed_rows(engine, other, 9, MAX_ATTEMPTS) == []


def test_attempts_are_counted_and_items_taken_off_for_each_pipeline_by_itself(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    bad, once = items_of_both(sql, other)
    for _ in range(2):
        record(engine, TABLES, bad, once)
    record(engine, other, bad)
    assert recorded(sql) == sorted([("items", bad, 2), ("items", once, 2), (other.pipeline, bad, 1)])
    record(engine, other, predicted=(bad, once))
    assert recorded(sql) == [("items", bad, 2), ("items", once, 2)]
    assert count_by_hour(engine, other, HOUR.start, HOUR.end) == [HourCounts(HOUR, 2, 2, 0)]
    # At its next run of the hour each takes off what it has predicted meanwhile, and nothing else.
    begun(engine, other)
    assert recorded(sql) == [("items", bad, 2), ("items", once, 2)]
    record(engine, TABLES, predicted=(once,))
    assert recorded(sql) == [("items", bad, 2)]


def test_an_item_that_one_pipeline_has_given_up_is_tried_by_another(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    given_up, failed_once = items_of_both(sql, other)
    for _ in range(MAX_ATTEMPTS):
        record(engine, TABLES, given_up)
    # With failed items of its own, so that it looks for those that it has given up itself.
    record(engine, other, failed_once)
    for tables, keys in ((TABLES, {failed_once}), (other, {given_up, failed_once})):
        condition = begun(engine, tables).to_try(MAX_ATTEMPTS)
        with engine.connect() as connection:
            tried = connection.execute(sa.text(f"SELECT id FROM {tables.items.name} WHERE {condition}"))
            assert set(tried.scalars()) == keys


def test_what_one_pipeline_puts_back_stays_recorded_in_another(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    first, second = items_of_both(sql, other)
    request = HourRequest(3, "late items", "1", AT, AT, "it is hopeless")
    for tables in (TABLES, other):
        record(engine, tables, first, second)
        assert compare_and_set_request(engine, tables, HOUR, None, request)
    assert reset_attempts(engine, TABLES, [], [first], AT) == (1, [HOUR])
    assert reset_attempts(engine, TABLES, [HOUR], [], AT) == (1, [HOUR])
    assert recorded(sql) == sorted([(other.pipeline, first, 1), (other.pipeline, second, 1)])
    assert read_requests(engine, other) == {HOUR: request}
    assert read_requests(engine, TABLES)[HOUR].given_up_at is None
    with pytest.raises(RetryError, match="has not failed, it is pending"):
        reset_attempts(engine, TABLES, [], [first], AT)


def test_an_hour_in_which_only_another_pipeline_has_failed_items_has_nothing_to_put_back(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    keys = tuple(items_of_both(sql, other))
    record(engine, TABLES, predicted=keys)
    record(engine, other, *keys)
    with pytest.raises(RetryError, match="all its items have predictions"):
        reset_attempts(engine, TABLES, [HOUR], [], AT)
    assert len(recorded(sql)) == 2


# Hours: who has requested, holds and sums them up


def test_each_pipeline_requests_an_hour_by_itself(engine: sa.Engine, other: PipelineTables) -> None:
    first, second = HourRequest(1, "late items", "1", AT), HourRequest(2, "failed run", "2", AT)
    assert compare_and_set_request(engine, TABLES, HOUR, None, first)
    assert not compare_and_set_request(engine, TABLES, HOUR, None, second)
    assert compare_and_set_request(engine, other, HOUR, None, first)
    assert compare_and_set_request(engine, other, HOUR, first, second)
    assert (read_requests(engine, TABLES), read_requests(engine, other)) == ({HOUR: first}, {HOUR: second})
    assert delete_request(engine, TABLES, HOUR, first)
    assert (read_requests(engine, TABLES), read_requests(engine, other)) == ({}, {HOUR: second})


def test_two_pipelines_hold_the_same_hour_at_once_and_a_second_run_of_either_is_refused(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    def lock(tables: PipelineTables, run_id: str) -> HourLock:
        return HourLock(engine, tables, HOUR, run_id, wait=False, on_progress=print)

    first, second = lock(TABLES, "first"), lock(other, "second")
    with second.acquire():
        with first.acquire(), engine.connect() as connection:
            first.check(connection)
            second.check(connection)
            for tables, holder in ((TABLES, "first"), (other, "second")):
                with pytest.raises(HourBusyError, match=f"is held by run {holder} since"):
                    lock(tables, "rival").acquire().__enter__()
        assert sql("SELECT pipeline, run_id FROM hour_locks") == [(other.pipeline, "second")]
    with contextlib.ExitStack() as held:
        for tables in (TABLES, other):
            held.enter_context(lock(tables, "next").acquire())


def test_each_pipeline_has_a_summary_of_its_own_of_an_hour(engine: sa.Engine, sql: Sql, other: PipelineTables) -> None:
    def store(tables: PipelineTables, predicted: int, version: str) -> None:
        scoring = {"run_id": "run", "finished_at": AT, "model_version": version}
        outcome = Outcome(items=predicted, predicted=predicted)
        store_summary(engine, Summary(tables.pipeline, HOUR.start, outcome, scoring))

    store(TABLES, 1, "iris")
    assert (hours_with_summary(engine, other, [HOUR]), read_summary(engine, other, HOUR)) == (set(), None)
    assert read_summaries(engine, other, None, 9) == []
    for predicted in (2, 3):
        store(other, predicted, "theirs")
    assert [row.predicted for row in read_summaries(engine, TABLES, None, 9)] == [1]
    assert [row.predicted for row in read_summaries(engine, other, Hour(HOUR.end), 9)] == [3]
    assert hours_with_summary(engine, TABLES, [HOUR]) == {HOUR}
    assert model_versions(engine, TABLES, HOUR.start, HOUR.end) == {HOUR: "iris"}
    assert model_versions(engine, other, HOUR.start, HOUR.end) == {HOUR: "theirs"}
    found = [read_summary(engine, tables, HOUR) for tables in (TABLES, other)]
    assert [row and row.model_version for row in found] == ["iris", "theirs"]
    assert sql("SELECT COUNT(*) FROM run_summary") == [(2,)]


def test_an_idempotency_key_is_one_pipelines(engine: sa.Engine, sql: Sql) -> None:
    sql("ALTER TABLE items ADD COLUMN another_prediction JSON")
    ids = register_once(engine, TABLES, [["[1]"]], "key")
    assert register_once(engine, TABLES, [["[1]"]], "key") == ids
    others = register_once(engine, SAME_TABLE, [["[2]"]], "key")
    assert others != ids
    sql("UPDATE registrations SET registered_at = %s", START)
    assert remove_registrations(engine, TABLES, HOUR.end, throttle(engine)) == 1
    assert register_once(engine, SAME_TABLE, [["[2]"]], "key") == others
    assert sql("SELECT pipeline FROM registrations") == [("another",)]


# Pruning


def test_what_was_recorded_of_an_hour_goes_with_the_pruning_of_its_own_pipeline(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    def prune(tables: PipelineTables) -> PrunedHour:
        return Pruning(engine, [tables], throttle(engine), print, unscored_too=False).remove(HOUR)

    def rows(table: str) -> set[str]:
        return {pipeline for (pipeline,) in sql(f"SELECT pipeline FROM {table}")}

    bad, good = items_of_both(sql, other)
    for tables in (TABLES, other):
        record(engine, tables, bad, predicted=(good,))
        store_summary(engine, Summary(tables.pipeline, HOUR.start, Outcome(), {"run_id": "run", "finished_at": AT}))
        assert compare_and_set_request(engine, tables, HOUR, None, HourRequest(1, "late items", "1", AT))
    assert prune(TABLES) == PrunedHour(HOUR, 2)
    assert old_hours(engine, TABLES, HOUR.end) == []
    assert old_hours(engine, other, HOUR.end) == [HOUR]
    for table in ("failed_items", "run_summary", "hour_requests"):
        assert rows(table) == {other.pipeline}
    # Of the same items nothing is left by now but what was recorded.
    assert prune(other) == PrunedHour(HOUR, 2 if other is OWN_TABLE else 0)
    assert old_hours(engine, other, HOUR.end) == []
    for table in ("failed_items", "run_summary", "hour_requests", "hour_locks"):
        assert rows(table) == set()


@pytest.mark.parametrize("other", [SAME_TABLE], indirect=True)
def test_an_hour_of_a_table_is_pruned_when_all_its_pipelines_are_done_with_it(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    bad, good = items_of_both(sql, other)
    record(engine, TABLES, bad, predicted=(good,))
    pruning = Pruning(engine, [TABLES, other], throttle(engine), print, unscored_too=False)
    assert pruning.look(HOUR) == pruning.remove(HOUR) == PrunedHour(HOUR, 0, "unscored", 2)
    assert sql("SELECT COUNT(*) FROM items") == [(2,)]
    assert recorded(sql) == [("items", bad, 1)]
    record(engine, other, bad, predicted=(good,))
    with HourLock(engine, other, HOUR, "run", wait=False, on_progress=print).acquire():
        assert pruning.remove(HOUR) == PrunedHour(HOUR, 0, "in use")
    assert pruning.remove(HOUR) == PrunedHour(HOUR, 2)
    for table in ("items", "failed_items", "run_summary", "hour_requests", "hour_locks"):
        assert sql(f"SELECT COUNT(*) FROM {table}") == [(0,)]


def test_an_item_whose_prediction_is_taken_away_meanwhile_stays_though_another_pipeline_has_done_with_it(
    engine: sa.Engine, sql: Sql, other: PipelineTables
) -> None:
    class Correcting(Throttle):
        def before_write(self, rows: int) -> None:
            sql(f"UPDATE {other.items.name} SET {other.items.c.prediction.name} = NULL WHERE id = %s", bad)

    bad, good = items_of_both(sql, other)
    record(engine, TABLES, bad, predicted=(good,))
    record(engine, other, predicted=(bad, good))
    pruning = Pruning(engine, [other], Correcting(engine, ThrottleSettings(), print), print, unscored_too=False)
    assert pruning.remove(HOUR) == PrunedHour(HOUR, 1, "unscored", 1)
    assert sql(f"SELECT id FROM {other.items.name}") == [(bad,)]
