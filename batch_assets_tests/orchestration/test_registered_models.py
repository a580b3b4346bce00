"""Runs whose model is in an MLflow registry: which version they score with, and what is recorded of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.errors import DatabaseUnavailableError
from batch_assets_tests.support.customers import customers, fitted, risks, write_customer_model
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment
from batch_assets_tests.support.instance import metadata_of, run_of
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
    run_job,
    summary_of,
)
from batch_assets_tests.support.project import create_customers, declared
from batch_assets_tests.support.project import run_of as run_of_pipelines
from batch_assets_tests.support.registry import Registry, sha256_of
from batch_assets_tests.support.servers import free_port

# Which model a run has lies above the SQL.
pytestmark = pytest.mark.above_sql

# What the second version of the model says of every item.
SECOND = [1.0, 0.0, 0.0]
NEXT_HOUR, NEXT_HALF_PAST = "2026-11-02-06:00", "2026-11-02 06:30:00"
BAD = "[1, 2]"
FOUR_BATCHES = 40_002


@pytest.fixture(autouse=True)
def champion(tables: dict[str, str], registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline of the environment has the champion of the registry as its model."""
    from batch_assets.settings.folders import root_folder

    monkeypatch.setenv("MODEL_FILEPATH", "models:/iris@champion")
    monkeypatch.setenv("LABEL_FILEPATH", str(root_folder() / "models" / "label.json"))


def recorded(instance: dg.DagsterInstance, run_id: str | None, hour: str = HOUR) -> tuple[str, str]:
    """The model, and its SHA-256, that a run has recorded of an hour."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("predictions"), asset_partitions=[hour]), limit=10
    ).records
    # Of a range, an hour has an event of ours and one of Dagster's.
    of_run = [metadata_of(record.asset_materialization) for record in records if record.run_id == run_id]
    (model,) = {(metadata["model"], metadata["model_version"]) for metadata in of_run}
    return model


def test_a_run_records_the_version_and_the_sha256_of_its_model(
    instance: dg.DagsterInstance, sql: Sql, registry: Registry
) -> None:
    insert_items(sql, [*GOOD, BAD])
    job = run_job()
    job.assert_succeeded()
    assert_predicted(sql, dict(enumerate(iris_probabilities(GOOD), 1)))
    version = sha256_of(1)
    assert recorded(instance, job.run_id) == ("models:/iris/1", version)
    assert run_of(instance, str(job.run_id)).tags["batch_assets/model"] == "models:/iris/1"
    summary = summary_of(sql)
    assert (summary["model_version"], summary["run_id"]) == (version, job.run_id)
    assert summary["label_counts"].keys() == set(LABELS)
    assert sql("SELECT item_id, model_version, run_id FROM failed_items") == [(4, version, job.run_id)]


def test_an_alias_that_moved_between_two_runs_is_the_model_of_the_second(
    instance: dg.DagsterInstance, sql: Sql, registry: Registry
) -> None:
    insert_items(sql, GOOD)
    first = run_job()
    registry.set_alias(2)
    insert_items(sql, [BAD, GOOD[2]])
    second = run_job()
    assert recorded(instance, first.run_id) == ("models:/iris/1", sha256_of(1))
    assert recorded(instance, second.run_id) == ("models:/iris/2", sha256_of(2))
    assert sha256_of(1) != sha256_of(2)
    predictions = predictions_of(sql)
    np.testing.assert_allclose([predictions[key] or [] for key in (1, 2, 3)], iris_probabilities(GOOD), atol=1e-5)
    assert (predictions[4], predictions[5]) == (None, SECOND)
    assert summary_of(sql)["model_version"] == sha256_of(2)
    assert sql("SELECT item_id, model_version FROM failed_items") == [(4, sha256_of(2))]


def test_a_run_that_is_executed_again_takes_the_model_that_the_alias_names_by_then(
    instance: dg.DagsterInstance, sql: Sql, registry: Registry
) -> None:
    insert_items(sql, GOOD)
    first = run_job()
    registry.set_alias(2)
    insert_items(sql, GOOD[2:])
    # As Dagster does it: with all tags of the first.
    result = job_with(meddling(int)).execute_in_process(
        instance=instance, tags=dict(run_of(instance, str(first.run_id)).tags), raise_on_error=False
    )
    assert result.success
    assert recorded(instance, result.run_id)[0] == "models:/iris/2"
    assert run_of(instance, result.run_id).tags["batch_assets/model"] == "models:/iris/2"


def job_with(model: dg.ConfigurableResource[Any]) -> dg.JobDefinition:
    """The job with a resource of the model in the place of the package's."""
    from batch_assets.definitions import defs

    resources = {**(defs.resources or {}), "model": model}
    return dg.Definitions(
        assets=defs.assets, jobs=defs.jobs, resources=resources, executor=defs.executor
    ).resolve_job_def("batch_inference")


