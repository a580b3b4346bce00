"""Updating columns of rows: which rows, from which literal, under which locks."""

import datetime
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pymysql
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.packed_update import PackedUpdate, are_close_together
from batch_assets.database.slices.table_slice import Keys, TableSlice, TimeWindows
from batch_assets.database.slices.update_statements import ColumnUpdate
from batch_assets.database.slices.updating import Updated, update_rows
from batch_assets.errors import DatabaseUnavailableError, TableError
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment

NOTES = TableSlice("notes")


def hour(number: int) -> TableSlice:
    start = datetime.datetime(2026, 1, 1, number, tzinfo=datetime.UTC)
    return TableSlice("things", partitions=(TimeWindows("at", ((start, start + datetime.timedelta(hours=1)),)),))


@pytest.fixture
def things(database_environment: dict[str, str], sql: Sql) -> None:
    kind = "BIGINT AUTO_INCREMENT" if "MYSQL_SERVER" in database_environment else "INTEGER"
    sql(f"CREATE TABLE things (id {kind} PRIMARY KEY, at DATETIME NOT NULL)")


@pytest.fixture
def notes(server_environment: dict[str, str], sql: Sql) -> None:
    sql("CREATE TABLE notes (id BIGINT UNSIGNED PRIMARY KEY, old TEXT NULL, note TEXT NULL, prediction JSON NULL)")


def written(sql: Sql, *keys: int) -> None:
    rows = ", ".join(f"({key}, 'old {key}', 1)" for key in keys)
    sql(f"INSERT INTO notes (id, old, note) VALUES {rows}")


def update_notes(
    rows: Sequence[Sequence[object]], columns: tuple[str, ...] = ("note",), unchanged: tuple[str, ...] = ()
) -> Updated:
    batch = Batch(("id", *columns, *unchanged), rows)
    return update_rows(engine_from_environment(), NOTES, ColumnUpdate("id", columns, unchanged), Batches([batch]))


def test_an_update_keeps_to_its_slice_and_its_rows(things: None, sql: Sql) -> None:
    sql("ALTER TABLE things ADD COLUMN kind VARCHAR(9) NULL")
    sql("INSERT INTO things (id, at, kind) VALUES (1, '2026-01-01 05:00:00', 'a'), (2, '2026-01-01 06:00:00', 'a')")
    batch = Batch(("id", "kind"), [(1, "b"), (2, "b"), (3, "b")])
    updated = update_rows(engine_from_environment(), hour(5), ColumnUpdate("id", ("kind",)), Batches([batch]))
    assert (updated.rows, updated.skipped) == (1, 2)
    part = TableSlice("things", partitions=(Keys("kind", ("b",)),))
    assert update_rows(engine_from_environment(), part, ColumnUpdate("id", ("kind",)), Batches([batch])).rows == 1
    assert sql("SELECT id, kind FROM things ORDER BY id") == [(1, "b"), (2, "a")]


def two_things(sql: Sql) -> list[int]:
    sql("ALTER TABLE things ADD COLUMN number INTEGER NULL")
    sql("INSERT INTO things (at, number) VALUES ('2026-01-01 00:00:00', 1), ('2026-01-01 00:10:00', 2)")
    return [key for (key,) in sql("SELECT id FROM things ORDER BY id")]


def updating(batches: list[Batch], act: Callable[[], object]) -> Batches:
    """New values of `number` that are published at once; something happens while they are made."""

    def made() -> Iterator[Batch]:
        for batch in batches:
            yield batch
            act()

    return Batches(made, at_once=True)


def test_an_update_at_once_is_seen_by_nobody_before_all_of_it_is(things: None, sql: Sql) -> None:
    keys = two_things(sql)
    seen: list[object] = []
    batches = [Batch(("id", "number"), [(key, 10 + key)]) for key in keys]
    update = ColumnUpdate("id", ("number",))
    made = updating(batches, lambda: seen.append(sql("SELECT number FROM things ORDER BY id")))
    done = update_rows(engine_from_environment(), hour(0), update, made)
    assert seen == [[(1,), (2,)]] * 2
    assert sql("SELECT number FROM things ORDER BY id") == [(10 + key,) for key in keys]
    assert (done.rows, done.skipped) == (2, 0)


