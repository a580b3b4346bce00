"""A run at the pace of the service: how an hour is cut into transactions, on a real server, and who decides that."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.database.slices.batch import Batch, FailedRow
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.update_statements import ColumnUpdate
from batch_assets.database.slices.updating import Updated, update_rows
from batch_assets.errors import RunTagError, SettingsError, TableError
from batch_assets.scoring import pace as pace_module
from batch_assets.scoring.pace import FIRST_ROWS, LEAST_ROWS, LEAST_SECONDS, MOST_PAUSE, MOST_SECONDS, Pace, WriteSpeed
from batch_assets.settings.throttle import ThrottleSettings
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.pipeline import GOOD, insert_items

on_server = pytest.mark.parametrize("database_environment", ["server"], indirect=True)
UPDATE = ColumnUpdate("id", ("prediction",), ("values",))
NEW = "[0.5, 0.25, 0.25]"


def paced(sql: Sql, batches: list[Batch], pace: Pace, written: list[int], events: list[str] | None = None) -> Updated:
    """Writes batches at a pace; notes the rows of each transaction, and what was made and written in which order."""
    seen = [] if events is None else events

    def made() -> Iterator[Batch]:
        for part in pace.transactions(batches):
            seen.append("made")
            yield part

    def in_transaction(_connection: sa.Connection, batch: Batch) -> None:
        written.append(len(batch))
        seen.append("written")

    stored = Batches(made, in_transaction=in_transaction, after_write=pace.after_write)
    return update_rows(engine_from_environment(), TableSlice("items"), UPDATE, stored)


def pace_of(max_slowdown: float, told: list[str] | None = None) -> Pace:
    return Pace(engine_from_environment(), TABLES.items, max_slowdown, ([] if told is None else told).append)


def batches_of(keys: list[int], rows: int) -> list[Batch]:
    columns = ("id", "values", "prediction")
    return [
        Batch(columns, [(key, GOOD[0], NEW) for key in keys[start : start + rows]])
        for start in range(0, len(keys), rows)
    ]


# How a run writes


@given(st.lists(st.floats(0, 100), max_size=100), st.floats(1, 10))
def test_transactions_and_pauses_stay_within_their_bounds(slowdowns: list[float], most: float) -> None:
    speed = WriteSpeed()
    for slowdown in slowdowns:
        following = speed.after(slowdown, most)
        slower = (following.seconds, -following.pause) <= (speed.seconds, -speed.pause)
        assert slower == (slowdown > most) or following == speed
        speed = following
        assert LEAST_SECONDS <= speed.seconds <= MOST_SECONDS
        assert 0 <= speed.pause <= MOST_PAUSE


@given(st.integers(1, 100_000), st.floats(0, 100), st.floats(LEAST_SECONDS, MOST_SECONDS))
def test_a_transaction_has_as_many_rows_as_its_time_allows(rows: int, took: float, seconds: float) -> None:
    following = WriteSpeed(seconds).rows(rows, took)
    assert LEAST_ROWS <= following <= max(LEAST_ROWS, 2 * rows)
    if LEAST_ROWS < following < 2 * rows:
        assert following * took / rows <= seconds * 1.001


# On a server


@on_server
@pytest.mark.usefixtures("tables")
def test_each_transaction_is_made_when_the_one_before_is_written(sql: Sql) -> None:
    keys = insert_items(sql, GOOD[:1] * 2_500)
    written: list[int] = []
    events: list[str] = []
    assert paced(sql, batches_of(keys, 10_000), pace_of(1), written, events).rows == 2_500
    assert events == ["made", "written"] * len(written)
    assert sum(written) == 2_500
    assert written[0] == FIRST_ROWS
    assert all(following <= 2 * before for before, following in pairwise(written))
    assert sql("SELECT COUNT(*) FROM items WHERE prediction IS NULL") == [(0,)]


@on_server
@pytest.mark.usefixtures("tables")
def test_a_service_that_does_not_feel_it_has_the_run_write_more_at_once(
    sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "MOST_SECONDS", 10.0)  # which no machine takes for as many rows as these
    keys = insert_items(sql, GOOD[:1] * 20_000)
    written: list[int] = []
    quick = pace_of(1_000_000)
    paced(sql, batches_of(keys, 10_000), quick, written)
    assert max(written) > FIRST_ROWS
    assert quick.paused_seconds == 0


@on_server
@pytest.mark.usefixtures("tables")
def test_a_service_that_feels_it_has_the_run_pause(sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = insert_items(sql, GOOD[:1] * 6_000)
    slow = pace_of(1)
    probe = slow._probe
    # The statement on a server that is busy with the run; it is timed for real, and taken for ten times as long.
    monkeypatch.setattr(slow, "_probe", lambda connection: probe(connection) * (10 if slow._alone else 1))
    paced(sql, batches_of(keys, 10_000), slow, [])
    assert slow.paused_seconds > 0
    assert slow.slowdown is not None
    assert slow.slowdown > 1


@on_server
@pytest.mark.usefixtures("tables")
def test_a_transaction_that_fails_ends_the_run_and_keeps_what_was_written(sql: Sql) -> None:
    keys = insert_items(sql, GOOD[:1] * 5_000)
    pace, written = pace_of(1), list[int]()

    def fail_the_second(_connection: sa.Connection, batch: Batch) -> None:
        written.append(len(batch))
        if len(written) > 1:
            raise TableError("refused")

    batches = Batches(
        lambda: pace.transactions(batches_of(keys, 10_000)),
        in_transaction=fail_the_second,
        after_write=pace.after_write,
    )
    with pytest.raises(TableError, match="refused"):
        update_rows(engine_from_environment(), TableSlice("items"), UPDATE, batches)
    assert sql("SELECT COUNT(prediction) FROM items") == [(FIRST_ROWS,)]


@on_server
@pytest.mark.usefixtures("tables")
def test_failed_items_go_with_the_first_transaction_of_their_batch(sql: Sql) -> None:
    keys = insert_items(sql, GOOD[:1] * 1_500)
    (batch,) = batches_of(keys, 10_000)
    failed = [FailedRow(10**6, "[1]", "wrong_length", "1 value")]
    alone = Batch(batch.columns, [], failed)
    parts: list[Batch] = []
    pace = pace_of(1)
    for part in pace.transactions([Batch(batch.columns, batch.rows, failed), alone]):
        parts.append(part)
        pace.after_write(0.01)
    assert [list(part.failed) for part in parts] == [failed, *[[]] * (len(parts) - 2), failed]
    assert sum(map(len, parts)) == 1_500


@on_server
@pytest.mark.usefixtures("tables")
def test_an_hour_that_takes_too_long_is_written_at_full_speed(sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "PACED_SECONDS", 0)
    keys = insert_items(sql, GOOD[:1] * 5_000)
    written: list[int] = []
    told: list[str] = []
    paced(sql, batches_of(keys, 2_500), pace_of(1, told), written)
    assert written == [2_500, 2_500]
    assert len(told) == 1
    assert "full speed" in told[0]


# Who decides


def test_a_tag_that_is_no_pace_is_refused() -> None:
    with pytest.raises(RunTagError, match="'fast': remove it, or set it to full"):
        ThrottleSettings().of_run("fast")


def test_a_pace_needs_a_number_of_one_or_more_and_a_server() -> None:
    server = {"MYSQL_SERVER": "db", "MYSQL_USER": "batch", "MYSQL_PASSWORD": "secret", "MYSQL_DATABASE": "shop"}
    assert ThrottleSettings.from_environment(server).max_slowdown is None
    assert ThrottleSettings.from_environment(server | {"BATCH_MAX_SLOWDOWN": "1.5"}).max_slowdown == 1.5
    with pytest.raises(SettingsError, match=r"BATCH_MAX_SLOWDOWN is '0.5': set it to a number of 1 or more"):
        ThrottleSettings.from_environment(server | {"BATCH_MAX_SLOWDOWN": "0.5"})
    with pytest.raises(SettingsError, match=r"BATCH_MAX_SLOWDOWN is '2', but the database is"):
        ThrottleSettings.from_environment({"BATCH_MAX_SLOWDOWN": "2"})
