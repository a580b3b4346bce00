"""Runs of a pipeline whose challenger was promoted: which model they score with, and what they refuse."""

import json
import os
import random
import signal
import time
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.errors import DatabaseUnavailableError
from batch_assets.hours import hour_of_key, utc_now
from batch_assets.pipeline import pipeline_from_environment
from batch_assets.reporting.quality import measure_hour
from batch_assets_tests.support.command_line import batch_assets, succeeded
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.instance import run_of
from batch_assets_tests.support.onnx_models import write_labels
from batch_assets_tests.support.pipeline import (
    GOOD,
    HOUR,
    LABELS,
    Counts,
    assert_hour_adds_up,
    assert_predicted,
    insert_items,
    iris_probabilities,
    meddling,
    predictions_of,
    run_in,
    run_job,
    started_command,
    summary_of,
    wait_for_the_first_prediction,
)
from batch_assets_tests.support.promotions import (
    IRIS,
    SURE,
    change,
    promote,
    promotions,
    roll_back,
    sha_of,
    write_challenger,
)
from batch_assets_tests.support.registry import Registry, sha256_of

pytestmark = pytest.mark.above_sql

NEXT_HOUR, NEXT_START, NEXT_HALF_PAST, NEXT_END = (
    "2026-11-02-06:00",
    "2026-11-02 06:00:00",
    "2026-11-02 06:30:00",
    "2026-11-02 07:00:00",
)
FOUR_BATCHES = 40_002
WHOLE_BATCH = {"predictions": {"config": {"retry": "whole_batch"}}}