def test_an_update_at_once_that_fails_at_its_last_row_changes_none(things: None, sql: Sql) -> None:
    keys = two_things(sql)
    made = updating([Batch(("id", "number"), [(keys[0], 11)]), Batch(("id",), [(keys[1],)])], int)
    with pytest.raises(TableError, match="have no column number"):
        update_rows(engine_from_environment(), hour(0), ColumnUpdate("id", ("number",)), made)

    def refuse(_connection: object, batch: Batch) -> None:
        if batch.rows[0][0] == keys[1]:
            raise TableError("refused")

    batches = [Batch(("id", "number"), [(key, 10 + key)]) for key in keys]
    with pytest.raises(TableError, match="refused"):
        update_rows(
            engine_from_environment(),
            hour(0),
            ColumnUpdate("id", ("number",)),
            Batches(batches, in_transaction=refuse, at_once=True),
        )
    assert sql("SELECT number FROM things ORDER BY id") == [(1,), (2,)]


def test_every_row_gets_its_own_text_whatever_it_holds(notes: None, sql: Sql) -> None:
    texts = [
        "",
        " ",
        "ends with blanks  ",
        "\x00",
        "it's",
        'a "quote"',
        "back\\slash",
        "100 %",
        "%s",
        "é",
        "花",
        "🌸",
        None,
    ]
    texts += ["x" * length for length in (1, 100, 3)]
    written(sql, *range(1, len(texts) + 1))
    done = update_notes(list(enumerate(texts, 1)))
    assert (done.rows, done.skipped) == (len(texts), 0)
    assert sql("SELECT id, note FROM notes ORDER BY id") == list(enumerate(texts, 1))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.integers(1, 60), st.text(max_size=8) | st.none(), min_size=1))
def test_keys_with_gaps_get_their_texts_and_nobody_else_does(
    notes: None, sql: Sql, texts: dict[int, str | None]
) -> None:
    sql("DELETE FROM notes")
    written(sql, *range(1, 61))
    given_in_any_order = sorted(texts.items(), key=hash)
    done = update_notes(given_in_any_order)
    assert (done.rows, done.skipped) == (len(texts), 0)
    expected = [(key, texts.get(key, "1")) for key in range(1, 61)]
    assert sql("SELECT id, note FROM notes ORDER BY id") == expected


def test_of_rows_close_together_those_that_changed_or_went_are_left(notes: None, sql: Sql) -> None:
    written(sql, 1, 2, 3, 5, 6)
    sql("UPDATE notes SET old = NULL WHERE id = 5")
    sql("UPDATE notes SET old = 'corrected' WHERE id = 2")
    sql("UPDATE notes SET old = NULL WHERE id = 6")
    rows = [(key, "new", None if key == 5 else f"old {key}") for key in (1, 2, 3, 4, 5, 6)]
    done = update_notes(rows, unchanged=("old",))
    assert (done.rows, done.skipped) == (3, 3)
    assert sql("SELECT id FROM notes WHERE note = 'new' ORDER BY id") == [(1,), (3,), (5,)]


def test_several_columns_of_text_and_json_are_set_at_once(notes: None, sql: Sql) -> None:
    written(sql, 1, 2, 3)
    rows = [(key, f"note {key}", json.dumps([key / 8, "é"]) if key != 2 else None) for key in (1, 2, 3)]
    update_notes(rows, ("note", "prediction"))
    found = [
        (key, note, value and json.loads(value)) for key, note, value in sql("SELECT id, note, prediction FROM notes")
    ]
    assert sorted(found) == [(1, "note 1", [0.125, "é"]), (2, "note 2", None), (3, "note 3", [0.375, "é"])]


def test_keys_far_apart_and_keys_given_twice_are_updated_too(notes: None, sql: Sql) -> None:
    far = 2**40
    written(sql, 1, far, far + 1)
    assert update_notes([(1, "a"), (far, "b"), (far + 1, "c")]).rows == 3
    assert sql("SELECT note FROM notes ORDER BY id") == [("a",), ("b",), ("c",)]
    assert update_notes([(1, "d"), (1, "d")]).rows == 1
    assert sql("SELECT note FROM notes WHERE id = 1") == [("d",)]


def test_one_long_text_among_many_short_ones_arrives(notes: None, sql: Sql) -> None:
    written(sql, *range(1, 3001))
    long = "x" * 60_000
    assert update_notes([(key, long if key == 7 else "short") for key in range(1, 3001)]).rows == 3000
    assert sql("SELECT note, COUNT(*) FROM notes GROUP BY note ORDER BY note") == [("short", 2999), (long, 1)]