def test_an_alias_that_moves_while_an_hour_is_scored_does_not_give_it_two_models(
    instance: dg.DagsterInstance, sql: Sql, registry: Registry
) -> None:
    insert_items(sql, GOOD * (FOUR_BATCHES // 3))

    def lose_the_database() -> None:
        """Once, when a part of the hour is written."""
        (written,) = sql("SELECT COUNT(prediction) FROM items")[0]
        if written and not moved:
            moved.append(written)
            registry.set_alias(2)
            raise DatabaseUnavailableError("The server is away.")

    moved: list[int] = []
    result = job_with(meddling(lose_the_database)).execute_in_process(
        instance=instance, tags={"dagster/partition": HOUR}, raise_on_error=False
    )
    assert result.success
    assert moved
    assert [event.step_key for event in result.all_events if event.is_step_restarted] == ["predictions"]
    assert recorded(instance, result.run_id) == ("models:/iris/1", sha256_of(1))
    assert summary_of(sql)["model_version"] == sha256_of(1)
    assert SECOND not in predictions_of(sql).values()
    assert assert_hour_adds_up(sql) == Counts(FOUR_BATCHES, FOUR_BATCHES, 0, 0)


def test_all_hours_of_a_run_have_one_model(instance: dg.DagsterInstance, sql: Sql, registry: Registry) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, GOOD, NEXT_HALF_PAST)
    result = job_with(meddling(lambda: registry.set_alias(2))).execute_in_process(
        instance=instance,
        tags={"dagster/asset_partition_range_start": HOUR, "dagster/asset_partition_range_end": NEXT_HOUR},
        raise_on_error=False,
    )
    assert result.success
    for hour in (HOUR, NEXT_HOUR):
        assert recorded(instance, result.run_id, hour) == ("models:/iris/1", sha256_of(1))


def test_a_registry_that_is_down_fails_the_run_and_nothing_is_scored_with_an_older_model(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD[:1])
    run_job().assert_succeeded()
    insert_items(sql, GOOD)
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("BATCH_TRANSIENT_RETRIES", "1")
    job = run_job(MLFLOW_TRACKING_URI=uri)
    job.assert_failed_with("The model models:/iris@champion cannot be fetched from the registry", uri)
    tags = run_of(instance, str(job.run_id)).tags
    assert "cannot be fetched from the registry" in tags["batch_assets/fault_message"]
    assert "batch_assets/fault" not in tags  # the sensor tries again
    assert assert_hour_adds_up(sql) == Counts(4, 1, 0, 3)
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(4, 4, 0, 0)


def test_an_alias_that_is_not_set_is_left_to_a_person(instance: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    job = run_job(MODEL_FILEPATH="models:/iris@challenger")
    job.assert_failed_with("has no alias challenger of the model iris, whose aliases are: champion")
    assert run_of(instance, str(job.run_id)).tags["batch_assets/fault"] == "permanent"
    assert assert_hour_adds_up(sql) == Counts(3, 0, 0, 3)


def test_a_declared_pipeline_takes_its_model_and_the_names_of_its_classes_from_the_registry(
    instance: dg.DagsterInstance, sql: Sql, registry: Registry, tmp_path: Path
) -> None:
    import onnx

    classifier, rows = fitted(LogisticRegression(max_iter=1000), risks), customers(40)
    path = write_customer_model(tmp_path, classifier).model_filepath
    registry.set_alias(registry.log("risk", onnx.load(path)), name="risk")
    risk = declared(
        tmp_path,
        name="risk",
        table={
            "name": "customers",
            "key": "id",
            "created": "created_at",
            "features": ["age", "plan", "spent", "active"],
            "outputs": {"risk": "label"},
        },
        model={"file": "models:/risk@champion"},
    )
    create_customers(sql, rows, "risk VARCHAR(20)")
    initialize_database(engine_from_environment(), item_table(risk.items))
    result = run_of_pipelines(instance, risk, hour=HOUR)
    assert result.success
    labels = classifier.predict(rows).tolist()
    assert [label for (label,) in sql("SELECT risk FROM customers ORDER BY id")] == labels
    version = hashlib.sha256(path.read_bytes()).hexdigest()
    ((found_version, counts),) = sql("SELECT model_version, label_counts FROM run_summary WHERE pipeline = 'risk'")
    assert found_version == version
    counted = {label: labels.count(label) for label in classifier.classes_.tolist()}
    assert json.loads(counts) == counted
    assert run_of(instance, result.run_id).tags["batch_assets/model.risk"] == "models:/risk/1"
