"""The MySQL IO manager and ranges that are stored, or read, partition by partition."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches, BatchesByPartition
from batch_assets.errors import DatabaseUnavailableError, TableError
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.instance import metadata_of
from batch_assets_tests.support.stored_assets import (
    FIRST,
    HOURS,
    SECOND,
    THIRD,
    failure_of,
    range_tags,
    reader,
    run,
    stored,
)

pytestmark = pytest.mark.usefixtures("database_environment")

COLUMNS = {"at": "DATETIME NOT NULL", "number": "BIGINT NOT NULL"}
RANGE = range_tags(FIRST, THIRD)


@pytest.fixture
def ephemeral(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield instance


def rows(key: str, number: int) -> Batches:
    moment = pd.Timestamp(key[:10] + " " + key[11:])
    return Batches([Batch(("at", "number"), [(moment.to_pydatetime(), number)])], metadata=lambda: {"made": number})


def failing(error: Exception) -> Batches:
    def fail() -> Iterator[Batch]:
        raise error
        yield

    return Batches(fail)


def by_partition(make: Callable[[str], Batches], seen: list[list[str]] | None = None) -> dg.AssetsDefinition:
    """An asset of which each hour is made by itself."""

    def parts(keys: Any) -> BatchesByPartition:
        keys = [keys] if isinstance(keys, str) else keys
        return BatchesByPartition(
            ((key, make(key)) for key in keys), on_failure=None if seen is None else lambda good: seen.append([*good])
        )

    return stored(parts, COLUMNS, HOURS, backfill_policy=dg.BackfillPolicy.multi_run(24), partition_expr="at", key="at")


def test_each_partition_of_a_range_is_stored_and_recorded_by_itself(sql: Sql, ephemeral: dg.DagsterInstance) -> None:
    recorded: list[set[str]] = []

    def make(key: str) -> Batches:
        recorded.append(ephemeral.get_materialized_partitions(dg.AssetKey("orders")))
        return rows(key, int(key[11:13]))

    result = run(by_partition(make), instance=ephemeral, tags=RANGE)
    assert result.success
    assert recorded == [set(), {FIRST}, {FIRST, SECOND}]
    assert sql("SELECT number FROM orders ORDER BY at") == [(5,), (6,), (7,)]
    events = ephemeral.fetch_materializations(dg.AssetKey("orders"), limit=100).records
    # Twice each: when it was stored, and when the step was done. Both say the same.
    said = [(event.partition_key, metadata_of(event.asset_materialization)["made"]) for event in events]
    assert sorted(said) == [(key, int(key[11:13])) for key in (FIRST, SECOND, THIRD) for _ in range(2)]
    assert {metadata_of(event.asset_materialization)["dagster/partition_row_count"] for event in events} == {1}


def test_one_that_cannot_be_stored_keeps_no_other_from_it(sql: Sql, ephemeral: dg.DagsterInstance) -> None:
    seen: list[list[str]] = []
    asset = by_partition(
        lambda key: failing(TableError("There is something wrong with it.")) if key == SECOND else rows(key, 1), seen
    )
    result = run(asset, instance=ephemeral, tags=RANGE)
    assert failure_of(result) == (
        f"1 of 3 partitions could not be stored; the others are. {SECOND}: There is something wrong with it."
    )
    assert seen == [[FIRST, THIRD]]
    assert ephemeral.get_materialized_partitions(dg.AssetKey("orders")) == {FIRST, THIRD}
    assert sql("SELECT COUNT(*) FROM orders") == [(2,)]


def test_a_fault_that_passes_has_the_step_tried_again(
    sql: Sql, ephemeral: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_TRANSIENT_RETRIES", "1")
    faults = [DatabaseUnavailableError("It is away.")]
    asset = by_partition(lambda key: failing(faults.pop()) if key == SECOND and faults else rows(key, 1))
    assert run(asset, instance=ephemeral, tags=RANGE).success
    assert sql("SELECT COUNT(*) FROM orders") == [(3,)]


def test_one_partition_alone_fails_with_its_own_sentence(ephemeral: dg.DagsterInstance) -> None:
    asset = by_partition(lambda _: failing(TableError("There is something wrong with it.")))
    assert failure_of(run(asset, partition=FIRST, instance=ephemeral)) == "There is something wrong with it."


def test_what_is_held_is_let_go_after_the_last_row_is_stored(sql: Sql, ephemeral: dg.DagsterInstance) -> None:
    seen: list[object] = []

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        seen.append("taken")
        try:
            yield
        finally:
            seen.append(sql("SELECT COUNT(*) FROM orders"))

    def make(key: str) -> Batches:
        made = rows(key, 1)
        return Batches(made.source, scope=held)

    assert run(by_partition(make), partition=FIRST, instance=ephemeral).success
    assert seen == ["taken", [(1,)]]


def test_a_loaded_range_is_narrowed_to_a_partition_and_by_a_condition(sql: Sql, ephemeral: dg.DagsterInstance) -> None:
    upstream = by_partition(lambda key: rows(key, int(key[11:13])))
    assert run(upstream, instance=ephemeral, tags=RANGE).success
    seen: dict[str, list[Any]] = {}

    def body(loaded: Batches) -> None:
        def numbers(batches: Batches) -> list[Any]:
            return [number for batch in batches for number in batch.column("number")]

        seen["all"] = numbers(loaded)
        seen["partition"] = numbers(loaded.of_partition(SECOND))
        seen["where"] = numbers(loaded.where("number > 5 OR number < 0"))
        seen["both"] = numbers(loaded.of_partition(SECOND).where("number = 7"))
        seen["twice"] = numbers(loaded.where("number > 5").where("number < 7"))

    asset = dg.asset(
        name="narrowing",
        ins={"loaded": dg.AssetIn(key=upstream.key)},
        partitions_def=HOURS,
        backfill_policy=dg.BackfillPolicy.multi_run(24),
    )(body)
    assert run(upstream, asset, only=asset, instance=ephemeral, tags=RANGE).success
    assert seen == {"all": [5, 6, 7], "partition": [6], "where": [6, 7], "both": [], "twice": [6]}


def test_rows_of_ones_own_cannot_be_narrowed() -> None:
    with pytest.raises(TableError, match="Only Batches that an asset was given can be select"):
        rows(FIRST, 1).where("number = 1")


def test_a_reader_of_a_frame_sees_all_of_a_range(ephemeral: dg.DagsterInstance) -> None:
    upstream = by_partition(lambda key: rows(key, int(key[11:13])))
    assert run(upstream, instance=ephemeral, tags=RANGE).success
    seen: list[Any] = []
    whole = reader(upstream, seen)
    assert run(upstream, whole, only=whole, instance=ephemeral).success
    assert sorted(seen[0]["number"]) == [5, 6, 7]
