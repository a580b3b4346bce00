"""Several at once score as one does: the same rows, failed items and faults, in the same order."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_assets.database.slices.batch import Batch
from batch_assets.errors import ModelError, SettingsError
from batch_assets.inference.model_files import load_model
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import ITEM_TABLE
from batch_assets.scoring import batches as batches_module
from batch_assets.scoring.batches import Progress, score
from batch_assets.scoring.outcomes import Outcome
from batch_assets.scoring.workers import Part, Workers, in_order, local_workers
from batch_assets.settings.inference import InferenceSettings
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.onnx_models import write_classifier, write_heavy_classifier, write_picky_classifier

GOOD, CULPRIT, NOT_FINITE = "[1, 0, 0, 0]", "[7, 0, 0, 0]", "[1e999, 0, 0, 0]"
TEXTS = [GOOD, "[2, 0, 0, 0]", CULPRIT, NOT_FINITE, "[1]", "null", '["x", 0, 0, 0]', None]


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """Fails on a batch with an item whose first value is above 2."""
    return load_model(write_picky_classifier(tmp_path_factory.mktemp("picky")))


def batches_of(*sizes_and_texts: Sequence[str | None]) -> list[Batch]:
    return [
        Batch(("id", "values"), [(1000 * number + at, text) for at, text in enumerate(texts)])
        for number, texts in enumerate(sizes_and_texts)
    ]


def scored(
    model: OnnxModel, batches: list[Batch], threads: int, *, sample_known: bool = True
) -> tuple[list[Any], list[Any], str | None, Progress]:
    """Returns rows, failed items, the fault and the progress."""
    progress, fault = Progress(), None
    rows: list[Any] = []
    failed: list[Any] = []
    workers = hired(local_workers(model, (), threads))
    try:
        for batch in score(batches, ITEM_TABLE, model, progress, sample_known=sample_known, workers=workers):
            rows += [tuple(row) for row in batch.rows]
            failed += [tuple(row) for row in batch.failed]
    except ModelError as error:
        fault = str(error)
    return rows, failed, fault, progress


def hired(workers: Workers) -> Callable[[], AbstractContextManager[Workers]]:
    return lambda: nullcontext(workers)


def as_parts_of_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every batch divided, as that of a model that takes long is."""
    monkeypatch.setattr(batches_module, "_PART_SECONDS", 1e-12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.sampled_from(TEXTS), max_size=12), max_size=4),
    refused=st.sampled_from([0, 99, 100]),
    divided=st.booleans(),
    sample_known=st.booleans(),
)
def test_threads_score_as_one_does(  # noqa: PLR0917 - what hypothesis draws
    picky: OnnxModel,
    monkeypatch: pytest.MonkeyPatch,
    batches: list[list[str | None]],
    refused: int,
    divided: bool,
    sample_known: bool,
) -> None:
    # All of a batch that the model fails on are too many at a hundred, also where they are divided.
    all_batches = batches_of([GOOD], *batches, [CULPRIT] * refused, [GOOD])
    alone = scored(picky, all_batches, 1, sample_known=sample_known)
    with monkeypatch.context() as patched:
        if divided:
            as_parts_of_one_item(patched)
        rows, failed, fault, progress = scored(picky, all_batches, 3, sample_known=sample_known)
    assert (rows, failed, fault) == alone[:3]
    assert (fault is None) == (refused < 100)
    assert (progress.scored, progress.codes) == (alone[3].scored, alone[3].codes)
    assert not scorers()


def scorers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("scorer")]


def parts(count: int, taken: list[int]) -> Iterator[Part]:
    for number in range(count):
        taken.append(number)
        yield Part([number], [GOOD], 4, is_last=True)


def outcome(part: Part) -> Outcome:
    return Outcome([[part.keys[0]]], [], 1, [], 0, 0.0, 0.0)


def test_the_order_is_kept_though_the_first_takes_longest() -> None:
    second_is_done = threading.Event()

    def work(part: Part) -> Outcome:
        if part.keys[0] == 0:
            assert second_is_done.wait(10)
        if part.keys[0] == 1:
            second_is_done.set()
        return outcome(part)

    found = [part.keys[0] for part, _ in in_order(parts(20, []), hired(Workers(2, work)))]
    assert found == list(range(20))


