"""The MySQL IO manager and slices that do not fit into memory: in and out in batches of bounded size."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import connections_in_use
from batch_assets_tests.support.stored_assets import FIRST, HOURS, failure_of, load, reader, refused, run, store, stored

pytestmark = pytest.mark.usefixtures("database_environment")

ROWS = 400_000
LIMIT_MIB = 210

# Materialises `copies`, which is `orders` batch by batch, and prints the most memory that it has had. Read from
# /proc, since getrusage() counts in what the process had before it became this one.
COPY = """
import re, sys
import dagster as dg
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.io_manager import MySQLIOManager
from batch_assets_tests.support.stored_assets import FIRST, HOURS

metadata = {"partition_expr": "at"}
read_by = {"dagster/io_manager_key": "mysql_io_manager"}
orders = dg.AssetSpec("orders", partitions_def=HOURS, metadata=metadata | read_by)

@dg.asset(partitions_def=HOURS, metadata=metadata, io_manager_key="mysql_io_manager")
def copies(orders: Batches) -> Batches:
    return Batches(Batch(batch.columns, batch.rows) for batch in orders)

with dg.DagsterInstance.ephemeral() as instance:
    result = dg.materialize(
        [copies, orders], partition_key=FIRST, resources={"mysql_io_manager": MySQLIOManager()}, instance=instance
    )
