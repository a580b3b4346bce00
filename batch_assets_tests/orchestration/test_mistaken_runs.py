"""A run that was started by mistake tells the sensor nothing about its hour: the last proper one counts."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from batch_assets.database.records.hour_lock import HourLock
from batch_assets.database.records.hour_requests import read_requests
from batch_assets.hours import Hour, utc_now
from batch_assets.orchestration.names import asset_keys
from batch_assets.orchestration.partitions import check_closed
from batch_assets.orchestration.resources import Model
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.instance import run_of
from batch_assets_tests.support.pipeline import END, GOOD, HOUR, insert_items
from batch_assets_tests.support.sensor import MINUTE, Tick, over, run_of_hour

# What is judged here are runs of Dagster; what is read of the tables for it, test_sensor.py has read on every server.
pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.above_sql]

NEXT, AFTER_NEXT, AFTER_NEXT_START = "2026-11-02-06:00", "2026-11-02-07:00", "2026-11-02 07:00:00"
NOTHING_LEFT = "Nothing is left in any closed hour."
GIVEN_UP = "No hour is requested. Hours that wait for somebody, having been given up: 1"
# Nobody can correct it by starting the run again, and no item has to be bad for it.
PERMANENT = {"MODEL_FILEPATH": "no such file"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
        yield instance


def run(
    instance: dg.DagsterInstance,
    hour: str | tuple[str, str] = HOUR,
    tags: dict[str, str] | None = None,
    model: dg.ConfigurableResource[Any] | None = None,
    **environment: str,
) -> dg.DagsterRun:
    """A real run of the job by hand, as it has ended."""
    from batch_assets.definitions import defs

    if isinstance(hour, str):
        of_hour = {"dagster/partition": hour}
    else:
        of_hour = {name.replace("__", "/"): key for name, key in over(*hour).items()}
    resources = {**(defs.resources or {}), **({"model": model} if model else {})}
    job = dg.Definitions(
        assets=defs.assets, jobs=defs.jobs, resources=resources, executor=defs.executor
    ).resolve_job_def("batch_inference")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        result = job.execute_in_process(tags={**(tags or {}), **of_hour}, instance=instance, raise_on_error=False)
    return run_of(instance, result.run_id)


def failed(instance: dg.DagsterInstance, *args: Any, **options: Any) -> dg.DagsterRun:
    """A real run that fails."""
    ended = run(instance, *args, **options)
    assert ended.status == dg.DagsterRunStatus.FAILURE
    return ended


def hour_that_is_not_closed() -> Hour:
    """The open hour, or the next one where a test might see the open one end."""
    moment = utc_now() + MINUTE
    return Hour(moment.replace(minute=0, second=0, microsecond=0))


def reasons_given() -> list[str | None]:
    """Why the hours that are given up are."""
    return [request.given_up_because for request in read_requests(engine_from_environment(), TABLES).values()]


# How it was requested


def test_an_hour_that_was_run_while_it_was_open_is_requested_when_it_is_closed(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    hour = hour_that_is_not_closed()
    insert_items(sql, GOOD, str(hour.start))
    failed(instance, hour.key)
    (request,) = Tick(instance, 120 * MINUTE).requests
    assert (request.partition_key, request.tags["batch_assets/reason"]) == (hour.key, "missed tick")


@pytest.mark.parametrize(
    "mistake",
    [
        lambda hour, _: {"hour": hour.key, "tags": {"batch_assets/retry": "whole-batch"}},
        lambda hour, not_closed: {"hour": (hour.key, not_closed.key)},
        lambda hour, _: {"hour": hour.key, "BATCH_MAX_FAILED_SHARE": "five per cent"},
        lambda hour, _: {"hour": hour.key, "MYSQL_SERVER": "", "BATCH_ASSETS_HOME": "/dev/null/none"},
    ],
    ids=["tag", "range", "settings", "database"],
)
def test_a_mistaken_run_changes_nothing_about_its_hour(
    instance: dg.DagsterInstance, sql: Sql, mistake: Callable[[Hour, Hour], dict[str, Any]]
) -> None:
    not_closed = hour_that_is_not_closed()
    hour = Hour(not_closed.start - 120 * MINUTE)
    failed(instance, **mistake(hour, not_closed))
    assert Tick(instance).said == NOTHING_LEFT  # and nothing that failed has to be done again
    insert_items(sql, GOOD, str(hour.start))
    (request,) = Tick(instance).requests
    assert (request.partition_key, request.tags["batch_assets/reason"]) == (hour.key, "missed tick")


@pytest.mark.parametrize("ends", [(HOUR, "9999-12-31-23:00"), ("0001-01-01-00:00", HOUR)])
def test_a_range_with_a_year_that_was_mistyped_does_not_keep_the_sensor(
    instance: dg.DagsterInstance, sql: Sql, ends: tuple[str, str]
) -> None:
    fault = {"batch_assets__fault": "of run", "batch_assets__fault_message": "It lies in the future."}
    run_of_hour(instance, dg.DagsterRunStatus.FAILURE, assets=(), **over(*ends), **fault)
    insert_items(sql, GOOD)
    (request,) = Tick(instance).requests
    assert request.tags["batch_assets/reason"] == "missed tick"


def test_a_run_that_never_started_changes_nothing_about_its_hour(instance: dg.DagsterInstance, sql: Sql) -> None:
    # Its config was refused by the code, for example: none of its steps could say so.
    run_id = run_of_hour(instance, dg.DagsterRunStatus.STARTING)
    instance.report_run_failed(run_of(instance, run_id))
    assert Tick(instance).said == NOTHING_LEFT
    insert_items(sql, GOOD)
    (request,) = Tick(instance).requests
    assert request.tags["batch_assets/reason"] == "missed tick"


def test_an_hour_that_another_run_holds_is_not_given_up_by_the_one_that_had_to_leave(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    for moment in (END, AFTER_NEXT_START):
        insert_items(sql, GOOD, moment)
    engine = engine_from_environment()
    with contextlib.ExitStack() as held:
        for hour in (NEXT, AFTER_NEXT):
            lock = HourLock(
                engine, TABLES, check_closed(hour, OF_ENVIRONMENT), "the-rival", wait=False, on_progress=print
            )
            held.enter_context(lock.acquire())
        busy = failed(instance, (HOUR, AFTER_NEXT), BATCH_BUSY_HOUR="fail")
    assert busy.tags["batch_assets/failed_partitions"] == f"{NEXT}, {AFTER_NEXT}"
    assert Tick(instance).hours == [NEXT, AFTER_NEXT]
    assert reasons_given() == [None, None]


def test_of_a_range_an_hour_is_not_given_up_for_what_another_one_said(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, [*GOOD, '"bad"'], END)
    lock = HourLock(
        engine_from_environment(),
        TABLES,
        check_closed(HOUR, OF_ENVIRONMENT),
        "the-rival",
        wait=False,
        on_progress=print,
    )
    with lock.acquire():
        failed(instance, (HOUR, NEXT), BATCH_BUSY_HOUR="fail", BATCH_MAX_FAILED_ITEMS="0")
    assert Tick(instance, 6 * MINUTE).hours == [HOUR, NEXT]
    # What was said of the other hour alone, it says again by itself.
    failed(instance, NEXT, BATCH_MAX_FAILED_ITEMS="0")


def test_an_hour_whose_run_was_asked_for_while_it_was_open_is_not_given_up_when_that_run_is_canceled(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    hour = hour_that_is_not_closed()
    insert_items(sql, GOOD, str(hour.start))
    run_of_hour(instance, dg.DagsterRunStatus.CANCELED, dagster__partition=hour.key)
    assert Tick(instance, 120 * MINUTE).hours == [hour.key]


# What was before


def test_a_mistaken_run_does_not_take_up_an_hour_that_is_given_up(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    failed(instance, **PERMANENT)
    assert Tick(instance).said == NOTHING_LEFT
    (reason,) = reasons_given()
    assert reason
    assert "no such file" in reason
    failed(instance, tags={"batch_assets/retry": "whole-batch"})
    assert Tick(instance, 60 * MINUTE).said == GIVEN_UP
    assert run(instance).status == dg.DagsterRunStatus.SUCCESS
    assert Tick(instance, 60 * MINUTE).said == NOTHING_LEFT


def test_a_mistaken_run_of_an_hour_that_is_done_has_nothing_done_again(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    assert run(instance).status == dg.DagsterRunStatus.SUCCESS
    failed(instance, tags={"batch_assets/retry": "whole-batch"})
    assert Tick(instance, 60 * MINUTE).said == NOTHING_LEFT
    insert_items(sql, GOOD)
    (request,) = Tick(instance, 60 * MINUTE).requests
    assert request.tags["batch_assets/reason"] == "late items"


def test_an_hour_whose_requested_runs_all_find_bad_settings_is_given_up_with_that_sentence(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    monkeypatch.setenv("BATCH_MAX_ATTEMPTS", "1")
    assert Tick(instance, -MINUTE).hours == [HOUR]
    run_id = failed(instance, BATCH_MAX_FAILED_SHARE="five per cent").run_id
    assert Tick(instance).requests == []
    assert reasons_given() == [None]
    assert Tick(instance, 60 * MINUTE).requests == []
    (reason,) = reasons_given()
    assert reason
    assert reason.startswith(
        f"it was requested 1 time without progress, and its last run {run_id} failed: BATCH_MAX_FAILED_SHARE is"
    )


class Broken(Model):
    """A resource that is at fault in a way that nobody has a sentence for."""

    def load(self, files: Any, items: Any, inference: Any) -> Any:
        raise ZeroDivisionError(files)


def test_a_run_that_is_executed_again_is_not_judged_by_the_tags_of_the_first(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    insert_items(sql, GOOD)
    first = failed(instance, **PERMANENT)
    assert first.tags["batch_assets/fault"] == "permanent"
    failed(instance, tags=dict(first.tags), model=Broken())
    (request,) = Tick(instance, 6 * MINUTE).requests
    assert request.tags["batch_assets/reason"] == "failed run"
    wrong_tag = {**first.tags, "batch_assets/retry": "whole-batch"}
    again = failed(instance, tags=wrong_tag)
    assert again.tags["batch_assets/fault"] == "of run"


def test_the_last_run_is_the_one_that_ended_last(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, ['"bad"'])
    started = run_of_hour(instance, dg.DagsterRunStatus.STARTED)
    run_of_hour(instance, dg.DagsterRunStatus.CANCELED)  # by somebody who saw that the other one was at it
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "batch_inference"), started)
    assert Tick(instance, 6 * MINUTE).hours == [HOUR]


def test_a_run_of_the_job_without_the_predictions_is_none_of_the_hour(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    run_of_hour(instance, dg.DagsterRunStatus.CANCELED, assets=[asset_keys(OF_ENVIRONMENT).raw_items])
    (request,) = Tick(instance).requests
    assert request.tags["batch_assets/reason"] == "missed tick"
