"""Writing a slice while others write to the same table."""

import datetime
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.replacing import replace_slice
from batch_assets.database.slices.table_slice import TableSlice, TimeWindows
from batch_assets.errors import (
    BatchAssetsError,
    DatabaseError,
    DatabaseUnavailableError,
    DuplicateKeyError,
    TableError,
)
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment

ROWS, ROUNDS = 100, 30


def hour(number: int, hours: int = 1) -> TableSlice:
    start = datetime.datetime(2026, 1, 1, number, tzinfo=datetime.UTC)
    return TableSlice("things", partitions=(TimeWindows("at", ((start, start + datetime.timedelta(hours=hours)),)),))


def rows_of(number: int) -> Batches:
    start = datetime.datetime(2026, 1, 1, number)  # noqa: DTZ001 - as in the table
    rows = [(start + datetime.timedelta(seconds=second),) for second in range(ROWS)]
    return Batches([Batch(("at",), rows[: ROWS // 2]), Batch(("at",), rows[ROWS // 2 :])])


def at_once(*writes: Callable[[], object]) -> list[str]:
    """Runs functions at the same time and says of each how it ended."""
    barrier, ends = threading.Barrier(len(writes), timeout=60), ["lost"] * len(writes)

    def one(position: int) -> None:
        barrier.wait()
        try:
            writes[position]()
            ends[position] = "stored"
        except BatchAssetsError as error:
            ends[position] = "transient" if error.transient else str(error)

    threads = [threading.Thread(target=one, args=(position,)) for position in range(len(writes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


@pytest.fixture
def things(database_environment: dict[str, str], sql: Sql) -> None:
    create_things(sql, "BIGINT AUTO_INCREMENT" if "MYSQL_SERVER" in database_environment else "INTEGER")


@pytest.fixture
def things_of_server(server_environment: dict[str, str], sql: Sql) -> None:
    create_things(sql, "BIGINT AUTO_INCREMENT")


def create_things(sql: Sql, number: str) -> None:
    sql(f"CREATE TABLE things (id {number} PRIMARY KEY, at DATETIME NOT NULL)")
    sql("CREATE INDEX ix_things_at ON things (at)")


def counts(sql: Sql) -> dict[int, int]:
    return dict(Counter(int(str(row[0])[11:13]) for row in sql("SELECT at FROM things")))


def test_a_row_that_somebody_stores_in_the_meantime_may_be_replaced_by_the_next_attempt(
    server_environment: dict[str, str], sql: Sql
) -> None:
    sql("CREATE TABLE things (at DATETIME PRIMARY KEY)")
    engine, rows = engine_from_environment(), [(datetime.datetime(2026, 1, 1, 5),)]  # noqa: DTZ001 - as in the table

    def after_somebody_else() -> Iterator[Batch]:
        sql("INSERT INTO things VALUES ('2026-01-01 05:00:00')")
        yield Batch(("at",), rows)

    with pytest.raises(DatabaseUnavailableError, match="Somebody else wrote 1 row to the partition"):
        replace_slice(engine, hour(5), Batches(after_somebody_else))
    assert counts(sql) == {5: 1}
    assert replace_slice(engine, hour(5), Batches([Batch(("at",), rows)])) == 1
    assert counts(sql) == {5: 1}


def test_rows_of_one_key_are_a_fault_that_stays(database_environment: dict[str, str], sql: Sql) -> None:
    sql("CREATE TABLE things (at DATETIME PRIMARY KEY)")
    row = (datetime.datetime(2026, 1, 1, 5),)  # noqa: DTZ001 - as in the table
    assert replace_slice(engine_from_environment(), hour(5), Batches([Batch(("at",), [row])])) == 1
    with pytest.raises(DuplicateKeyError) as caught:
        replace_slice(engine_from_environment(), hour(5), Batches([Batch(("at",), [row, row])]))
    assert caught.value.permanent
    assert counts(sql) == {5: 1}


def test_neighbouring_hours_of_an_empty_table_are_stored_at_once(things_of_server: None, sql: Sql) -> None:
    engine, ends = engine_from_environment(), Counter[str]()
    for _ in range(ROUNDS):
        sql("TRUNCATE TABLE things")  # deleted rows would stay in the index for a while, and part the gaps
        done = at_once(
            lambda: replace_slice(engine, hour(5), rows_of(5)), lambda: replace_slice(engine, hour(6), rows_of(6))
        )
        ends.update(done)
        assert counts(sql) == {5 + position: ROWS for position, end in enumerate(done) if end == "stored"}
    assert set(ends) <= {"stored", "transient"}
    # With the gaps locked, most rounds end in a deadlock.
    assert ends["transient"] <= 2


def test_two_runs_of_an_hour_never_store_it_twice(things: None, sql: Sql) -> None:
    engine = engine_from_environment()
    for _ in range(ROUNDS):
        sql("DELETE FROM things")
        ends = at_once(*[lambda: replace_slice(engine, hour(5), rows_of(5))] * 2)
        assert set(ends) <= {"stored", "transient"}
        assert "stored" in ends
        assert counts(sql) == {5: ROWS}


def test_a_range_and_an_hour_in_it_never_store_rows_twice(things: None, sql: Sql) -> None:
    engine = engine_from_environment()
    for _ in range(ROUNDS):
        sql("DELETE FROM things")
        ends = at_once(
            lambda: replace_slice(engine, hour(5, 3), rows_of(6)), lambda: replace_slice(engine, hour(6), rows_of(6))
        )
        assert "stored" in ends
        assert counts(sql) == {6: ROWS}


def test_rows_that_somebody_else_writes_to_the_slice_are_noticed(things_of_server: None, sql: Sql) -> None:
    def write(*_: object) -> None:
        sql("INSERT INTO things (at) VALUES ('2026-01-01 05:30:00')")

    batches = Batches([Batch(("at",), [("2026-01-01 05:00:00",)])], in_transaction=write)
    with pytest.raises(DatabaseUnavailableError, match="Somebody else wrote 1 row to the partition"):
        replace_slice(engine_from_environment(), hour(5), batches)
    assert counts(sql) == {5: 1}


def test_the_service_writes_to_other_hours_meanwhile(things_of_server: None, sql: Sql) -> None:
    # MariaDB keeps the row locked that follows the hour.
    sql("INSERT INTO things (at) VALUES ('2026-01-01 05:30:00'), ('2026-01-01 07:00:00'), ('2026-01-01 07:30:00')")

    def write(*_: object) -> None:
        sql("INSERT INTO things (at) VALUES ('2026-01-01 06:00:00')")
        sql("UPDATE things SET at = '2026-01-01 07:45:00' WHERE id = 3")

    batches = Batches([Batch(("at",), [("2026-01-01 05:00:00",)])], in_transaction=write)
    assert replace_slice(engine_from_environment(), hour(5), batches) == 1
    assert counts(sql) == {5: 1, 6: 1, 7: 2}


def test_the_sessions_that_follow_see_one_moment_again(things_of_server: None) -> None:
    engine = engine_from_environment()
    replace_slice(engine, hour(5), rows_of(5))
    with engine.connect() as connection:
        assert connection.get_isolation_level() == "REPEATABLE READ"


def test_a_table_without_transactions_is_refused(server_environment: dict[str, str], sql: Sql) -> None:
    sql("CREATE TABLE things (id INT, at DATETIME) ENGINE=MyISAM")
    sql("INSERT INTO things VALUES (1, '2026-01-01 05:00:00')")
    with pytest.raises(TableError, match="ALTER TABLE things ENGINE=InnoDB"):
        replace_slice(engine_from_environment(), hour(5), Batches([]))
    assert sql("SELECT id FROM things") == [(1,)]


def test_a_row_that_is_referred_to_stays(server_environment: dict[str, str], sql: Sql) -> None:
    sql("CREATE TABLE things (id INT PRIMARY KEY, at DATETIME)")
    sql("CREATE TABLE parts (thing INT, FOREIGN KEY (thing) REFERENCES things (id))")
    sql("INSERT INTO things VALUES (1, '2026-01-01 05:00:00')")
    sql("INSERT INTO parts VALUES (1)")
    with pytest.raises(DatabaseError, match="foreign key"):
        replace_slice(engine_from_environment(), hour(5), Batches([]))
    assert sql("SELECT id FROM things") == [(1,)]


def test_what_the_server_refuses_is_a_sentence_after_it_was_asked_for_the_table(things: None, sql: Sql) -> None:
    # SQLAlchemy turns the events of errors off when it looks at a table of MySQL.
    with pytest.raises(DatabaseError, match="refused a statement"):
        replace_slice(engine_from_environment(), hour(5), Batches([Batch(("at",), [(None,)])]))
