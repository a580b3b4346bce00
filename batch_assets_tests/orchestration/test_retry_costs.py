"""What a retry costs: the rows that it reads and writes, counted by a server that does nothing else meanwhile."""

import json
import time
from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from batch_assets_tests.support.accounts import private_server_like
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import GOOD, HOUR, START, Counts, assert_hour_adds_up, insert_items
from batch_assets_tests.support.servers import Server

pytestmark = pytest.mark.parametrize("database_environment", ["server"], indirect=True)

OLD = [0.5, 0.25, 0.25]
PARTIAL, WHOLE_BATCH = {"batch_assets/retry": "partial"}, {"batch_assets/retry": "whole_batch"}


@pytest.fixture(scope="module")
def server(server: Server) -> Iterator[Server]:
    """A server of its own: what the others have theirs do would be counted too."""
    with private_server_like(server) as private:
        yield private.server


@pytest.fixture
def counted(sql: Sql) -> Callable[[], dict[str, int]]:
    def rows() -> dict[str, int]:
        status = {name: int(value) for name, value in sql("SHOW GLOBAL STATUS LIKE %s", "Handler\\_%")}
        reads = ("first", "key", "next", "prev", "rnd", "rnd_next")
        return {
            "read": sum(status[f"Handler_read_{how}"] for how in reads),
            "updated": status["Handler_update"],
        }

    return rows


def test_a_partial_retry_reads_and_writes_what_is_pending_and_a_whole_batch_all(
    sql: Sql, instance: dg.DagsterInstance, counted: Callable[[], dict[str, int]]
) -> None:
    pending, total = 1_000, 200_000
    insert_items(sql, GOOD[:1])
    while sql("SELECT COUNT(*) FROM items")[0][0] < total:
        sql("INSERT INTO items (`values`, created_datetime, updated_datetime) SELECT `values`, created_datetime,"
            " updated_datetime FROM items LIMIT 50000")  # fmt: skip
    sql("DELETE FROM items ORDER BY id DESC LIMIT %s", sql("SELECT COUNT(*) FROM items")[0][0] - total)
    sql("UPDATE items SET prediction = %s", json.dumps(OLD))
    sql("UPDATE items SET prediction = NULL WHERE id %% 7 = 3 ORDER BY id DESC LIMIT %s", pending)
    sql("ANALYZE TABLE items")
    # MySQL counts index entries that it has yet to purge when it chooses an index, which takes it some seconds here.
    chosen = f"EXPLAIN SELECT `values` FROM items WHERE prediction_pending = 1 AND created_datetime >= '{START}'"
    end = time.monotonic() + 60
    while "Table scan" in str(sql(chosen)) and time.monotonic() < end:
        time.sleep(0.5)

    def cost(tags: dict[str, str]) -> dict[str, int]:
        from batch_assets.definitions import defs

        before = counted()
        job = dg.Definitions(
            assets=defs.assets, resources=defs.resources, executor=defs.executor,
            jobs=[dg.define_asset_job("one", selection=["predictions"])],
        ).resolve_job_def("one")  # fmt: skip
        assert job.execute_in_process(partition_key=HOUR, tags=tags, instance=instance).success
        return {name: count - before[name] for name, count in counted().items()}

    partial = cost(PARTIAL)
    assert partial["updated"] == pending
    assert partial["read"] < 10 * pending
    assert assert_hour_adds_up(sql) == Counts(total, total, 0, 0)
    whole = cost(WHOLE_BATCH)
    assert whole["updated"] >= total - pending
    assert whole["read"] >= total
