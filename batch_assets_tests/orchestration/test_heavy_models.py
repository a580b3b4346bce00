"""An hour that several threads or a cluster score ends as one that a single thread scores."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.onnx_models import labels_file, write_picky_classifier
from batch_assets_tests.support.pipeline import Counts, assert_hour_adds_up, failed_of, insert_items, run_job
from batch_assets_tests.support.ray_cluster import RayCluster, ray_cluster

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.dagster, pytest.mark.slow, pytest.mark.above_sql]

TEXTS = [*("[0, 1, 1, 1]", "[1, 1, 1, 1]", "[2, 1, 1, 1]") * 400, "[1]", "null", "[7, 1, 1, 1]"]


@pytest.fixture(autouse=True)
def picky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model fails on an item whose first value is above 2, and else is sure of that class."""
    files = write_picky_classifier(tmp_path)
    monkeypatch.setenv("MODEL_FILEPATH", str(files.model_filepath))
    monkeypatch.setenv("LABEL_FILEPATH", str(labels_file(files)))
    monkeypatch.setattr("batch_assets.scoring.batches._PART_SECONDS", 0.0005)  # has the batch divided


def assert_scored(sql: Sql, ids: list[int]) -> None:
    assert assert_hour_adds_up(sql) == Counts(1203, 1200, 3, 0)
    rows = sql("SELECT `values`, prediction FROM items WHERE prediction IS NOT NULL ORDER BY id")
    assert all(json.loads(prediction) == np.eye(3)[json.loads(values)[0]].tolist() for values, prediction in rows)
    assert {key: code for key, (code, _, _) in failed_of(sql).items()} == dict(
        zip(ids[-3:], ("wrong_length", "null_value", "model_error"), strict=True)
    )


def scorers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("scorer")]


@pytest.mark.parametrize("mode", ["partial", "whole_batch"])
def test_threads_score_an_hour_as_one_does(sql: Sql, mode: str) -> None:
    ids = insert_items(sql, TEXTS)
    run_job(BATCH_SCORING_THREADS="3", BATCH_RETRY=mode).assert_succeeded()
    assert_scored(sql, ids)
    assert not scorers()


def test_a_run_that_ends_early_leaves_no_thread(sql: Sql) -> None:
    insert_items(sql, ["[1]", "[1]", *TEXTS])
    job = run_job(BATCH_SCORING_THREADS="3", BATCH_MAX_FAILED_ITEMS="1")
    job.assert_failed_with("cannot be scored", "BATCH_MAX_FAILED_ITEMS=1")
    assert not scorers()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as started:
        started.add_node()
        yield started


# Ray 2.60 leaves to the garbage collector what it reads the logs of nodes with.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_cluster_scores_an_hour_as_one_does(sql: Sql, cluster: RayCluster) -> None:
    ids = insert_items(sql, TEXTS)
    run_job(BATCH_RAY_ADDRESS=cluster.client_address).assert_succeeded()
    assert_scored(sql, ids)
    cluster.wait_until_no_actor_is_left()


@pytest.mark.parametrize("providers", ["CUDAExecutionProvider", "CPUExecutionProvider,Fast"])
def test_a_provider_that_is_not_there_fails_the_run_before_anything_is_written(sql: Sql, providers: str) -> None:
    insert_items(sql, TEXTS)
    job = run_job(BATCH_ONNX_PROVIDERS=providers)
    job.assert_failed_with("BATCH_ONNX_PROVIDERS names", "which this ONNX Runtime")
    assert assert_hour_adds_up(sql) == Counts(1203, 0, 0, 1203)
