"""The summaries of several hours in one run: each of them describes the run that scored its hour."""

import dagster as dg
import pytest

from batch_assets.definitions import defs
from batch_assets.orchestration.partitions import RANGE_END_TAG, RANGE_START_TAG
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment
from batch_assets_tests.support.interruptions import listening
from batch_assets_tests.support.pipeline import (
    END,
    GOOD,
    HALF_PAST,
    HOUR,
    Counts,
    assert_hour_adds_up,
    insert_items,
    run_job,
)

NEXT, LAST = "2026-11-02-06:00", "2026-11-02-07:00"

pytestmark = pytest.mark.usefixtures("tables")


def scored(instance: dg.DagsterInstance, hour: str) -> str:
    """Scores an hour in a run of its own, whose id it returns."""
    result = defs.resolve_job_def("batch_inference").execute_in_process(partition_key=hour, instance=instance)
    assert result.success
    return result.run_id


def summed_up(instance: dg.DagsterInstance, first: str, last: str) -> str:
    """Sums up a range of hours in one run, whose id it returns."""
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        tags={RANGE_START_TAG: first, RANGE_END_TAG: last},
        asset_selection=[dg.AssetKey("run_summary")],
        instance=instance,
    )
    assert result.success
    return result.run_id


def test_of_a_range_each_hour_is_described_by_the_run_that_scored_it(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD, HALF_PAST)
    insert_items(sql, GOOD[:1], END)
    runs = [scored(instance, HOUR), scored(instance, NEXT)]
    sql("DELETE FROM run_summary")
    third = summed_up(instance, HOUR, LAST)
    rows = sql("SELECT run_id, items, scored FROM run_summary ORDER BY hour")
    # Nobody has scored the third hour, in which there is nothing.
    assert rows == [(runs[0], 3, 3), (runs[1], 1, 1), (third, 0, None)]


def test_the_run_that_scored_is_found_behind_many_that_had_nothing_to_do(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    insert_items(sql, GOOD, HALF_PAST)
    insert_items(sql, GOOD[:1], END)
    runs = [scored(instance, HOUR), scored(instance, NEXT)]
    for _ in range(30):
        nothing = dg.AssetMaterialization("predictions", partition=NEXT, metadata={"scored": 0, "failed": 0})
        instance.report_runless_asset_event(nothing)
    sql("DELETE FROM run_summary")
    summed_up(instance, HOUR, NEXT)
    assert sql("SELECT run_id, scored FROM run_summary ORDER BY hour") == [(runs[0], 3), (runs[1], 1)]


@pytest.mark.parametrize("database_environment", ["server"], indirect=True)
@pytest.mark.parametrize("table", ["hour_profiles", "run_summary"])
def test_of_two_runs_that_sum_up_an_hour_for_the_first_time_neither_fails(sql: Sql, table: str) -> None:
    insert_items(sql, GOOD)
    begun: list[str] = []

    def run_another(statement: str) -> None:
        if not begun and statement.startswith(f"INSERT INTO {table} "):
            begun.append(statement)
            run_job().assert_succeeded()

    with listening(engine_from_environment(), "before_cursor_execute", run_another):
        run_job().assert_succeeded()
    assert begun
    assert assert_hour_adds_up(sql) == Counts(3, 3, 0, 0)
    assert sql("SELECT COUNT(*) FROM hour_profiles") == [(1,)]
