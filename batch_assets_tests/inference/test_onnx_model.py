"""The ONNX model: what it accepts, what it refuses and with which sentence."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from batch_assets.errors import ModelError, ModelRunError
from batch_assets.inference.model_check import check_sample
from batch_assets.inference.model_files import load_model
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.settings.folders import root_folder
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.onnx_models import (
    labels_file,
    write_classifier,
    write_graph,
    write_labels,
    write_picky_classifier,
    write_sample,
    write_table_model,
)

HOUR = "the items of the hour"


def softmax(features: np.ndarray, classes: int) -> np.ndarray:
    powers = np.exp(features[:, :classes] - features[:, :classes].max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def refusal(files: ModelFiles) -> str:
    """The sentence with which these files are refused."""
    with pytest.raises(ModelError) as caught:
        load_model(files)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


@pytest.fixture
def sampleless(tmp_path: Path) -> OnnxModel:
    return load_model(write_classifier(tmp_path, sample=False))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("zipmap", [None, "int64", "string"])
@pytest.mark.parametrize("label_output", ["first", "last", "absent"])
def test_probabilities_come_in_label_order_from_every_kind_of_classifier(
    tmp_path: Path, dtype: str, zipmap: str | None, label_output: str
) -> None:
    labels = ["zebra", "ape", "mole"]  # not in alphabetical order
    files = write_classifier(tmp_path, labels=labels, dtype=dtype, zipmap=zipmap, label_output=label_output)
    model = load_model(files)
    features = np.array([[5, 1, 1, 0], [1, 5, 1, 0], [0, 1, 4, 9]], model.dtype)
    probabilities = model.probabilities(features)
    assert model.dtype == np.dtype(dtype)
    assert model.width == 4
    assert model.labels == ("zebra", "ape", "mole")
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, softmax(features.astype(float), 3), atol=1e-6)


@pytest.mark.parametrize("zipmap", [None, "int64", "string"])
@pytest.mark.parametrize("labels", [1, 2, 12])
def test_any_number_of_classes_works(tmp_path: Path, zipmap: str | None, labels: int) -> None:
    model = load_model(write_classifier(tmp_path, width=12, labels=labels, zipmap=zipmap))
    features = np.arange(24, dtype=np.float32).reshape(2, 12) / 10
    np.testing.assert_allclose(model.probabilities(features), softmax(features, labels), atol=1e-6)


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("names", [None, ["c", "a", "b"]])
def test_a_model_that_skl2onnx_made_gives_what_scikit_learn_gives(
    tmp_path: Path, zipmap: bool, names: list[str] | None
) -> None:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    features = random.normal(size=(90, 5)).astype(np.float32)
    classes = np.arange(90) % 3
    classifier = LogisticRegression().fit(features, classes if names is None else np.array(names)[classes])
    onnx_model = convert_sklearn(
        classifier,
        initial_types=[("x", FloatTensorType([None, 5]))],
        options={"zipmap": zipmap},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    (tmp_path / "m.onnx").write_bytes(onnx_model.SerializeToString())
    labels = [str(name) for name in classifier.classes_] if names else ["x", "y", "z"]
    model = load_model(ModelFiles(tmp_path / "m.onnx", write_labels(tmp_path / "l.json", labels), None))
    np.testing.assert_allclose(model.probabilities(features), classifier.predict_proba(features), atol=1e-5)


@pytest.mark.parametrize("zipmap", [None, "int64", "string"])
def test_no_items_give_no_rows_of_all_columns(tmp_path: Path, zipmap: str | None) -> None:
    model = load_model(write_classifier(tmp_path, zipmap=zipmap))
    probabilities = model.probabilities(np.empty((0, 4), np.float32))
    assert probabilities.shape == (0, 3)
    assert probabilities.dtype == np.float32


def test_the_version_is_the_hash_of_the_file(tmp_path: Path) -> None:
    files = write_classifier(tmp_path)
    assert load_model(files).version == hashlib.sha256(files.model_filepath.read_bytes()).hexdigest()


def test_a_batch_of_the_wrong_width_is_a_model_error(sampleless: OnnxModel) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx fails on 2 items: .*Got: 3 Expected: 4"):
        sampleless.probabilities(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("which", ["model", "label", "sample"])
def test_a_missing_file_is_named_with_the_variable_that_points_at_it(tmp_path: Path, which: str) -> None:
    files = write_classifier(tmp_path)
    (tmp_path / f"{which}{'.onnx' if which == 'model' else '.json'}").unlink()
    message = refusal(files)
    assert "No such file or directory" in message
    assert which in message
    assert {"model": "MODEL_FILEPATH", "label": "LABEL_FILEPATH", "sample": "SAMPLE_DATA_PATH"}[which] in message


def test_a_folder_in_place_of_the_model_is_refused(tmp_path: Path) -> None:
    files = write_classifier(tmp_path)
    assert "Is a directory" in refusal(ModelFiles(tmp_path, files.label_filepath, None))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_model_is_refused_without_noise(
    tmp_path: Path, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    files = write_classifier(tmp_path)
    whole = files.model_filepath.read_bytes()
    files.model_filepath.write_bytes(whole[: int(len(whole) * share)])
    message = refusal(files)
    assert "model.onnx" in message
    assert "truncated" in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"hello world", b'{"0": "setosa"}', b"\x80\x04pickle", b"\0" * 1000])
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    files = write_classifier(tmp_path)
    files.model_filepath.write_bytes(content)
    assert "is not an ONNX model" in refusal(files)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "../{folder}/weights.bin", "{absolute}"])
@pytest.mark.parametrize("beside", ["the working folder", "the model"])
def test_a_model_that_would_read_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str, beside: str
) -> None:
    files = write_classifier(tmp_path)
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    model = onnx.load(files.model_filepath)
    (weights,) = model.graph.initializer
    other = (working if beside == "the working folder" else tmp_path) / "weights.bin"
    other.write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    place = weights.external_data.add()
    place.key, place.value = "location", location.format(folder=other.parent.name, absolute=other)
    files.model_filepath.write_bytes(model.SerializeToString())
    assert "External data path" in refusal(files)


def test_a_model_with_operators_of_its_own_is_refused(tmp_path: Path) -> None:
    files = write_table_model(
        tmp_path, [helper.make_node("Shell", ["values"], ["probabilities"], domain="com.example")]
    )
    model = onnx.load(files.model_filepath)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    files.model_filepath.write_bytes(model.SerializeToString())
    assert "com.example:Shell(-1) is not a registered function/op" in refusal(files)


def test_a_fixed_batch_size_is_refused_with_how_to_export_a_free_one(tmp_path: Path) -> None:
    message = refusal(write_classifier(tmp_path, batch=8))
    assert "batches of exactly 8 items" in message
    assert "FloatTensorType([None, width])" in message


def test_two_inputs_are_refused_by_name(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in ("left", "right")]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 4])
    nodes = [helper.make_node("Add", ["left", "right"], ["probabilities"])]
    path = write_graph(tmp_path / "two.onnx", nodes, inputs, [output])
    message = refusal(ModelFiles(path, write_labels(tmp_path / "label.json", ["a"]), None))
    assert "two.onnx has 2 inputs" in message
    assert "left (tensor(float)), right (tensor(float))" in message


@pytest.mark.parametrize(("dtype", "shape"), [(TensorProto.STRING, [None, 4]), (TensorProto.FLOAT, [None, 3, 8, 8])])
def test_an_input_that_no_list_of_numbers_fits_is_refused(tmp_path: Path, dtype: int, shape: list[int | None]) -> None:
    values = helper.make_tensor_value_info("values", dtype, shape)
    output = helper.make_tensor_value_info("probabilities", dtype, shape)
    path = write_graph(
        tmp_path / "m.onnx", [helper.make_node("Identity", ["values"], ["probabilities"])], [values], [output]
    )
    message = refusal(ModelFiles(path, write_labels(tmp_path / "label.json", ["a"]), None))
    assert "The input values of the model m.onnx" in message


def two_tables(folder: Path, first: str, second: str) -> ModelFiles:
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 3])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in (first, second)]
    nodes = [
        helper.make_node("Softmax", ["values"], [first], axis=1),
        helper.make_node("Identity", ["values"], [second]),
    ]
    path = write_graph(folder / "m.onnx", nodes, [values], outputs)
    return ModelFiles(path, write_labels(folder / "label.json", ["a", "b", "c"]), None)


@pytest.mark.parametrize("name", ["probabilities", "output_probability"])
def test_of_several_tables_the_one_named_probabilities_is_taken(tmp_path: Path, name: str) -> None:
    model = load_model(two_tables(tmp_path, name, "scores"))
    assert model.probabilities(np.zeros((1, 3), np.float32)).sum() == pytest.approx(1)


def test_several_tables_without_such_a_name_are_refused_by_name(tmp_path: Path) -> None:
    message = refusal(two_tables(tmp_path, "one", "other"))
    assert "several outputs" in message
    assert "one (tensor(float)" in message
    assert "other (tensor(float)" in message


def test_a_model_with_labels_only_is_refused(tmp_path: Path) -> None:
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 4])
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
    nodes = [helper.make_node("ArgMax", ["values"], ["label"], axis=1, keepdims=0)]
    path = write_graph(tmp_path / "m.onnx", nodes, [values], [label])
    message = refusal(ModelFiles(path, write_labels(tmp_path / "label.json", ["a"]), None))
    assert "no output that could be the class probabilities: label (tensor(int64)" in message


@pytest.mark.parametrize("sample", [True, False])
def test_too_few_labels_are_refused_with_both_numbers(tmp_path: Path, sample: bool) -> None:
    files = write_classifier(tmp_path, labels=3, sample=sample)
    write_labels(labels_file(files), ["a", "b"])
    assert "has 3 classes, the labels name 2: a, b." in refusal(files)


@pytest.mark.parametrize(("zipmap", "labels"), [("int64", ["a", "b"]), ("string", ["class_0", "class_1", "other"])])
def test_a_zipmap_whose_classes_are_not_the_labels_is_refused(tmp_path: Path, zipmap: str, labels: list[str]) -> None:
    files = write_classifier(tmp_path, labels=3, zipmap=zipmap)
    write_labels(labels_file(files), labels)
    message = refusal(files)
    assert "names its classes" in message
    assert str(labels) in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "not a JSON object"),
        ("{}", "not a JSON object"),
        ('["a", "b", "c"]', "not a JSON object"),
        ('{"0": "a", "1": "b", "3": "c"}', "its keys are 0, 1, 3, not the numbers 0 to 2"),
        ('{"1": "a", "2": "b", "3": "c"}', "its keys are 1, 2, 3"),
        ('{"a": 0, "b": 1, "c": 2}', "its keys are a, b, c"),
        ('{"0": "a", "1": "b", "2": 3}', "its labels are not all texts"),
        ('{"0": "a", "1": "b", "2": ""}', "its labels are not all texts"),
        ('{"0": "a", "1": ["b"], "2": "c"}', "its labels are not all texts"),
        ('{"0": "a", "1": "b", "2": "b"}', "two classes have the same label"),
        ('{"0": "a", "1": "b", "1": "c", "2": "d"}', "it has the key 1 twice"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_malformed_labels_file_is_refused_with_the_reason(tmp_path: Path, content: str, reason: str) -> None:
    files = write_classifier(tmp_path)
    labels_file(files).write_text(content)
    message = refusal(files)
    assert "label.json" in message
    assert reason in message


def test_a_labels_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    files = write_classifier(tmp_path)
    labels_file(files).write_bytes(b'{"0": "caf\xe9"}')
    assert "labels file" in refusal(files)


def test_labels_may_stand_in_any_order_and_any_script(tmp_path: Path) -> None:
    files = write_classifier(tmp_path)
    labels_file(files).write_text('{"2": "鸢尾", "0": "a", "1": "b"}', encoding="utf-8")
    assert load_model(files).labels == ("a", "b", "鸢尾")


def test_a_sample_of_another_width_is_refused_with_both_widths(tmp_path: Path) -> None:
    files = write_classifier(tmp_path, width=3)
    write_sample(files, "[[5.1, 3.5, 1.4, 0.2]]")
    message = refusal(files)
    assert "The model model.onnx takes 3 values an item, not 4 as in the sample in" in message
    assert "sample.json: [5.1, 3.5, 1.4, 0.2]" in message


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ('[[1, 2, 3, "x"]]', 'value 4 is a string: "x"'),
        ("[[1, 2, 3, 4], [1, 2, 3, null]]", "value 4 is null"),
        ("[[1, 2, 3, NaN]]", "value 4 is NaN"),
        ("[1, 2, 3, 4]", "a number, not a list of 4 numbers"),
        ("[]", "not a list of the values of a few items"),
        ('{"a": 1}', "not a list of the values of a few items"),
        ("[[1, 2, 3, 4]", "Expecting ',' delimiter"),
    ],
)
def test_a_sample_with_anything_bad_in_it_is_refused(tmp_path: Path, sample: str, reason: str) -> None:
    files = write_classifier(tmp_path)
    write_sample(files, sample)
    message = refusal(files)
    assert "sample.json" in message
    assert reason in message


def test_a_sample_of_fractions_does_not_fit_a_model_that_takes_integers(tmp_path: Path) -> None:
    files = write_classifier(tmp_path, dtype="int64")
    write_sample(files, "[[5.1, 3.5, 1.4, 0.2]]")
    assert "value 1 is 5.1, the model takes integers" in refusal(files)


def test_the_sample_sets_a_width_that_the_model_leaves_open(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path, width=None))
    assert model.width == 4


def test_a_sample_that_the_model_cannot_multiply_is_refused_when_the_width_is_open(tmp_path: Path) -> None:
    files = write_classifier(tmp_path, width=None)
    write_sample(files, "[[1, 2, 3]]")
    assert "model.onnx fails on 2 items" in refusal(files)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        pytest.param([("MatMul", "values", "weights")], {"weights": np.eye(4, 3, dtype=np.float32)}, id="scores"),
        pytest.param([("MatMul", "values", "weights")], {"weights": np.full((4, 3), np.nan, np.float32)}, id="nan"),
        pytest.param(
            [("MatMul", "values", "weights")], {"weights": np.full((4, 3), np.inf, np.float32)}, id="infinite"
        ),
        pytest.param([("MatMul", "values", "weights")], {"weights": np.zeros((4, 3), np.float32)}, id="sum of zero"),
    ],
)
def test_an_output_that_is_not_class_probabilities_is_refused_with_a_row_of_it(
    tmp_path: Path, nodes: list[tuple[str, str, str]], constants: dict[str, np.ndarray]
) -> None:
    made = [helper.make_node(kind, [left, right], ["probabilities"]) for kind, left, right in nodes]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(write_table_model(tmp_path, made, constants=constants))
    assert "The output probabilities of the model model.onnx is not class probabilities" in message
    assert "for [1.0, 2.0, 3.0, 4.0] from the sample in" in message


def summed_rows(folder: Path) -> ModelFiles:
    """A model that mixes up the rows of a batch: it returns one row, whatever comes in."""
    nodes = [
        helper.make_node("MatMul", ["values", "weights"], ["scores"]),
        helper.make_node("ReduceSum", ["scores", "axes"], ["sums"], keepdims=1),
        helper.make_node("Softmax", ["sums"], ["probabilities"], axis=1),
    ]
    constants = {"weights": np.eye(4, 3, dtype=np.float32), "axes": np.array([0])}
    return write_table_model(folder, nodes, constants=constants)


@pytest.mark.parametrize("sample", ["[[1, 2, 3, 4], [5, 6, 7, 8]]", "[[1, 2, 3, 4]]"])
def test_a_model_that_returns_another_number_of_rows_is_refused(
    tmp_path: Path, sample: str, capfd: pytest.CaptureFixture[str]
) -> None:
    files = summed_rows(tmp_path)
    write_sample(files, sample)
    assert "returns an array of shape (1, 3) for 2 items and 3 labels, not (2, 3)" in refusal(files)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_scores_single_items_only_does_not_pass_with_an_hour(tmp_path: Path) -> None:
    files = summed_rows(tmp_path)
    model = load_model(ModelFiles(files.model_filepath, files.label_filepath, None))
    with pytest.raises(ModelError, match="returns an array of shape"):
        check_sample(model, ["[1, 2, 3, 4]", "[5, 6, 7, 8]"], HOUR)


def test_numbers_below_zero_are_no_probabilities_although_their_sum_is_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["values", "weights"], ["zeros"]),
        helper.make_node("Add", ["zeros", "row"], ["probabilities"]),
    ]
    constants = {"weights": np.zeros((4, 3), np.float32), "row": np.array([0.5, 1.0, -0.5], np.float32)}
    assert "it is [0.5, 1.0, -0.5]" in refusal(write_table_model(tmp_path, nodes, constants=constants))


def picky(folder: Path) -> OnnxModel:
    """A model that fails on any batch that holds an item whose first value is above 2."""
    files = write_picky_classifier(folder)
    return load_model(ModelFiles(files.model_filepath, files.label_filepath, None))


def test_a_batch_that_the_model_fails_on_is_a_model_error_without_noise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = picky(tmp_path)
    assert model.probabilities(np.zeros((2, 4), np.float32)).tolist() == [[1, 0, 0]] * 2
    with pytest.raises(ModelRunError, match=r"model\.onnx fails on 1 item: .*out of data bounds") as caught:
        model.probabilities(np.full((1, 4), 7, np.float32))
    assert caught.value.reason in str(caught.value)
    assert "out of data bounds, idx=7" in caught.value.reason
    assert capfd.readouterr() == ("", "")


def test_an_item_for_which_the_memory_does_not_suffice_is_one_that_the_model_fails_on(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["values"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["size"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["size", "zero"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["many"]),
        helper.make_node("ReduceSum", ["many"], ["nothing"], keepdims=0),
        helper.make_node("Gather", ["table", "zero"], ["row"], axis=0),
        helper.make_node("Add", ["row", "nothing"], ["probabilities"]),
    ]
    constants = {"zero": np.array([0]), "table": np.eye(3, dtype=np.float32)}
    files = write_table_model(tmp_path, nodes, constants=constants)
    model = load_model(ModelFiles(files.model_filepath, files.label_filepath, None))
    assert model.probabilities(np.full((1, 4), 7, np.float32)).tolist() == [[1, 0, 0]]
    with pytest.raises(ModelRunError, match="Failed to allocate memory"):
        model.probabilities(np.full((1, 4), 1e18, np.float32))


def test_an_input_that_cannot_be_handed_over_is_no_fault_of_the_items(sampleless: OnnxModel) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx cannot be run: Could not create tensor") as caught:
        sampleless.probabilities([["a"]])  # type: ignore[arg-type]  # what is not an array
    assert type(caught.value) is ModelError


def test_the_items_of_an_hour_serve_as_a_sample_although_some_are_bad(sampleless: OnnxModel) -> None:
    texts = ["oops", None, "[1, 2]", "[1, 2, 3, 4]", "[1, 2, null, 4]", "[5, 6, 7, 8]"]
    assert check_sample(sampleless, texts, HOUR) == 2


def test_items_of_an_hour_on_which_the_model_fails_do_not_spoil_the_sample(tmp_path: Path) -> None:
    assert check_sample(picky(tmp_path), ["[7, 0, 0, 0]", "[1, 0, 0, 0]"], HOUR) == 2


def test_a_sample_on_which_the_model_always_fails_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="fails on 2 items"):
        check_sample(picky(tmp_path), ["[7, 0, 0, 0]", "[8, 0, 0, 0]"], HOUR)


def test_an_hour_of_items_of_another_width_does_not_fit_the_model(sampleless: OnnxModel) -> None:
    with pytest.raises(ModelError, match="takes 4 values an item, not 3 as in the items of the hour: "):
        check_sample(sampleless, ["null", "[1, 2, 3]", "[4, 5, 6]"], HOUR)


@pytest.mark.parametrize("texts", [[], [None, "oops"], ["[]", '["a"]']])
def test_an_hour_without_a_list_of_numbers_says_nothing_about_a_model_of_open_width(
    tmp_path: Path, texts: list[str | None]
) -> None:
    model = load_model(write_classifier(tmp_path, width=None, sample=False))
    assert check_sample(model, texts, HOUR) == 0
    assert model.width is None


def test_the_first_list_of_numbers_of_an_hour_sets_an_open_width(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path, width=None, sample=False))
    assert model.width is None
    assert check_sample(model, ["oops", "[1, 2, 3, 4]", "[1, 2]"], HOUR) == 1
    assert model.width == 4


def test_a_list_that_is_too_long_to_be_read_sets_no_width(tmp_path: Path) -> None:
    model = load_model(write_classifier(tmp_path, width=None, sample=False))
    assert check_sample(model, [f"[1,{' ' * 4_000_000}2]", "[1, 2, 3, 4]"], HOUR) == 1
    assert model.width == 4


def test_an_unset_or_empty_environment_means_the_iris_model() -> None:
    folder = root_folder() / "models"
    expected = ModelFiles(folder / "iris_svc.onnx", folder / "label.json", folder / "sample.json")
    assert ModelFiles.from_environment({}) == expected
    assert ModelFiles.from_environment({"MODEL_FILEPATH": "", "SAMPLE_DATA_PATH": ""}) == expected
    named = ModelFiles.from_environment({"MODEL_FILEPATH": str(expected.model_filepath)})
    assert named.sample_data_path == expected.sample_data_path


def test_a_model_of_ones_own_has_no_sample_unless_one_is_named() -> None:
    own = {"MODEL_FILEPATH": "other.onnx", "LABEL_FILEPATH": "labels.json"}
    assert ModelFiles.from_environment(own) == ModelFiles(Path("other.onnx"), Path("labels.json"), None)
    assert ModelFiles.from_environment(own | {"SAMPLE_DATA_PATH": "s.json"}).sample_data_path == Path("s.json")


def test_the_model_in_the_repository_scores_its_sample() -> None:
    model = load_model(ModelFiles.from_environment({}))
    assert model.labels == ("setosa", "versicolor", "virginica")
    described = json.loads((root_folder() / "models" / "iris_svc.json").read_text())
    assert described["version"] == model.version


def test_nobody_is_told_which_models_are_loaded(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from batch_assets.inference.model_files import load_model\n"
        "from batch_assets.settings.model import ModelFiles\n"
        "load_model(ModelFiles.from_environment(os.environ))"
    )
    # In what calls itself CI, ONNX Runtime tells nothing in any case.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment | home, cwd=root_folder(), check=True, timeout=120)
    # It keeps what it has to on_progress, and who it is, in files.
    assert list(tmp_path.rglob("*")) == []
