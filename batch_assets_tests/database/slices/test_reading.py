"""Reading a slice: bounded batches from one moment's view, and a connection that is given back."""

import contextlib

import pymysql
import pytest

from batch_assets.database.slices.reading import count_rows, read_batches, read_columns
from batch_assets.database.slices.table_slice import Keys, TableSlice
from batch_assets.errors import BatchAssetsError, DatabaseError, TableError
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import connections_in_use, engine_from_environment
from batch_assets_tests.support.servers import Server

pytestmark = pytest.mark.usefixtures("database_environment")


@pytest.fixture
def things(sql: Sql) -> TableSlice:
    sql("CREATE TABLE things (id INT PRIMARY KEY, kind VARCHAR(9) NOT NULL)")
    for start in range(0, 30_000, 10_000):
        sql("INSERT INTO things VALUES " + ", ".join(f"({n}, 'k{n % 3}')" for n in range(start, start + 10_000)))
    return TableSlice("things")


def test_rows_of_a_mebibyte_come_a_few_at_a_time(sql: Sql, things: TableSlice) -> None:
    sql("CREATE TABLE large (id INT PRIMARY KEY, text LONGTEXT NOT NULL)")
    for number in range(40):
        sql("INSERT INTO large VALUES (%s, %s)", number, "x" * 2**20)
    sql("INSERT INTO large SELECT id, 'x' FROM things WHERE id >= 40")
    batches = [
        list(map(len, batch.column("text"))) for batch in read_batches(engine_from_environment(), TableSlice("large"))
    ]
    assert sum(map(len, batches)) == 30_000
    assert max(batch.count(2**20) for batch in batches) <= 4


def test_all_rows_are_those_of_one_moment(sql: Sql, things: TableSlice) -> None:
    batches = read_batches(engine_from_environment(), things, 1_000)
    first = next(batches)
    sql("DELETE FROM things WHERE id > 5")
    sql("UPDATE things SET kind = 'new'")
    rest = [row for batch in batches for row in batch.rows]
    assert len(first) + len(rest) == 30_000
    assert {row[1] for row in rest} == {"k0", "k1", "k2"}


def test_an_abandoned_reader_gives_its_connection_back(things: TableSlice) -> None:
    batches = read_batches(engine_from_environment(), things, 10)
    next(batches)
    assert connections_in_use() == 1
    batches.close()  # type: ignore[attr-defined]
    assert connections_in_use() == 0
    for batch in read_batches(engine_from_environment(), things, 10):
        assert len(batch) == 10
        break
    assert connections_in_use() == 0


def test_a_reader_that_fails_gives_its_connection_back(things: TableSlice) -> None:
    for bad, error in (
        (TableSlice("nothing"), TableError),
        (TableSlice("things", columns=("colour",)), TableError),
        (TableSlice("things", where="colour = 1"), DatabaseError),
        (TableSlice("things", where="("), DatabaseError),
    ):
        with pytest.raises(error):
            list(read_batches(engine_from_environment(), bad))
        assert connections_in_use() == 0


def test_columns_are_those_asked_for_in_their_order(things: TableSlice) -> None:
    columns = read_columns(engine_from_environment(), TableSlice("things", columns=("kind", "id")))
    assert [column.name for column in columns] == ["kind", "id"]


def test_a_table_is_read_as_it_is_now_and_not_as_it_was(sql: Sql, things: TableSlice) -> None:
    def names() -> list[str]:
        return [column.name for column in read_columns(engine_from_environment(), things)]

    assert names() == ["id", "kind"]
    sql("ALTER TABLE things ADD COLUMN size INT")
    assert names() == ["id", "kind", "size"]
    sql("DROP TABLE things")
    with pytest.raises(TableError, match="There is no table things"):
        names()
    sql("CREATE TABLE large (id INT PRIMARY KEY, size INT)")
    sql("CREATE VIEW things AS SELECT id AS number FROM large")
    assert names() == ["number"]
    sql("DROP VIEW things")
    sql("CREATE VIEW things AS SELECT * FROM large")
    assert names() == ["id", "size"]


def test_the_rows_of_several_slices_are_counted(things: TableSlice) -> None:
    slices = [TableSlice("things", partitions=(Keys("kind", keys),)) for keys in (("k0",), ("k1", "k2"), ("k3",), ())]
    assert count_rows(engine_from_environment(), slices) == [10_000, 20_000, 0, 0]


def test_a_server_that_goes_away_in_the_middle_is_a_sentence(
    server: Server, server_environment: dict[str, str], sql: Sql, things: TableSlice
) -> None:
    batches = read_batches(engine_from_environment(), things, 10)
    next(batches)
    for (thread,) in sql(f"SELECT id FROM {server.processlist} WHERE db = DATABASE()"):
        with contextlib.suppress(pymysql.err.Error):  # the one that asked is gone by then
            sql(f"KILL {thread}")
    with pytest.raises(BatchAssetsError) as fault:
        for _ in batches:
            pass
    assert fault.value.transient
    assert connections_in_use() == 0