def test_no_more_is_taken_ahead_than_keeps_all_busy() -> None:
    taken: list[int] = []
    outcomes = in_order(parts(50, taken), hired(Workers(3, outcome)))
    for number in range(40):
        next(outcomes)
        assert len(taken) <= number + 1 + 3 + 2
    outcomes.close()


def test_one_who_leaves_early_leaves_nobody_at_work() -> None:
    stopped, begun = threading.Event(), threading.Event()

    def work(part: Part) -> Outcome:
        if part.keys[0] > 0:
            begun.set()
            assert stopped.wait(10)  # what it is at is ended, not waited for
        return outcome(part)

    outcomes = in_order(parts(50, []), hired(Workers(2, work, stopped.set)))
    next(outcomes)
    assert begun.wait(10)
    assert scorers()
    outcomes.close()
    assert stopped.is_set()
    assert not scorers()


@pytest.mark.parametrize("count", [1, 3])
def test_a_fault_comes_when_it_is_its_turn(count: int) -> None:
    def failing_parts() -> Iterator[Part]:
        yield from parts(3, [])
        raise ZeroDivisionError

    def work(part: Part) -> Outcome:
        if part.keys[0] == 2:
            raise ModelError("the third")
        return outcome(part)

    outcomes = in_order(failing_parts(), hired(Workers(count, outcome)))
    assert [next(outcomes)[0].keys[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(outcomes)
    outcomes = in_order(failing_parts(), hired(Workers(count, work)))
    assert [next(outcomes)[0].keys[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ModelError, match="the third"):
        next(outcomes)
    assert not scorers()


def test_nobody_is_hired_for_an_hour_without_items(picky: OnnxModel) -> None:
    def workers() -> AbstractContextManager[Workers]:
        raise AssertionError

    assert list(score([], ITEM_TABLE, picky, Progress(), sample_known=True, workers=workers)) == []


def test_a_model_that_takes_long_is_given_some_time_s_worth_of_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "_PART_SECONDS", 0.001)  # less than the model takes on any machine
    files = write_heavy_classifier(tmp_path, layers=4, width=512)
    texts = [f"[{number}, 0, 1, 2]" for number in range(2000)]
    model = load_model(ModelFiles(files.model_filepath, files.label_filepath, None))
    found = list(score(batches_of(texts), ITEM_TABLE, model, Progress(), sample_known=False))
    assert len(found) > 2
    assert [key for batch in found for key in batch.column("id")] == list(range(2000))


def test_a_model_that_takes_no_time_is_given_whole_batches(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path))
    (found,) = score(batches_of(["[1, 2, 3, 4]"] * 10_000), ITEM_TABLE, model, Progress(), sample_known=False)
    assert len(found) == 10_000


# Execution providers


def test_the_processor_may_be_named(tmp_path: Path) -> None:
    files = write_classifier(tmp_path)
    named = load_model(files, ITEM_TABLE, InferenceSettings(providers=("CPUExecutionProvider",)))
    rows = scored(named, batches_of(["[1, 2, 3, 4]"]), 1)[0]
    assert rows == scored(load_model(files), batches_of(["[1, 2, 3, 4]"]), 1)[0]


@pytest.mark.parametrize("name", ["CUDAExecutionProvider", "NoSuchExecutionProvider"])
def test_a_provider_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, name: str) -> None:
    settings_with_it = InferenceSettings(providers=(name, "CPUExecutionProvider"))
    with pytest.raises(SettingsError) as refused:
        load_model(write_classifier(tmp_path), ITEM_TABLE, settings_with_it)
    message = str(refused.value)
    assert message.startswith(f"BATCH_ONNX_PROVIDERS names {name}, which this ONNX Runtime")
    assert "CPUExecutionProvider" in message
    assert "onnxruntime-gpu" in message


def test_a_cluster_may_have_providers_that_this_machine_does_not_have(tmp_path: Path) -> None:
    on_cluster = InferenceSettings(providers=("CUDAExecutionProvider",), ray_address="ray://head:10001")
    model = load_model(write_classifier(tmp_path), ITEM_TABLE, on_cluster)
    assert model.content is not None
    assert model.content.model_bytes == (tmp_path / "model.onnx").read_bytes()