def test_a_row_between_those_to_update_may_be_locked_by_somebody_else(
    notes: None, sql: Sql, server_environment: dict[str, str]
) -> None:
    written(sql, *range(1, 101))
    sql("SET GLOBAL innodb_lock_wait_timeout = 2")
    try:
        with holding(server_environment, "UPDATE notes SET old = 'service' WHERE id = 50"):
            engine_from_environment().dispose()
            assert update_notes([(key, "new") for key in range(1, 101) if key != 50]).rows == 99
            with pytest.raises(DatabaseUnavailableError, match="waited too long for a lock"):
                update_notes([(key, "newer") for key in range(1, 101)])
    finally:
        sql("SET GLOBAL innodb_lock_wait_timeout = 50")
        engine_from_environment().dispose()


def test_the_service_inserts_behind_the_last_row_while_it_is_updated(
    notes: None, sql: Sql, server_environment: dict[str, str]
) -> None:
    written(sql, 1, 2, 3)

    def insert(_connection: object, _batch: Batch) -> None:
        with holding(server_environment, "INSERT INTO notes (id, note) VALUES (4, 'service')"):
            pass

    batches = Batches([Batch(("id", "note"), [(1, "new"), (3, "new")])], in_transaction=insert)
    assert update_rows(engine_from_environment(), NOTES, ColumnUpdate("id", ("note",)), batches).rows == 2


def test_two_batches_that_lie_in_each_other_are_written_at_once(notes: None, sql: Sql) -> None:
    written(sql, *range(1, 2001))
    even, odd = ([(key, name) for key in range(start, 2001, 2)] for start, name in ((2, "even"), (1, "odd")))
    batches = Batches([Batch(("id", "note"), rows) for rows in (even, odd)] * 5)
    assert update_rows(engine_from_environment(), NOTES, ColumnUpdate("id", ("note",)), batches).rows == 10_000
    assert sql("SELECT note, MOD(id, 2), COUNT(*) FROM notes GROUP BY note, MOD(id, 2) ORDER BY note") == [
        ("even", 0, 1000),
        ("odd", 1, 1000),
    ]


def test_what_lies_far_apart_or_in_disorder_is_not_packed() -> None:
    assert are_close_together([1])
    assert are_close_together([1, 2, 16])
    assert not are_close_together([1, 2, 25])
    assert not are_close_together([1, 1, 2])
    assert not are_close_together([2, 1])
    assert PackedUpdate([1, 8], "id").texts(["x" * 1_000_000, ""]) is None


class holding:  # noqa: N801 - reads as a sentence
    """A transaction of somebody else that stays open within the block."""

    def __init__(self, environment: dict[str, str], statement: str) -> None:
        self._connection = pymysql.connect(
            host=environment["MYSQL_SERVER"],
            port=int(environment["MYSQL_PORT"]),
            user=environment["MYSQL_USER"],
            password=environment["MYSQL_PASSWORD"],
            database=environment["MYSQL_DATABASE"],
        )
        self._connection.cursor().execute(statement)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._connection.rollback()
        self._connection.close()


# Floats


HARD_FLOATS = [
    *(
        0.0,
        -0.0,
        0.1,
        1 / 3,
        1e-7,
        -1e22,
        123456789.123456789,
        2.0**53 + 2,
        1 - 2**-53,
        5e-324,
        2.2250738585072014e-308,
    ),
    *(1.7976931348623157e308, -4.9406564584124654e-324, 9007199254740993.0, 0.30000000000000004, 1e23),
]


@pytest.mark.parametrize("step", [1, 100], ids=["packed", "joined"])
def test_a_double_is_stored_with_every_digit(server_environment: dict[str, str], sql: Sql, step: int) -> None:
    sql("CREATE TABLE numbers (id BIGINT PRIMARY KEY, number DOUBLE NULL, note TEXT NULL)")
    random = np.random.default_rng(0)
    bits = random.integers(-(2**63), 2**63, 2000, dtype=np.int64).view(np.float64)
    numbers: list[float | None] = [*HARD_FLOATS, None, *bits[np.isfinite(bits)].tolist(), *random.random(500).tolist()]
    keys = range(1, step * len(numbers) + 1, step)
    sql(f"INSERT INTO numbers (id) VALUES {', '.join(f'({key})' for key in keys)}")
    batch = Batch(("id", "number", "note"), list(zip(keys, numbers, map(str, numbers), strict=True)))
    update = ColumnUpdate("id", ("number", "note"))
    statements: list[str] = []
    engine = engine_from_environment()
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    update_rows(engine, TableSlice("numbers"), update, Batches([batch]))
    assert any("FORCE INDEX" in statement for statement in statements) == (step == 1)
    stored = sql("SELECT number, note FROM numbers ORDER BY id")
    assert [number for number, _ in stored] == numbers
    assert [note for _, note in stored] == list(map(str, numbers))
