"""Scoring on a Ray cluster of two nodes on this machine: nothing is lost, and nothing is scored otherwise."""

import socket
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.errors import ClusterUnavailableError, ModelError, SettingsError
from batch_assets.inference.model_files import load_model
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import ITEM_TABLE
from batch_assets.scoring.batches import Progress, score
from batch_assets.scoring.ray_workers import ray_workers
from batch_assets.scoring.workers import Part
from batch_assets.settings.inference import InferenceSettings
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.onnx_models import write_heavy_classifier, write_picky_classifier
from batch_assets_tests.support.ray_cluster import RayCluster, ray_cluster, require_ray

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray"), pytest.mark.slow]

# Ray 2.60 leaves to the garbage collector what it reads the logs of nodes with.
ignore_leaks = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as started:
        started.add_node()
        yield started


@pytest.fixture(params=["client", "node"])
def settings(request: pytest.FixtureRequest, cluster: RayCluster) -> InferenceSettings:
    """From a machine that is no node of the cluster, and from one of its nodes."""
    return InferenceSettings(ray_address=cluster.client_address if request.param == "client" else cluster.address)


def loaded(files: ModelFiles, settings: InferenceSettings) -> OnnxModel:
    return load_model(files, ITEM_TABLE, settings)


def batches(count: int, *texts: str | None) -> list[Batch]:
    return [
        Batch(("id", "values"), [(1000 * number + at, text) for at, text in enumerate(texts)])
        for number in range(count)
    ]


def on_cluster(  # noqa: PLR0917 - what one of them needs
    model: OnnxModel,
    items: list[Batch],
    settings: InferenceSettings,
    progress: Progress | None = None,
    said: list[str] | None = None,
    patience_seconds: float = 150,
) -> Generator[Batch]:
    said = [] if said is None else said
    workers = partial(ray_workers, settings, model, (), said.append, patience_seconds)
    return score(items, ITEM_TABLE, model, progress or Progress(), sample_known=True, workers=workers)


def alone(model: OnnxModel, items: list[Batch]) -> list[Batch]:
    return list(score(items, ITEM_TABLE, model, Progress(), sample_known=True))


def rows_and_failures(batches: Iterable[Batch]) -> tuple[list[Any], list[Any]]:
    """What became of all items, however they were divided: the slower the machine is, the smaller the parts are."""
    each = list(batches)
    return [row for batch in each for row in batch.rows], [row for batch in each for row in batch.failed]


@ignore_leaks
def test_a_cluster_scores_as_one_process_does(settings: InferenceSettings, tmp_path: Path) -> None:
    model, progress = loaded(write_picky_classifier(tmp_path), settings), Progress()
    items = batches(8, "[1]", "[7, 0, 0, 0]", "[1, 0, 0, 0]", None, *["[2, 0, 0, 0]"] * 50)
    assert rows_and_failures(on_cluster(model, items, settings, progress)) == rows_and_failures(alone(model, items))
    assert progress.codes == {"wrong_length": 8, "model_error": 8, "null_value": 8}
    assert not ray_is_initialized()


@ignore_leaks
def test_a_model_that_fails_on_all_of_a_hundred_items_is_to_blame_there_too(
    cluster: RayCluster, tmp_path: Path
) -> None:
    settings = InferenceSettings(ray_address=cluster.address)
    model = loaded(write_picky_classifier(tmp_path), settings)
    items = [*batches(1, "[1, 0, 0, 0]"), *batches(1, *["[7, 0, 0, 0]"] * 100)]
    scored = on_cluster(model, items, settings)
    assert len(next(scored)) == 1
    with pytest.raises(ModelError, match="fails on every one of 100 items"):
        next(scored)
    cluster.wait_until_no_actor_is_left()


@ignore_leaks
def test_a_node_that_dies_costs_its_parts_once_more_and_nothing_else(
    settings: InferenceSettings, cluster: RayCluster, tmp_path: Path
) -> None:
    model = loaded(write_heavy_classifier(tmp_path, layers=6), settings)
    items = batches(40, *[f"[{number}, 1, 2, 3]" for number in range(50)])
    wanted, said = alone(model, items), list[str]()
    node = cluster.add_node()
    scored = on_cluster(model, items, settings, said=said)
    found = [next(scored)]
    until = time.monotonic() + 150
    while len(cluster.actors()) < 3:
        assert time.monotonic() < until
        time.sleep(0.1)
    cluster.kill(node)
    found += scored
    (rows, _), (wanted_rows, _) = rows_and_failures(found), rows_and_failures(wanted)
    assert [row[0] for row in rows] == [row[0] for row in wanted_rows]
    assert close(rows, wanted_rows)


def close(rows: list[Any], wanted: list[Any]) -> bool:
    """Whether predictions are the same but for the last digits, which the number of threads may change."""
    import numpy as np
    import orjson

    found, expected = ([orjson.loads(row[-1]) for row in each] for each in (rows, wanted))
    return np.allclose(found, expected, atol=1e-5)