@pytest.fixture
def challenger(tables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_challenger(tmp_path, monkeypatch)


def job_with(model: dg.ConfigurableResource[object]) -> dg.JobDefinition:
    """The job with a resource of the model in the place of the package's."""
    from batch_assets.definitions import defs

    resources = {**(defs.resources or {}), "model": model}
    return dg.Definitions(
        assets=defs.assets, jobs=defs.jobs, resources=resources, executor=defs.executor
    ).resolve_job_def("batch_inference")


def versions(sql: Sql) -> list[str]:
    return [version for (version,) in sql("SELECT model_version FROM run_summary ORDER BY hour")]


def test_after_a_promotion_runs_score_with_the_challenger_and_after_a_rollback_with_the_model_before(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    keys = insert_items(sql, GOOD)
    run_job().assert_succeeded()
    assert_predicted(sql, dict(zip(keys, iris_probabilities(GOOD), strict=True)))
    assert summary_of(sql)["model_version"] == sha_of(IRIS)

    promote()
    run = run_in(instance, ops=WHOLE_BATCH)
    assert set(map(tuple, filter(None, predictions_of(sql).values()))) == {tuple(SURE)}
    summary = summary_of(sql)
    assert (summary["model_version"], summary["run_id"]) == (sha_of(challenger), run)
    assert summary["label_counts"] == {LABELS[0]: 3, LABELS[1]: 0, LABELS[2]: 0}
    tags = run_of(instance, run).tags
    assert (tags["batch_assets/model"], tags["batch_assets/promotion"]) == (str(challenger), "1")

    roll_back()
    run = run_in(instance, ops=WHOLE_BATCH)
    assert_predicted(sql, dict(zip(keys, iris_probabilities(GOOD), strict=True)))
    summary = summary_of(sql)
    assert (summary["model_version"], summary["run_id"]) == (sha_of(IRIS), run)
    assert run_of(instance, run).tags["batch_assets/promotion"] == "none"


def test_status_compares_hours_with_the_promoted_model_and_says_which_it_is(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, GOOD)
    run_job().assert_succeeded()
    promote()
    ((made_by,),) = sql("SELECT made_by FROM promotions")
    output = succeeded(batch_assets("status"))
    version = sha_of(challenger)[:12]
    assert f"The model in force is {challenger}, {version}, promoted on " in output
    assert f" UTC by {made_by}" in output
    assert f"1 hour ({HOUR}) was scored last by another model than the one in force, {version}." in output
    assert HOUR in succeeded(batch_assets("status", "--older-model"))
    run_in(instance, ops=WHOLE_BATCH)
    assert "another model" not in succeeded(batch_assets("status"))


def test_the_check_of_an_hour_compares_it_with_the_promoted_model(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    promote()
    insert_items(sql, GOOD)
    run = run_in(instance)
    events = instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [event.dagster_event.asset_check_evaluation_data for event in events if event.dagster_event]
    (check,) = [each for each in found if each.check_name == "predictions_stem_from_current_model"]
    assert check.passed
    assert sha_of(challenger)[:12] in str(check.description)


def test_a_promoted_model_that_was_changed_since_scores_nothing(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    promote()
    was = sha_of(challenger)
    insert_items(sql, GOOD)
    change(challenger)
    job = run_job()
    job.assert_failed_with(str(challenger), sha_of(challenger), was, "batch-assets promote", "batch-assets rollback")
    assert run_of(instance, str(job.run_id)).tags["batch_assets/fault"] == "permanent"
    assert assert_hour_adds_up(sql) == Counts(3, 0, 0, 3)
    assert was in succeeded(batch_assets("status"))

    promote()
    run_job().assert_succeeded()
    assert versions(sql) == [sha_of(challenger)]


def test_a_promoted_model_that_is_gone_scores_nothing(instance: dg.DagsterInstance, sql: Sql, challenger: Path) -> None:
    promote()
    insert_items(sql, GOOD)
    challenger.unlink()
    run_job().assert_failed_with("Cannot read the model file", str(challenger))
    assert assert_hour_adds_up(sql) == Counts(3, 0, 0, 3)
    roll_back()
    run_job().assert_succeeded()
    assert versions(sql) == [sha_of(IRIS)]


def test_a_declaration_that_is_changed_afterwards_wins(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote()
    other = tmp_path / "other.onnx"
    other.write_bytes(IRIS.read_bytes())
    change(other)
    monkeypatch.setenv("MODEL_FILEPATH", str(other))
    monkeypatch.setenv("LABEL_FILEPATH", str(IRIS.with_name("label.json")))
    insert_items(sql, GOOD)
    run_job().assert_succeeded()
    assert versions(sql) == [sha_of(other)]
    output = succeeded(batch_assets("status"))
    assert f"The model in force is the declared one, {other}: that {challenger} was promoted on " in output
    assert "no longer applies, since the pipeline declared models/iris_svc.onnx then." in output
    # Whoever declares the promoted model has made the promotion needless.
    monkeypatch.setenv("MODEL_FILEPATH", str(challenger))
    assert "The model in force" not in succeeded(batch_assets("status"))


def test_a_promotion_in_the_middle_of_a_run_is_for_the_next_one(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, GOOD, NEXT_HALF_PAST)
    promoted: list[str] = []
    meddle = meddling(lambda: None if promoted else promoted.append(promote()))
    result = job_with(meddle).execute_in_process(
        instance=instance,
        tags={"dagster/asset_partition_range_start": HOUR, "dagster/asset_partition_range_end": NEXT_HOUR},
        raise_on_error=False,
    )
    assert result.success
    assert promoted
    assert versions(sql) == [sha_of(IRIS)] * 2
    assert SURE not in [*predictions_of(sql).values(), *predictions_of(sql, NEXT_START, NEXT_END).values()]
    insert_items(sql, GOOD[:1])
    run_job().assert_succeeded()
    assert predictions_of(sql)[7] == SURE


@pytest.mark.parametrize("first", ["declared", "promoted"])
def test_a_step_that_is_tried_again_goes_on_with_the_model_it_began_with(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, first: str
) -> None:
    if first == "promoted":
        promote()
    insert_items(sql, GOOD * (FOUR_BATCHES // 3))
    moved: list[int] = []

    def lose_the_database() -> None:
        """Once, when a part of the hour is written."""
        (written,) = sql("SELECT COUNT(prediction) FROM items")[0]
        if written and not moved:
            moved.append(written)
            roll_back() if first == "promoted" else promote()
            raise DatabaseUnavailableError("The server is away.")

    result = job_with(meddling(lose_the_database)).execute_in_process(
        instance=instance, tags={"dagster/partition": HOUR}, raise_on_error=False
    )
    assert result.success
    assert moved
    assert [event.step_key for event in result.all_events if event.is_step_restarted] == ["predictions"]
    assert versions(sql) == [sha_of(challenger if first == "promoted" else IRIS)]
    sure = {prediction == SURE for prediction in predictions_of(sql).values()}
    assert sure == {first == "promoted"}
    assert assert_hour_adds_up(sql) == Counts(FOUR_BATCHES, FOUR_BATCHES, 0, 0)


def test_a_run_that_is_executed_again_takes_the_model_in_force_by_then(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, GOOD)
    first = run_job()
    promote()
    insert_items(sql, GOOD[2:])
    result = job_with(meddling(lambda: None)).execute_in_process(
        instance=instance, tags=dict(run_of(instance, str(first.run_id)).tags), raise_on_error=False
    )
    assert result.success
    assert predictions_of(sql)[4] == SURE


@pytest.mark.slow
def test_a_run_that_is_killed_after_a_promotion_leaves_the_rest_to_a_run_with_the_promoted_model(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD * FOUR_BATCHES)
    insert_items(sql, GOOD, NEXT_HALF_PAST)
    # Slow enough for the promotion, the run and its end to come in this order.
    with started_command(BATCH_MAX_ROWS_PER_SECOND="2000") as process:
        wait_for_the_first_prediction(sql)
        promote()
        time.sleep(random.random() / 2)  # whenever that is
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    by_first = sum(prediction is not None for prediction in predictions_of(sql).values())
    assert SURE not in predictions_of(sql).values()
    run = run_in(instance, HOUR, NEXT_HOUR)
    assert assert_hour_adds_up(sql) == Counts(3 * FOUR_BATCHES, 3 * FOUR_BATCHES, 0, 0)
    by_second = sum(prediction == SURE for prediction in predictions_of(sql).values())
    assert by_first + by_second == 3 * FOUR_BATCHES
    assert set(map(json.dumps, predictions_of(sql, NEXT_START, NEXT_END).values())) == {json.dumps(SURE)}
    assert summary_of(sql)["run_id"] == run


def test_an_hour_keeps_the_labels_of_the_model_that_scored_it(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = insert_items(sql, GOOD)
    run_job().assert_succeeded()
    counts = summary_of(sql)["label_counts"]
    reversed_labels = write_labels(tmp_path / "reversed.json", [*reversed(LABELS)])
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(reversed_labels))
    promote()
    run_job().assert_succeeded()  # which scores nothing, and sums the hour up again
    assert summary_of(sql)["label_counts"] == counts
    assert summary_of(sql)["model_version"] == sha_of(IRIS)

    known = [LABELS[row.argmax()] for row in iris_probabilities(GOOD)]
    lines = [f"{key},{label}" for key, label in zip(keys, known, strict=True)]
    (tmp_path / "known.csv").write_text("\n".join(["item_id,label", *lines]))
    succeeded(batch_assets("actuals", str(tmp_path / "known.csv")))
    hour = hour_of_key(HOUR)
    assert hour
    measured = measure_hour(pipeline_from_environment(), hour, utc_now())
    assert (measured.known, measured.accuracy) == (3, 1.0)


def test_a_pipeline_without_challenger_and_promotion_has_no_tags_of_a_model(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    insert_items(sql, GOOD)
    job = run_job()
    job.assert_succeeded()
    tags = run_of(instance, str(job.run_id)).tags
    assert not [name for name in tags if name.startswith(("batch_assets/model", "batch_assets/promotion"))]


def test_an_alias_is_promoted_as_the_version_that_it_named(
    instance: dg.DagsterInstance, sql: Sql, tables: dict[str, str], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHALLENGER_FILEPATH", "models:/iris@next")
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(IRIS.with_name("label.json")))
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    registry.set_alias(2, "next")
    assert "models:/iris/2" in promote()
    registry.set_alias(1, "next")
    assert promotions(sql) == [(1, "promote", "models:/iris/2", sha256_of(2), None)]
    insert_items(sql, GOOD)
    run_job().assert_succeeded()
    assert versions(sql) == [sha256_of(2)]
    assert "another model" not in succeeded(batch_assets("status"))
