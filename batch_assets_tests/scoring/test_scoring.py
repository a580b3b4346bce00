"""Scoring: every item that goes in comes out, with a prediction or with the reason why not."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from batch_assets.database.slices.batch import Batch
from batch_assets.errors import ModelError
from batch_assets.inference.model_files import load_model
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import ITEM_TABLE
from batch_assets.scoring.batches import Progress, score
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.onnx_models import (
    write_classifier,
    write_picky_classifier,
    write_sample,
    write_table_model,
)

COLUMNS = ("id", "values", "prediction")


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    return load_model(write_classifier(tmp_path))


def batch(*texts: str, first: int = 1) -> Batch:
    return Batch(("id", "values"), [(first + number, text) for number, text in enumerate(texts)])


def scored(model: OnnxModel, *batches: Batch, sample_known: bool = True) -> tuple[list[Batch], Progress]:
    progress = Progress()
    return list(score(batches, ITEM_TABLE, model, progress, sample_known=sample_known)), progress


def winner(prediction: str) -> int:
    return int(np.argmax(json.loads(prediction)))


def test_the_neighbours_of_bad_items_are_scored_and_the_bad_ones_handed_on_with_the_reason(model: OnnxModel) -> None:
    texts = ["[9, 0, 0, 0]", '["x", 1, 1, 1]', "[0, 9, 0, 0]", "[1]", "null", "[0, 0, 9, 0]"]
    (outcome,), progress = scored(model, batch(*texts, first=11))
    assert outcome.columns == COLUMNS
    assert [(key, text, winner(prediction)) for key, text, prediction in outcome.rows] == [
        (11, texts[0], 0),
        (13, texts[2], 1),
        (16, texts[5], 2),
    ]
    assert [tuple(row) for row in outcome.failed] == [
        (12, texts[1], "not_numeric", 'value 1 is a string: "x"'),
        (14, texts[3], "wrong_length", "1 value, the model takes 4"),
        (15, texts[4], "null_value", "the value is null"),
    ]
    assert (progress.scored, progress.failed) == (3, 3)


def test_codes_are_counted_over_all_batches(model: OnnxModel) -> None:
    _, progress = scored(model, batch("[1]", "[2]", "[1, 2, 3, 4]"), batch("null", "[3]", first=4), batch(first=6))
    assert progress.codes == {"wrong_length": 3, "null_value": 1}
    described = progress.metadata()
    assert described["failed_by_code"] == {"null_value": 1, "wrong_length": 3}
    assert (described["scored"], described["failed"]) == (1, 4)
    assert all(described[f"{phase}_seconds"] >= 0 for phase in ("read", "check", "score"))
    assert described.keys() == Progress().metadata().keys()
    json.dumps(described)


def test_the_order_of_items_and_batches_is_kept(model: OnnxModel) -> None:
    random = np.random.default_rng(0)
    values = random.uniform(-5, 5, (60, 4)).round(2).tolist()
    batches = [batch(*map(json.dumps, values[start : start + 20]), first=100 - start) for start in (0, 20, 40)]
    outcomes, _ = scored(model, *batches)
    assert [outcome.column("id") for outcome in outcomes] == [part.column("id") for part in batches]
    assert [outcome.column("values") for outcome in outcomes] == [part.column("values") for part in batches]
    winners = [winner(text) for outcome in outcomes for text in outcome.column("prediction")]
    assert winners == [int(np.argmax(row[:3])) for row in values]


def test_batches_are_scored_one_at_a_time_as_they_are_asked_for(model: OnnxModel) -> None:
    read: list[int] = []

    def source() -> Iterator[Batch]:
        for number in range(3):
            read.append(number)
            yield batch("[1, 2, 3, 4]", first=number)

    outcomes = score(source(), ITEM_TABLE, model, Progress(), sample_known=True)
    assert read == []
    next(outcomes)
    assert read == [0]


def test_no_items_are_no_batches(model: OnnxModel) -> None:
    outcomes, progress = scored(model, sample_known=False)
    assert (outcomes, progress.scored, progress.failed) == ([], 0, 0)


def test_a_batch_of_bad_items_only_is_no_trouble_for_the_model(model: OnnxModel) -> None:
    (outcome,), progress = scored(model, batch("[1]", '"x"'))
    assert outcome.rows == []
    assert [row.key for row in outcome.failed] == [1, 2]
    assert progress.scored == 0


def test_an_item_to_which_the_model_answers_with_no_number_fails_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Slice", ["values", "starts", "ends", "axes"], ["three"]),
        helper.make_node("Log", ["three"], ["probabilities"]),
    ]
    constants = {"starts": np.array([0]), "ends": np.array([3]), "axes": np.array([1])}
    files = write_table_model(tmp_path, nodes, constants=constants)
    write_sample(files, "[[2.718281828, 1, 1, 0]]")  # of which the logarithms are probabilities
    texts = ["[2.718281828, 1, 1, 0]", "[-1, 1, 1, 0]", "[1, 2.718281828, 1, 0]", "[1, 0, 1, 0]"]
    (outcome,), progress = scored(load_model(files), batch(*texts))
    assert [(row[0], winner(row[2])) for row in outcome.rows] == [(1, 0), (3, 1)]
    assert [(row.key, row.values, row.code) for row in outcome.failed] == [
        (2, texts[1], "model_not_finite"),
        (4, texts[3], "model_not_finite"),
    ]
    assert progress.codes == {"model_not_finite": 2}
    assert outcome.failed[0].message.startswith("the model's answer is [")
    json.loads(outcome.failed[0].message.removeprefix("the model's answer is "))


# Where the model itself fails


@pytest.fixture
def picky(tmp_path: Path) -> OnnxModel:
    """Is sure of the class whose number is the first value, and fails on a batch with one above 2."""
    return load_model(write_picky_classifier(tmp_path))


def of_classes(*numbers: int) -> Batch:
    return batch(*(f"[{number}, 0.5, 0, 0]" for number in numbers))


@pytest.mark.parametrize("items", [2, 3, 8, 9, 17, 1000])
@pytest.mark.parametrize("culprits", [{0}, {-1}, {0, -1}, {-2, -1}, {1}])
def test_an_item_on_which_the_model_fails_fails_alone_wherever_it_stands(
    picky: OnnxModel, items: int, culprits: set[int]
) -> None:
    culprits = {index % items for index in culprits}
    numbers = [7 if index in culprits else index % 3 for index in range(items)]
    batch_of_all = of_classes(*numbers)
    (outcome,), progress = scored(picky, batch_of_all)
    good = [row for index, row in enumerate(batch_of_all.rows) if index not in culprits]
    assert [tuple(row[:2]) for row in outcome.rows] == good
    assert [json.loads(row[2]) for row in outcome.rows] == [
        np.eye(3)[number].tolist() for number in numbers if number != 7
    ]
    assert [(row.key - 1, row.values, row.code) for row in outcome.failed] == [
        (index, "[7, 0.5, 0, 0]", "model_error") for index in sorted(culprits)
    ]
    assert (progress.scored, progress.codes) == (len(good), {"model_error": len(culprits)})


def test_each_culprit_is_told_what_the_model_says_of_it(picky: OnnxModel) -> None:
    (outcome,), _ = scored(picky, of_classes(0, 7, 1, 1, 1, 9, 2, -4, 2))
    for row, number in zip(outcome.failed, (7, 9, -4), strict=True):
        assert row.message.startswith("the model fails: ")
        assert f"idx={number} must be within the inclusive range [-3,2]" in row.message


def test_bad_values_and_culprits_are_told_apart_and_their_neighbours_are_scored(picky: OnnxModel) -> None:
    texts = ["[1]", "[7, 0, 0, 0]", "[1, 0, 0, 0]", "null", "[2, 0, 0, 0]", "[8, 0, 0, 0]", '["x", 0, 0, 0]']
    (outcome,), _ = scored(picky, batch(*texts))
    assert [(key, text, winner(prediction)) for key, text, prediction in outcome.rows] == [
        (3, texts[2], 1),
        (5, texts[4], 2),
    ]
    assert {row.key: (row.values, row.code) for row in outcome.failed} == {
        1: (texts[0], "wrong_length"),
        2: (texts[1], "model_error"),
        4: (texts[3], "null_value"),
        6: (texts[5], "model_error"),
        7: (texts[6], "not_numeric"),
    }


def test_the_next_batches_are_scored_whole_after_one_with_a_culprit(
    picky: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    run = OnnxModel.probabilities

    def counted(model: OnnxModel, features: np.ndarray) -> np.ndarray:
        calls.append(len(features))
        return run(model, features)

    monkeypatch.setattr(OnnxModel, "probabilities", counted)
    scored(picky, of_classes(7, *[1] * 63), of_classes(*[2] * 64))
    assert calls[:5] == [64, 32, 16, 8, 1]
    assert calls[-1] == 64
    assert len(calls) < 20


def test_fewer_than_a_hundred_items_may_all_be_to_blame(picky: OnnxModel) -> None:
    (outcome,), progress = scored(picky, of_classes(*[7] * 99))
    assert (outcome.rows, progress.codes) == ([], {"model_error": 99})


def test_a_hundred_items_one_of_which_is_scored_do_not_put_the_model_in_question(picky: OnnxModel) -> None:
    _, progress = scored(picky, of_classes(0), of_classes(*[7] * 99, 1))
    assert (progress.scored, progress.codes) == (2, {"model_error": 99})


def test_a_model_that_fails_on_each_of_a_hundred_items_is_to_blame_itself(picky: OnnxModel) -> None:
    outcomes = score(
        [of_classes(0), of_classes(*[7] * 100)], ITEM_TABLE, picky, progress := Progress(), sample_known=True
    )
    assert len(next(outcomes).rows) == 1
    with pytest.raises(ModelError, match=r"fails on every one of 100 items, .* idx=7 must be .* \(MODEL_FILEPATH\)"):
        next(outcomes)
    assert (progress.scored, progress.failed) == (1, 0)


def test_a_first_batch_of_which_the_model_fails_on_all_is_refused_as_a_sample(picky: OnnxModel) -> None:
    with pytest.raises(ModelError, match=r"fails on 100 items: .* idx=7 must be"):
        scored(picky, of_classes(*[7] * 100, 1))


def test_an_answer_of_the_wrong_shape_is_a_fault_of_the_model_and_nothing_is_split(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["values", "weights"], ["scores"]),
        helper.make_node("ReduceSum", ["scores", "rows"], ["probabilities"]),  # one answer to all items
    ]
    constants = {"weights": np.eye(4, 3, dtype=np.float32), "rows": np.array([0])}
    files = write_table_model(tmp_path, nodes, constants=constants)
    model = load_model(ModelFiles(files.model_filepath, files.label_filepath, None))
    with pytest.raises(ModelError, match=r"returns an array of shape \(1, 3\) for 2 items"):
        scored(model, batch("[1, 2, 3, 4]", "[5, 6, 7, 8]"))


def test_numbers_keep_the_digits_of_the_model_next_to_a_culprit(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["values", "zero"], ["first"], axis=1),
        helper.make_node("Cast", ["first"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["probabilities"], axis=0),
    ]
    table = np.array([[0.1, 0.2, 0.7]], np.float32)
    files = write_table_model(tmp_path, nodes, constants={"zero": np.array(0), "table": table})
    model = load_model(ModelFiles(files.model_filepath, files.label_filepath, None))
    (outcome,), _ = scored(model, of_classes(0, 7))
    assert outcome.column("prediction") == ["[0.1,0.2,0.7]"]


# The text of a prediction


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_the_text_of_a_prediction_is_exactly_the_number_of_the_model(
    model: OnnxModel, dtype: type[np.floating], classes: int
) -> None:
    random = np.random.default_rng(1)
    hard = [0.0, 1.0, 5e-324, 1e-45, 1e-38, 1 / 3, 0.1, 1 - 2**-24, 1 - 2**-53]
    numbers = np.array([*hard, *random.random(300 - len(hard))], dtype).reshape(-1, classes)

    class Answering(OnnxModel):
        def probabilities(self, features: np.ndarray) -> np.ndarray:
            return numbers[: len(features)]

    model.__class__ = Answering
    # Behind a first batch, of which a full one would be looked at as a sample.
    (_, outcome), _ = scored(model, batch("[1, 2, 3, 4]"), batch(*["[1, 2, 3, 4]"] * len(numbers), first=2))
    read = np.array([json.loads(text) for text in outcome.column("prediction")], dtype)
    assert read.tobytes() == numbers.tobytes()


# Without a sample that stands for the items


def test_the_first_items_are_the_sample_of_a_model_that_has_none(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path, width=5, sample=False))
    progress = Progress()
    with pytest.raises(ModelError, match=r"takes 5 values an item, not 4 as in the items of the hour: \[1, 2, 3, 4\]"):
        list(score([batch("[1, 2, 3, 4]", "[5, 6, 7, 8]")], ITEM_TABLE, model, progress, sample_known=False))
    assert progress.scored == 0


def test_a_sample_with_some_bad_items_is_good_enough(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path, sample=False))
    (outcome,), progress = scored(model, batch("[1, 2, 3]", "[1, 2, 3, 4]", "null"), sample_known=False)
    assert outcome.column("id") == [2]
    assert progress.codes == {"wrong_length": 1, "null_value": 1}


def test_the_sample_is_looked_for_until_there_is_one(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path, sample=False))
    batches = [batch("null", '"x"'), batch("[1, 2, 3, 4]", first=3), batch("[1, 2, 3]", first=4)]
    outcomes, progress = scored(model, *batches, sample_known=False)
    assert [len(outcome.failed) for outcome in outcomes] == [2, 0, 1]
    assert progress.scored == 1


def test_a_model_that_leaves_its_width_open_takes_that_of_the_items(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path, width=None, sample=False))
    (outcome,), _ = scored(model, batch("null", "[1, 2, 3, 4]", "[1, 2, 3]"), sample_known=False)
    assert outcome.column("id") == [2]
    assert [row.code for row in outcome.failed] == ["null_value", "wrong_length"]


def test_a_width_that_nothing_tells_is_a_fault_of_the_model(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path, width=None, sample=False))
    with pytest.raises(ModelError, match=r"does not say how many numbers it takes: name a file .* SAMPLE_DATA_PATH"):
        scored(model, batch("null", '"x"'), sample_known=False)


def test_a_few_items_of_another_width_fail_alone_where_a_sample_has_shown_that_the_model_fits(model: OnnxModel) -> None:
    _, progress = scored(model, batch(*["[1, 2, 3]"] * 99))
    assert progress.codes == {"wrong_length": 99}


def test_a_hundred_items_of_another_width_are_not_the_models_whatever_its_sample(model: OnnxModel) -> None:
    with pytest.raises(ModelError, match=r"takes 4 values an item, not 3 as in the items of the hour"):
        scored(model, batch(*["[1, 2, 3]"] * 100))


def test_a_late_batch_of_bad_items_does_not_put_the_model_in_question(model: OnnxModel) -> None:
    _, progress = scored(model, batch("[1, 2, 3, 4]"), batch(*["[1, 2, 3]"] * 100, first=2))
    assert (progress.scored, progress.failed) == (1, 100)


def test_items_that_failed_before_say_nothing_about_the_model(model: OnnxModel) -> None:
    misfits = batch(*["[1, 2]"] * 100)
    with pytest.raises(ModelError, match="takes 4 values an item, not 2"):
        scored(model, misfits)
    known = range(1, 101)
    (outcome,) = score([misfits], ITEM_TABLE, model, Progress(), sample_known=True, failed_before=known)
    assert [row.code for row in outcome.failed] == ["wrong_length"] * 100