@ignore_leaks
def test_actors_that_die_with_nothing_to_do_cost_no_part_its_attempts(cluster: RayCluster, tmp_path: Path) -> None:
    # The hour asks for five, whether or not the cluster has noticed by now that nodes of another test are gone.
    settings, said = InferenceSettings(ray_address=cluster.address, ray_actors=5), list[str]()
    model = loaded(write_picky_classifier(tmp_path), settings)
    nodes = [cluster.add_node() for _ in range(3)]
    part = Part([1], ["[1, 0, 0, 0]"], 4, is_last=True)
    with ray_workers(settings, model, (), said.append, 60) as workers:
        until = time.monotonic() + 60
        # One after the other, so that all of them are known to be idle.
        while len(cluster.actors()) < 5 and time.monotonic() < until:
            workers.outcome(part)
        time.sleep(2)
        before = workers.outcome(part)
        for actor in cluster.actors():
            actor.kill()
        assert workers.outcome(part).columns == before.columns
    for node in nodes:
        cluster.kill(node)


@ignore_leaks
def test_items_that_kill_each_actor_end_in_a_fault_that_is_tried_again(cluster: RayCluster, tmp_path: Path) -> None:
    settings = InferenceSettings(ray_address=cluster.address, ray_actors=1)
    model = loaded(write_heavy_classifier(tmp_path, layers=40), settings)
    items = batches(1, *["[1, 2, 3, 4]"] * 20_000)
    ended = threading.Event()

    def kill_whoever_scores() -> None:
        while not ended.wait(0.05):
            for actor in cluster.actors():
                if actor.cmdline()[0].startswith("ray::ScoringActor.outcome"):
                    actor.kill()

    killer = threading.Thread(target=kill_whoever_scores)
    killer.start()
    try:
        with pytest.raises(
            ClusterUnavailableError, match=r"3 actors .* died while they scored the same .* id 0"
        ) as fault:
            list(on_cluster(model, items, settings))
    finally:
        ended.set()
        killer.join()
    assert fault.value.transient


@ignore_leaks
def test_whoever_leaves_early_leaves_no_actor(cluster: RayCluster, tmp_path: Path) -> None:
    settings = InferenceSettings(ray_address=cluster.address)
    model = loaded(write_heavy_classifier(tmp_path, layers=6), settings)
    scored = on_cluster(model, batches(40, *["[1, 2, 3, 4]"] * 50), settings)
    next(scored)
    assert cluster.actors()
    scored.close()
    cluster.wait_until_no_actor_is_left()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scorer")]


@ignore_leaks
def test_a_cluster_without_room_is_waited_for_within_a_limit(cluster: RayCluster, tmp_path: Path) -> None:
    settings = InferenceSettings(ray_address=cluster.address, providers=("CUDAExecutionProvider",))
    model = loaded(write_picky_classifier(tmp_path), settings)
    with pytest.raises(ClusterUnavailableError, match="has had no actor for 1 seconds: none of them has started"):
        list(on_cluster(model, batches(1, "[1, 0, 0, 0]"), settings, patience_seconds=1))


def ray_is_initialized() -> bool:
    import ray

    return bool(ray.is_initialized())


@ignore_leaks
@pytest.mark.filterwarnings("ignore:Ray Client connection timed out")
def test_what_answers_and_is_no_cluster_is_given_up_and_another_can_be_joined(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.util.client.worker

    monkeypatch.setattr(ray.util.client.worker, "INITIAL_TIMEOUT_SEC", 0.2)  # to be done sooner
    monkeypatch.setattr(ray.util.client.worker, "MAX_TIMEOUT_SEC", 0.2)
    item = batches(1, "[1, 0, 0, 0]")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = InferenceSettings(ray_address=f"ray://127.0.0.1:{silent.getsockname()[1]}")
        model = loaded(write_picky_classifier(tmp_path), settings)
        with pytest.raises(ClusterUnavailableError, match="does not answer: ray client connection timeout"):
            list(on_cluster(model, item, settings))
    assert len(list(on_cluster(model, item, InferenceSettings(ray_address=cluster.address)))) == 1


@pytest.mark.parametrize("scheme", ["ray://", ""])
def test_an_address_that_nobody_answers_at_is_a_sentence(tmp_path: Path, scheme: str) -> None:
    require_ray()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = InferenceSettings(ray_address=f"{scheme}127.0.0.1:{unused.getsockname()[1]}")
        model = loaded(write_picky_classifier(tmp_path), settings)
        with pytest.raises(
            ClusterUnavailableError, match=r"does not answer: .*refused.* fix BATCH_RAY_ADDRESS"
        ) as fault:
            list(on_cluster(model, batches(1, "[1, 0, 0, 0]"), settings))
    assert fault.value.transient


def test_without_the_extra_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = InferenceSettings(ray_address="ray://head:10001")
    model = loaded(write_picky_classifier(tmp_path), settings)
    with pytest.raises(SettingsError, match=r"the package ray is missing: install batch-assets with the extra `ray`"):
        list(on_cluster(model, batches(1, "[1, 0, 0, 0]"), settings))
