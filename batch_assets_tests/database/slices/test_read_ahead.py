"""Reading the next batch while the last one is looked at: the same batches, and no connection is left behind."""

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.read_ahead import read_ahead
from batch_assets.database.slices.reading import read_batches
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.errors import TableError
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import connections_in_use, engine_from_environment

SECONDS = 60


def things(sql: Sql) -> Batches:
    sql("CREATE TABLE things (id INT PRIMARY KEY)")
    sql(f"INSERT INTO things VALUES {', '.join(f'({number})' for number in range(3_000))}")
    return Batches(partial(read_batches, engine_from_environment(), TableSlice("things"), 100))


@pytest.mark.usefixtures("database_environment")
def test_the_rows_are_those_of_the_slice(sql: Sql) -> None:
    with closing(read_ahead(things(sql))) as batches:
        assert [row[0] for batch in batches for row in batch.rows] == list(range(3_000))
    assert connections_in_use() == 0


@pytest.mark.usefixtures("database_environment")
def test_who_stops_early_leaves_no_connection_behind(sql: Sql) -> None:
    with closing(read_ahead(things(sql))) as batches:
        assert len(next(batches)) == 100
        assert connections_in_use() == 1
    assert connections_in_use() == 0


def test_a_batch_is_read_while_the_one_before_is_looked_at() -> None:
    second_is_read = threading.Event()

    def source() -> Iterator[Batch]:
        yield Batch(("id",), [(1,)])
        second_is_read.set()
        yield Batch(("id",), [(2,)])

    with closing(read_ahead(Batches(source))) as batches:
        next(batches)
        assert second_is_read.wait(SECONDS)


def test_a_fault_in_reading_is_the_fault_of_who_looks() -> None:
    def source() -> Iterator[Batch]:
        yield Batch(("id",), [(1,)])
        raise TableError("The table is gone.")

    with closing(read_ahead(Batches(source))) as batches:
        assert len(next(batches)) == 1
        with pytest.raises(TableError, match="The table is gone"):
            next(batches)