(event,) = result.asset_materializations_for_node("copies")
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(event.metadata["rows"].value, int(peak[1]) // 1024)
"""


def orders(sql: Sql, rows: int) -> None:
    """Fills `orders` with up to a million rows of one hour, by the database alone."""
    digits = " UNION ALL ".join(f"SELECT {digit}{' AS n' if not digit else ''}" for digit in range(10))
    number = "a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n + 100000 * f.n"
    sql("CREATE TABLE orders (id BIGINT PRIMARY KEY, at DATETIME NOT NULL, `values` VARCHAR(60) NOT NULL)")
    sql(
        f"INSERT INTO orders SELECT {number}, '2026-01-01 05:10:00', '[5.1, 3.5, 1.4, 0.2, 5.1, 3.5, 1.4, 0.2]' FROM "
        + ", ".join(f"({digits}) AS {name}" for name in "abcdef")
        + f" WHERE {number} < {rows}"
    )


def source() -> dg.AssetsDefinition:
    return stored(lambda _: pd.DataFrame(), None, HOURS, partition_expr="at")


@pytest.mark.slow
def test_four_hundred_thousand_rows_go_through_in_little_memory(sql: Sql) -> None:
    orders(sql, ROWS)
    sql("CREATE TABLE copies (id BIGINT PRIMARY KEY, at DATETIME NOT NULL, `values` VARCHAR(60) NOT NULL)")
    done = subprocess.run(
        [sys.executable, "-c", COPY],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows, peak = map(int, done.stdout.split())
    assert rows == ROWS
    assert sql("SELECT COUNT(*), SUM(id) FROM copies") == [(ROWS, ROWS * (ROWS - 1) // 2)]
    assert peak < LIMIT_MIB, f"{peak} MiB at the most"


def test_batches_are_of_the_size_that_is_asked_for(sql: Sql) -> None:
    orders(sql, 1_050)
    for size in (1, 7, 500, 1_050, 10_000):
        batches = load(source(), Batches, FIRST, batch_rows=size)
        assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        assert 0 < len(batches[-1]) <= size
        assert sorted(row[0] for batch in batches for row in batch.rows) == list(range(1_050))


def test_the_first_batch_may_be_small_and_each_further_one_is_twice_as_large(sql: Sql) -> None:
    orders(sql, 1_050)
    for first, size, sizes in (
        (100, 10_000, [100, 200, 400, 350]),
        (100, 250, [100, 200, 250, 250, 250]),
        (500, 300, [300, 300, 300, 150]),
        (2_000, 10_000, [1_050]),
    ):
        batches = load(source(), Batches, FIRST, batch_rows=size, first_batch_rows=first)
        assert [len(batch) for batch in batches] == sizes
        assert sorted(row[0] for batch in batches for row in batch.rows) == list(range(1_050))


@pytest.mark.parametrize("name", ["batch_rows", "first_batch_rows"])
@pytest.mark.parametrize("size", [0, -1, "many", 1.5])
def test_a_size_that_is_none_is_refused(sql: Sql, name: str, size: Any) -> None:
    orders(sql, 1)
    down = reader(source(), [], Batches, **{name: size})
    assert f"{name} of the input" in failure_of(run(source(), down, only=down))


def test_an_hour_without_rows_has_no_batches(sql: Sql) -> None:
    orders(sql, 1)
    assert load(source(), Batches, "2026-01-01-09:00") == []


def test_batches_are_read_when_they_are_used_and_can_be_read_again(sql: Sql) -> None:
    orders(sql, 3)
    seen = []

    @dg.asset(ins={"loaded": dg.AssetIn("orders")})
    def down(loaded: Batches) -> None:
        sql("DELETE FROM orders WHERE id = 0")
        seen.append(sum(len(batch) for batch in loaded))
        sql("DELETE FROM orders WHERE id = 1")
        seen.append(sum(len(batch) for batch in loaded))

    assert run(source(), down, only=down).success
    assert seen == [2, 1]


def test_frames_of_batches_have_the_types_of_the_table(sql: Sql) -> None:
    sql("CREATE TABLE orders (id BIGINT NOT NULL, amount BIGINT NULL, at DATETIME NULL, note VARCHAR(9) NULL)")
    sql("INSERT INTO orders VALUES (1, 5, '2026-01-01 05:00:00', 'a'), (2, NULL, NULL, NULL)")
    frames: list[pd.DataFrame] = []

    @dg.asset(ins={"loaded": dg.AssetIn("orders", metadata={"batch_rows": 1})})
    def down(loaded: Batches) -> None:
        frames.extend(loaded.frames())

    table = stored(lambda _: pd.DataFrame())
    assert run(table, down, only=down).success
    assert [len(frame) for frame in frames] == [1, 1]
    for frame in frames:
        assert frame.dtypes.astype(str).tolist() == ["int64", "Int64", "datetime64[us]", "str"]


def stored_in_orders(body: Callable[[Batches], Batches]) -> dg.AssetsDefinition:
    """An asset that puts what it makes of the orders of an hour in their place."""
    return dg.asset(
        name="moved",
        partitions_def=HOURS,
        ins={"loaded": dg.AssetIn("orders")},
        metadata={"table": "orders", "partition_expr": "at"},
        io_manager_key="mysql_io_manager",
    )(body)


def test_a_stream_reads_one_table_while_it_is_stored_in_another(sql: Sql) -> None:
    # On SQLite both are one file, with one writer.
    orders(sql, 25_000)
    sql("CREATE TABLE copies (id BIGINT PRIMARY KEY, at DATETIME NOT NULL, `values` VARCHAR(60) NOT NULL)")

    @dg.asset(partitions_def=HOURS, metadata={"partition_expr": "at"}, io_manager_key="mysql_io_manager")
    def copies(orders: Batches) -> Batches:
        return Batches(lambda: (batch for batch in orders))

    for _ in range(2):
        assert run(source(), copies, only=copies, partition=FIRST).success
        assert sql("SELECT COUNT(*) FROM copies") == [(25_000,)]


def test_a_stream_may_replace_the_rows_that_it_reads(sql: Sql) -> None:
    orders(sql, 25_000)

    def body(loaded: Batches) -> Batches:
        return Batches(
            Batch(batch.columns, [(key + 1_000_000, at, text) for key, at, text in batch.rows]) for batch in loaded
        )

    same = stored_in_orders(body)
    assert run(source(), same, only=same, partition=FIRST).success
    assert sql("SELECT COUNT(*), MIN(id), MAX(id) FROM orders") == [(25_000, 1_000_000, 1_024_999)]


def test_a_stream_may_update_the_rows_that_it_reads(sql: Sql) -> None:
    orders(sql, 25_000)

    def body(loaded: Batches) -> Batches:
        return Batches(Batch(("id", "values"), [(row[0], f"[{row[0]}]") for row in batch.rows]) for batch in loaded)

    same = dg.asset(
        name="scored",
        partitions_def=HOURS,
        ins={"loaded": dg.AssetIn("orders", metadata={"columns": ["id"]})},
        metadata={"table": "orders", "partition_expr": "at", "key": "id", "update_columns": ["values"]},
        io_manager_key="mysql_io_manager",
    )(body)
    assert run(source(), same, only=same, partition=FIRST).success
    assert sql("SELECT COUNT(*), MAX(LENGTH(`values`)) FROM orders") == [(25_000, 7)]


def test_no_connection_is_left_by_a_run_that_fails(sql: Sql) -> None:
    orders(sql, 25_000)

    def body(loaded: Batches) -> Batches:
        return Batches(batch if not position else Batch(("colour",), [(1,)]) for position, batch in enumerate(loaded))

    bad = stored_in_orders(body)
    assert "colour is not a column" in failure_of(run(source(), bad, only=bad, partition=FIRST))
    assert connections_in_use() == 0
    assert sql("SELECT COUNT(*) FROM orders") == [(25_000,)]


def test_a_stream_is_closed_when_a_row_is_refused(sql: Sql) -> None:
    orders(sql, 1)
    closed = []

    def stream() -> Any:
        try:
            for number in range(10):
                yield pd.DataFrame({"id": [number], "at": [pd.Timestamp("2026-01-01 05:00")], "values": [None]})
        finally:
            closed.append(True)

    assert "refused a statement" in refused(
        stored(lambda _: Batches(stream()), None, HOURS, partition_expr="at"), FIRST
    )
    assert closed == [True]


def test_an_input_that_is_not_used_costs_no_connection(sql: Sql) -> None:
    orders(sql, 1)
    seen: list[Any] = []

    @dg.asset(ins={"loaded": dg.AssetIn("orders")})
    def down(loaded: Batches) -> None:
        seen.append(connections_in_use())

    assert run(source(), down, only=down).success
    assert seen == [0]


def test_batches_of_all_kinds_are_stored(sql: Sql) -> None:
    columns = {"id": "INT NOT NULL"}
    frame, batch = pd.DataFrame({"id": [1]}), Batch(("id",), [(2,)])
    both: list[pd.DataFrame | Batch] = [frame, batch]
    for given in (Batches(both), Batches(iter(both)), Batches(lambda: iter(both))):
        assert store(stored(lambda _, g=given: g, columns))["rows"] == 2
        assert sql("SELECT id FROM orders ORDER BY id") == [(1,), (2,)]
