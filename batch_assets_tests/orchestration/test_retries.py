"""Retries of an hour: what a partial and a whole-batch run score, what is given up, and who tries again by himself."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from numpy.typing import NDArray

from batch_assets.database.records.hour_lock import HourLock
from batch_assets.orchestration.partitions import check_closed
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.instance import metadata_of, run_of
from batch_assets_tests.support.pipeline import (
    END,
    GOOD,
    HOUR,
    Counts,
    assert_hour_adds_up,
    assert_predicted,
    correct,
    failed_of,
    insert_items,
    iris_probabilities,
    meddling,
    predictions_of,
    rows_of,
    run_job,
    summary_of,
)
from batch_assets_tests.support.servers import Server, free_port

pytestmark = pytest.mark.usefixtures("tables")

BAD = "[1, 2]"
OLD = [0.5, 0.25, 0.25]
PARTIAL, WHOLE_BATCH = {"batch_assets/retry": "partial"}, {"batch_assets/retry": "whole_batch"}
NEXT_HOUR, NEXT_START, NEXT_END = "2026-11-02-06:00", END, "2026-11-02 07:00:00"
AFTER_NEXT = "2026-11-02-07:00"


def run(
    instance: dg.DagsterInstance,
    tags: dict[str, str] | None = None,
    retry: str | None = None,
    hours: tuple[str, str] = (HOUR, HOUR),
    model: dg.ConfigurableResource[Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """The job in this process, for one hour or for a range of them."""
    from batch_assets.definitions import defs

    range_tags = {f"dagster/asset_partition_range_{end}": key for end, key in zip(("start", "end"), hours, strict=True)}
    config = {"ops": {"predictions": {"config": {"retry": retry}}}} if retry else {}
    resources = {**defs.resources, **({"model": model} if model else {})} if defs.resources else {}
    job = dg.Definitions(
        assets=defs.assets, jobs=defs.jobs, resources=resources, executor=defs.executor
    ).resolve_job_def("batch_inference")
    return job.execute_in_process(
        run_config=config,
        tags={**(tags or {}), **({"dagster/partition": HOUR} if hours == (HOUR, HOUR) else range_tags)},
        instance=instance,
        raise_on_error=False,
    )


def scored(result: dg.ExecuteInProcessResult) -> tuple[str, int]:
    """The mode of a run and how many items it gave a prediction."""
    (event,) = result.asset_materializations_for_node("predictions")
    metadata = metadata_of(event)
    return str(metadata["retry"]), int(metadata["scored"])


def set_old_predictions(sql: Sql, *keys: int) -> None:
    """As an older model left them."""
    for key in keys:
        sql("UPDATE items SET prediction = %s WHERE id = %s", json.dumps(OLD), key)


# The mode


def test_the_mode_is_that_of_the_config_or_the_tag_or_the_policy(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_old_predictions(sql, *insert_items(sql, GOOD))
    assert scored(run(instance)) == ("partial", 0)
    assert scored(run(instance, WHOLE_BATCH)) == ("whole_batch", 3)
    assert scored(run(instance, PARTIAL, retry="whole_batch")) == ("whole_batch", 3)
    monkeypatch.setenv("BATCH_RETRY", "whole_batch")
    assert scored(run(instance)) == ("whole_batch", 3)
    assert scored(run(instance, PARTIAL)) == ("partial", 0)
    monkeypatch.setenv("BATCH_RETRY", "leave")
    assert scored(run(instance)) == ("partial", 0)
    assert summary_of(sql)["retry"] == "whole_batch"  # the last run that scored


def test_a_tag_that_is_no_mode_is_refused(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    result = run(instance, {"batch_assets/retry": "everything"})
    assert not result.success
    assert "'everything': set it to partial or whole_batch" in failure(result)
    assert assert_hour_adds_up(sql) == Counts(3, 0, 0, 3)


# What the service is spared


def test_a_run_writes_no_more_rows_a_second_than_it_may(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_ROWS_PER_SECOND", "10000")
    insert_items(sql, GOOD[:1] * 20_001)
    result = run(instance)
    assert scored(result) == ("partial", 20_001)
    (event,) = result.asset_materializations_for_node("predictions")
    # The last batch, with 6,001 rows, may begin when the time of those before it is over.
    metadata = metadata_of(event)
    assert metadata["paused_seconds"] > 0
    assert metadata["seconds"] >= 1.4
    assert assert_hour_adds_up(sql) == Counts(20_001, 20_001, 0, 0)


@pytest.mark.parametrize("mode", [PARTIAL, WHOLE_BATCH])
def test_a_limit_that_cannot_be_looked_at_fails_the_run_before_anything_is_written(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch, mode: dict[str, str]
) -> None:
    insert_items(sql, GOOD)
    monkeypatch.setenv("BATCH_MAX_LOAD", "Threads_runing=25")
    result = run(instance, mode)
    assert not result.success
    assert "BATCH_MAX_LOAD" in failure(result)
    assert assert_hour_adds_up(sql) == Counts(3, 0, 0, 3)


@pytest.mark.parametrize("database_environment", ["server"], indirect=True)
def test_a_run_has_the_pace_that_the_settings_say_unless_its_tag_says_full(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_SLOWDOWN", "2")
    insert_items(sql, GOOD * 500)
    (event,) = run(instance).asset_materializations_for_node("predictions")
    assert metadata_of(event)["slowdown"] > 0
    assert assert_hour_adds_up(sql) == Counts(1_500, 1_500, 0, 0)
    sql("UPDATE items SET prediction = NULL")
    (event,) = run(instance, {"batch_assets/pace": "full"}).asset_materializations_for_node("predictions")
    assert metadata_of(event)["scored"] == 1_500
    assert "slowdown" not in metadata_of(event)


def test_a_tag_that_is_no_pace_is_refused(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    result = run(instance, {"batch_assets/pace": "fast"})
    assert not result.success
    assert "'fast': remove it, or set it to full" in failure(result)
    assert assert_hour_adds_up(sql) == Counts(3, 0, 0, 3)


# Partial


def test_a_partial_run_leaves_alone_what_has_a_prediction_and_what_was_given_up(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_ATTEMPTS", "2")
    old, bad, good = insert_items(sql, [GOOD[0], BAD, GOOD[1]])
    set_old_predictions(sql, old)
    for attempt, (count, failures) in enumerate([(1, 1), (0, 1), (0, 0), (0, 0)], 1):
        result = run(instance)
        (event,) = result.asset_materializations_for_node("predictions")
        assert (event.metadata["scored"].value, event.metadata["failed"].value) == (count, failures)
        assert failed_of(sql)[bad][2] == min(attempt, 2)
    assert_predicted(sql, {old: OLD, good: iris_probabilities([GOOD[1]])[0]})


def test_an_item_that_was_given_up_and_then_corrected_is_scored(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_ATTEMPTS", "1")
    corrected, worse = insert_items(sql, [BAD, BAD])
    run(instance)
    correct(sql, corrected, GOOD[2])
    correct(sql, worse, "[]")
    run(instance)
    assert_predicted(sql, {corrected: iris_probabilities([GOOD[2]])[0]})
    assert failed_of(sql) == {worse: ("wrong_length", "0 values, the model takes 4", 1)}
    assert assert_hour_adds_up(sql) == Counts(2, 1, 1, 0)


def test_many_items_that_failed_before_do_not_make_the_model_a_misfit(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, [*GOOD, *[BAD] * 150])
    assert run(instance).success
    assert run(instance).success
    assert assert_hour_adds_up(sql) == Counts(153, 3, 150, 0)


# Whole batch


def test_a_whole_batch_run_scores_every_item_anew(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_ATTEMPTS", "1")
    old, pending, turned_bad, given_up, fixed = insert_items(sql, [GOOD[0], GOOD[1], BAD, BAD, BAD])
    assert run(instance).success
    correct(sql, fixed, GOOD[2])
    set_old_predictions(sql, old, turned_bad)
    sql("UPDATE items SET prediction = NULL WHERE id = %s", pending)
    assert scored(run(instance, WHOLE_BATCH)) == ("whole_batch", 3)
    assert_predicted(sql, dict(zip([old, pending, fixed], iris_probabilities(GOOD), strict=True)))
    assert {key: attempts for key, (_, _, attempts) in failed_of(sql).items()} == {turned_bad: 1, given_up: 2}
    assert assert_hour_adds_up(sql) == Counts(5, 3, 2, 0)


@pytest.mark.slow
def test_readers_see_the_old_hour_until_they_see_the_new_one(
    instance: dg.DagsterInstance, sql: Sql, many_items: tuple[list[str], NDArray[np.float64]]
) -> None:
    texts, expected = many_items
    ids = insert_items(sql, texts[:25_000])
    sql("UPDATE items SET prediction = %s", json.dumps(OLD))
    seen: list[list[tuple[Any, ...]]] = []

    def look() -> None:
        seen.append(sql("SELECT DISTINCT prediction FROM items"))

    ended = threading.Event()

    def keep_looking() -> None:
        while not ended.is_set():
            look()

    reader = threading.Thread(target=keep_looking)
    reader.start()
    try:
        result = run(instance, WHOLE_BATCH, model=meddling(look))
    finally:
        ended.set()
        reader.join()
    assert result.success
    assert_predicted(sql, dict(zip(ids, expected[:25_000], strict=True)))
    look()
    old = [predictions for predictions in seen if [json.loads(text) for (text,) in predictions] == [OLD]]
    assert len(old) >= 3
    # Whatever else was seen was the whole of the new hour.
    assert {len(predictions) for predictions in seen if predictions not in old} == {len(seen[-1])}


def test_an_item_that_changes_or_goes_meanwhile_gets_no_stale_prediction(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    changed, gone, kept = insert_items(sql, GOOD)
    set_old_predictions(sql, changed, gone, kept)

    def meddle() -> None:
        sql("UPDATE items SET `values` = %s, prediction = NULL WHERE id = %s", GOOD[2], changed)
        sql("DELETE FROM items WHERE id = %s", gone)
        if len(predictions_of(sql)) == 2:
            insert_items(sql, [GOOD[0]])

    assert run(instance, WHOLE_BATCH, model=meddling(meddle)).success
    assert assert_hour_adds_up(sql) == Counts(3, 1, 0, 2)
    assert_predicted(sql, {kept: iris_probabilities([GOOD[2]])[0]})


# The threshold


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The sentence with which the step failed."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    assert data.description is not None
    return data.description


def test_a_partial_run_past_the_threshold_fails_and_keeps_what_could_be_scored(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_FAILED_SHARE", "0.5")
    ids = insert_items(sql, [*GOOD, BAD, BAD, BAD])
    assert run(instance).success
    insert_items(sql, [BAD])
    result = run(instance)
    assert failure(result) == (
        f"4 of 7 items of the hour {HOUR} cannot be scored, more than BATCH_MAX_FAILED_SHARE=0.5 allows (in this run: "
        "wrong_length 4); what could be scored was written. Fix the items or the model, then materialise the hour "
        "again."
    )
    assert_predicted(sql, dict(zip(ids, iris_probabilities(GOOD), strict=False)))
    assert assert_hour_adds_up(sql) == Counts(7, 3, 4, 0)


def test_a_whole_batch_past_the_threshold_publishes_nothing(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _, _ = insert_items(sql, [GOOD[0], BAD, BAD])
    assert run(instance).success
    set_old_predictions(sql, old)
    before = rows_of(sql)
    monkeypatch.setenv("BATCH_MAX_FAILED_ITEMS", "1")
    result = run(instance, WHOLE_BATCH)
    assert "2 of 3 items" in failure(result)
    assert "more than BATCH_MAX_FAILED_ITEMS=1 allows" in failure(result)
    assert "nothing of it was published" in failure(result)
    assert rows_of(sql) == before


# One writer an hour


def test_a_run_of_an_hour_that_another_one_holds_fails_or_waits_as_it_is_set(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    rival = HourLock(
        engine_from_environment(),
        TABLES,
        check_closed(HOUR, OF_ENVIRONMENT),
        "the-rival",
        wait=False,
        on_progress=print,
    )
    monkeypatch.setenv("BATCH_BUSY_HOUR", "fail")
    with rival.acquire():
        result = run(instance)
        assert f"The hour {HOUR} is held by run the-rival" in failure(result)
        tags = run_of(instance, result.run_id).tags
        assert tags["batch_assets/fault"] == "of run"  # the other run does the work: nobody needs to fix anything
    monkeypatch.setenv("BATCH_BUSY_HOUR", "wait")
    holds, seen = threading.Event(), []

    def hold_for_a_while() -> None:
        with rival.acquire():
            holds.set()
            time.sleep(2)
            seen.append(assert_hour_adds_up(sql))

    holder = threading.Thread(target=hold_for_a_while)
    holder.start()
    assert holds.wait(30)
    assert run(instance).success
    holder.join()
    assert seen == [Counts(3, 0, 0, 3)]
    assert assert_hour_adds_up(sql) == Counts(3, 3, 0, 0)


def test_a_run_that_loses_the_hour_to_another_one_writes_nothing_more(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    result = run(instance, model=meddling(lambda: sql("UPDATE hour_locks SET run_id = 'the-rival'")))
    assert "to run the-rival: nothing more was written" in failure(result)
    assert assert_hour_adds_up(sql) == Counts(3, 0, 0, 3)


# Who tries again


def attempts_of(result: dg.ExecuteInProcessResult, step: str) -> int:
    return 1 + sum(event.is_step_restarted for event in result.all_events if event.step_key == step)


def test_a_connection_that_is_cut_is_tried_again_within_the_run(
    instance: dg.DagsterInstance, sql: Sql, server: Server, server_of_test: None
) -> None:
    insert_items(sql, GOOD)
    cut: list[int] = []

    def cut_connections() -> None:
        if cut:
            return
        for (key,) in sql(f"SELECT id FROM {server.processlist} WHERE db = DATABASE() AND id <> CONNECTION_ID()"):
            cut.append(key)
            sql("KILL %s", key)

    result = run(instance, model=meddling(cut_connections))
    assert cut
    assert result.success
    assert attempts_of(result, "predictions") == 2
    assert_predicted(sql, dict(enumerate(iris_probabilities(GOOD), 1)))


def test_a_server_that_stays_away_is_tried_as_often_as_it_is_set(
    instance: dg.DagsterInstance, sql: Sql, server_of_test: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    monkeypatch.setenv("MYSQL_PORT", str(free_port()))
    monkeypatch.setenv("BATCH_TRANSIENT_RETRIES", "2")
    result = run(instance)
    assert not result.success
    assert attempts_of(result, "raw_items") == 3
    assert "No MySQL server answers" in failure(result)
    tags = run_of(instance, result.run_id).tags
    assert tags["batch_assets/fault_message"].startswith("No MySQL server answers")
    assert "batch_assets/fault" not in tags  # nobody needs to fix anything: the sensor may try again


@pytest.mark.parametrize("fault", ["model", "table", "threshold"])
def test_a_permanent_fault_is_tried_by_nobody(
    fault: str, instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    insert_items(sql, [*GOOD, BAD])
    if fault == "model":
        monkeypatch.setenv("MODEL_FILEPATH", str(tmp_path / "none.onnx"))
    elif fault == "table":
        sql("DROP TABLE failed_items")
    else:
        monkeypatch.setenv("BATCH_MAX_FAILED_ITEMS", "0")
    result = run(instance)
    assert not result.success
    assert not any(event.is_step_restarted for event in result.all_events)
    tags = run_of(instance, result.run_id).tags
    assert tags["batch_assets/fault"] == "permanent"
    assert failure(result).startswith(tags["batch_assets/fault_message"][:200])


@pytest.fixture
def server_of_test(tables: dict[str, str], request: pytest.FixtureRequest) -> None:
    if "MYSQL_SERVER" not in tables:
        pytest.skip("SQLite has no connections that could be cut")


# Ranges


def test_an_hour_of_a_range_that_cannot_be_scored_keeps_no_other_from_it(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_FAILED_ITEMS", "0")
    insert_items(sql, GOOD)
    insert_items(sql, [BAD], NEXT_START)
    insert_items(sql, GOOD[:2], NEXT_END)
    result = run(instance, hours=(HOUR, AFTER_NEXT))
    assert failure(result).startswith(f"1 of 3 partitions could not be stored; the others are. {NEXT_HOUR}: 1 of 1 it")
    done = {
        name: instance.get_materialized_partitions(dg.AssetKey(name))
        for name in ("raw_items", "predictions", "run_summary")
    }
    assert done["raw_items"] == {HOUR, NEXT_HOUR, AFTER_NEXT}
    assert done["predictions"] == done["run_summary"] == {HOUR, AFTER_NEXT}
    assert sql("SELECT items, predicted FROM run_summary ORDER BY hour") == [(3, 3), (2, 2)]

    sql("UPDATE items SET `values` = %s WHERE created_datetime = %s", GOOD[0], NEXT_START)
    again = run(instance, hours=(HOUR, AFTER_NEXT))
    assert again.success
    scored_again = {
        event.partition: event.step_materialization_data.materialization.metadata["scored"].value
        for event in again.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("predictions")
    }
    assert scored_again == {HOUR: 0, NEXT_HOUR: 1, AFTER_NEXT: 0}


def test_a_range_with_an_hour_that_is_not_closed_is_refused_as_a_whole(sql: Sql) -> None:
    insert_items(sql, GOOD)
    job = run_job(None, DAGSTER_HOME=os.environ["DAGSTER_HOME"])
    job.assert_failed_with("This run is not for one hour")
