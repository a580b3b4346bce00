"""Models of any kind: what is written is what scikit-learn says, from each form of item and in each form of answer."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.calibration import CalibratedClassifierCV
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from batch_assets.database.slices.batch import Batch
from batch_assets.errors import ModelError, SettingsError
from batch_assets.inference.model_files import labels_of, load_model
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import ItemTable
from batch_assets.scoring.batches import Progress, score
from batch_assets.settings.items import FORMS, Feature, Form, Output
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.customers import (
    FEATURES,
    as_lists,
    as_objects,
    customers,
    fitted,
    risks,
    write_customer_model,
    write_exported,
)
from batch_assets_tests.support.onnx_models import write_classifier, write_graph, write_labels

CUSTOMERS = customers(300)
LABELS = ("high", "low", "middle")


def table(*forms: Form, features: Iterable[Feature] = FEATURES, by_name: bool = True) -> ItemTable:
    outputs = tuple(Output(form, form) for form in forms)
    return ItemTable(features=tuple(features), by_name=by_name, outputs=outputs)


def scored(
    model: OnnxModel, items: ItemTable, texts: Sequence[str], json_columns: Sequence[str] = ()
) -> tuple[Batch, Progress]:
    batch = Batch(("id", "values"), list(enumerate(texts)))
    progress = Progress()
    (outcome,) = score([batch], items, model, progress, sample_known=False, json_columns=json_columns)
    return outcome, progress


def answers(files: ModelFiles, items: ItemTable, texts: Sequence[str], json_columns: Sequence[str] = ()) -> Batch:
    outcome, progress = scored(load_model(files, items), items, texts, json_columns)
    assert list(outcome.failed) == []
    assert progress.scored == len(texts)
    return outcome


def spent_next_year(rows: pd.DataFrame) -> Any:
    return rows["spent"] * 1.1 + rows["age"] - 20 * rows["active"]


@pytest.fixture(scope="module")
def classifier() -> Any:
    return fitted(LogisticRegression(), risks)


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_classifier_with_an_input_for_each_feature_says_what_scikit_learn_says(
    tmp_path: Path, classifier: Any, zipmap: bool, by_name: bool
) -> None:
    files = write_customer_model(tmp_path, classifier, zipmap=zipmap)
    items = table("probabilities", "label", "probability", "label_and_probabilities", by_name=by_name)
    texts = as_objects(CUSTOMERS) if by_name else as_lists(CUSTOMERS)
    outcome = answers(files, items, texts)
    expected, labels = classifier.predict_proba(CUSTOMERS), classifier.predict(CUSTOMERS).tolist()
    assert labels_of(files, items) == tuple(classifier.classes_) == LABELS
    np.testing.assert_allclose([json.loads(text) for text in outcome.column("probabilities")], expected, atol=1e-6)
    assert outcome.column("label") == labels
    np.testing.assert_allclose(outcome.column("probability"), expected.max(axis=1), atol=1e-6)
    both = [json.loads(text) for text in outcome.column("label_and_probabilities")]
    assert [each["label"] for each in both] == labels
    assert [each["probabilities"] for each in both] == list(map(json.loads, outcome.column("probabilities")))


@pytest.mark.parametrize("by_name", [True, False])
def test_a_regression_with_an_input_for_each_feature_says_what_scikit_learn_says(tmp_path: Path, by_name: bool) -> None:
    regression = fitted(Ridge(), spent_next_year)
    texts = as_objects(CUSTOMERS) if by_name else as_lists(CUSTOMERS)
    outcome = answers(write_customer_model(tmp_path, regression), table("value", by_name=by_name), texts)
    assert set(map(type, outcome.column("value"))) == {float}
    np.testing.assert_allclose(outcome.column("value"), regression.predict(CUSTOMERS), rtol=1e-5)


NUMBERS = CUSTOMERS[["age", "spent"]].to_numpy()
NUMBER_FEATURES = (Feature("age"), Feature("spent"))


@pytest.mark.parametrize("by_name", [True, False])
def test_features_go_into_one_matrix_in_the_order_that_is_declared(tmp_path: Path, by_name: bool) -> None:
    regression = LinearRegression().fit(NUMBERS, spent_next_year(CUSTOMERS))
    files = write_exported(tmp_path, regression, [("x", FloatTensorType([None, 2]))])
    objects = [json.dumps({"spent": spent, "age": age}) for age, spent in NUMBERS.tolist()]
    texts = objects if by_name else list(map(json.dumps, NUMBERS.tolist()))
    outcome = answers(files, table("value", features=NUMBER_FEATURES, by_name=by_name), texts)
    np.testing.assert_allclose(outcome.column("value"), regression.predict(NUMBERS), rtol=1e-5)


def test_a_model_of_doubles_says_exactly_what_scikit_learn_says(tmp_path: Path) -> None:
    regression = LinearRegression().fit(NUMBERS, spent_next_year(CUSTOMERS))
    files = write_exported(tmp_path, regression, [("x", DoubleTensorType([None, 2]))])
    outcome = answers(files, table("value", features=(), by_name=False), list(map(json.dumps, NUMBERS.tolist())))
    np.testing.assert_allclose(outcome.column("value"), regression.predict(NUMBERS), rtol=1e-14)


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(estimator, id=type(estimator).__name__)
        for estimator in (
            LogisticRegression(),
            GaussianNB(),
            KNeighborsClassifier(),
            CalibratedClassifierCV(LinearSVC()),
            SVC(),
        )
    ],
)
@pytest.mark.parametrize("classes", ["texts", "numbers"])
def test_the_label_is_what_scikit_learn_predicts_although_no_file_names_the_classes(
    tmp_path: Path, estimator: Any, classes: str
) -> None:
    target = risks(CUSTOMERS)
    if classes == "numbers":
        target = np.select([target == "high", target == "low"], [7, -3], 40)
    estimator.fit(NUMBERS, target)
    files = write_exported(tmp_path, estimator, [("x", FloatTensorType([None, 2]))], zipmap=False)
    items = table("label", features=(), by_name=False)
    outcome = answers(files, items, list(map(json.dumps, NUMBERS.tolist())))
    assert labels_of(files, items) == tuple(map(str, estimator.classes_.tolist()))
    assert outcome.column("label") == list(map(str, estimator.predict(NUMBERS.astype(np.float32)).tolist()))


@pytest.mark.parametrize("form", ["label", "label_and_probabilities"])
def test_a_file_of_labels_renames_classes_that_are_numbers(tmp_path: Path, form: Form) -> None:
    target = np.select([risks(CUSTOMERS) == "high", risks(CUSTOMERS) == "low"], [7, -3], 40)
    classifier = LogisticRegression().fit(NUMBERS, target)
    exported = write_exported(tmp_path, classifier, [("x", FloatTensorType([None, 2]))], zipmap=False)
    files = replace(exported, label_filepath=write_labels(tmp_path / "label.json", ["low", "high", "middle"]))
    outcome = answers(files, table(form, features=(), by_name=False), list(map(json.dumps, NUMBERS.tolist())))
    names = {-3: "low", 7: "high", 40: "middle"}
    expected = [names[key] for key in classifier.predict(NUMBERS).tolist()]
    found = outcome.column(form)
    assert (found if form == "label" else [json.loads(text)["label"] for text in found]) == expected


@pytest.mark.parametrize("form", ["probabilities", "label", "label_and_probabilities"])
def test_classes_that_nothing_names_are_refused_with_what_to_do(tmp_path: Path, form: Form) -> None:
    files = replace(write_classifier(tmp_path), label_filepath=None)
    with pytest.raises(ModelError, match=r"model\.onnx does not name its classes: point LABEL_FILEPATH at a file"):
        load_model(files, table(form, features=(), by_name=False))


def test_the_probability_of_the_winner_needs_no_names(tmp_path: Path) -> None:
    files = replace(write_classifier(tmp_path), label_filepath=None)
    (probability,) = answers(files, table("probability", features=(), by_name=False), ["[0, 9, 0, 0]"]).column(
        "probability"
    )
    assert probability == pytest.approx(np.exp(9) / (np.exp(9) + 2))


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_of_bad_items_only_has_no_answers_of_any_form(tmp_path: Path, classifier: Any, form: Form) -> None:
    estimator = fitted(Ridge(), spent_next_year) if form == "value" else classifier
    items = table(form)
    model = load_model(write_customer_model(tmp_path, estimator), items)
    outcome, progress = scored(model, items, ["null", "7"])
    assert (outcome.rows, progress.codes) == ([], {"null_value": 1, "not_an_object": 1})
    unnamed = replace(write_classifier(tmp_path), label_filepath=None)
    probability = table("probability", features=(), by_name=False)
    assert scored(load_model(unnamed, probability), probability, ["null"])[0].rows == []


@pytest.mark.parametrize("form", FORMS)
def test_an_item_on_which_the_model_fails_fails_alone_in_every_form(tmp_path: Path, form: Form) -> None:
    values = helper.make_tensor_value_info("x", TensorProto.INT64, [None])
    shapes: dict[str, tuple[Any, list[int | None]]] = {
        "probabilities": (TensorProto.FLOAT, [None, 2]),
        "label": (TensorProto.STRING, [None]),
    }
    if form == "value":
        shapes = {"variable": (TensorProto.DOUBLE, [None])}
    constants: dict[str, Any] = {"probabilities": np.eye(2, dtype=np.float32), "label": np.array(["no", "yes"], object)}
    constants["variable"] = np.array([0.25, 0.5])
    nodes = [helper.make_node("Gather", [f"{name}_of_class", "x"], [name]) for name in shapes]
    outputs = [helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items()]
    tables = {f"{name}_of_class": constants[name] for name in shapes}
    path = write_graph(tmp_path / "model.onnx", nodes, [values], outputs, tables)
    files = ModelFiles(path, write_labels(tmp_path / "label.json", ["no", "yes"]), None)
    items = table(form, features=(Feature("x"),))
    texts = [json.dumps({"x": number}) for number in (0, 7, 1, 1, 9, 0, 1, 0, 1, -9)]
    outcome, _ = scored(load_model(files, items), items, texts)
    assert [(row.key, row.code) for row in outcome.failed] == [(key, "model_error") for key in (1, 4, 9)]
    good = [texts[key] for key in (0, 2, 3, 5, 6, 7, 8)]
    assert outcome.column(form) == scored(load_model(files, items), items, good)[0].column(form)


@pytest.mark.parametrize("zipmap", [True, False])
def test_labels_that_are_not_the_texts_of_the_model_are_refused_with_both(
    tmp_path: Path, classifier: Any, zipmap: bool
) -> None:
    labels = write_labels(tmp_path / "label.json", ["low", "middle", "other"])
    files = replace(write_customer_model(tmp_path, classifier, zipmap=zipmap), label_filepath=labels)
    with pytest.raises(ModelError, match=r"names its classes \['high', 'low', 'middle'\], the labels are \['low', "):
        load_model(files, table("label"))


def test_labels_in_another_order_than_a_tensor_are_refused(tmp_path: Path, classifier: Any) -> None:
    labels = write_labels(tmp_path / "label.json", ["low", "middle", "high"])
    files = replace(write_customer_model(tmp_path, classifier, zipmap=False), label_filepath=labels)
    with pytest.raises(ModelError, match="they must be the same names in the same order"):
        load_model(files, table("label_and_probabilities"))


def test_the_probabilities_of_a_zipmap_are_in_the_order_of_the_labels(tmp_path: Path, classifier: Any) -> None:
    labels = write_labels(tmp_path / "label.json", ["low", "middle", "high"])
    files = replace(write_customer_model(tmp_path, classifier, zipmap=True), label_filepath=labels)
    outcome = answers(files, table("label_and_probabilities", "probability"), as_objects(CUSTOMERS))
    expected = classifier.predict_proba(CUSTOMERS)[:, [1, 2, 0]]
    both = [json.loads(text) for text in outcome.column("label_and_probabilities")]
    np.testing.assert_allclose([each["probabilities"] for each in both], expected, atol=1e-6)
    assert [each["label"] for each in both] == classifier.predict(CUSTOMERS).tolist()
    np.testing.assert_allclose(outcome.column("probability"), expected.max(axis=1), atol=1e-6)


@pytest.mark.parametrize("zipmap", [True, False])
def test_all_is_every_output_of_the_model_by_its_name(tmp_path: Path, classifier: Any, zipmap: bool) -> None:
    outcome = answers(write_customer_model(tmp_path, classifier, zipmap=zipmap), table("all"), as_objects(CUSTOMERS))
    expected = classifier.predict_proba(CUSTOMERS)
    for text, label, probabilities in zip(outcome.column("all"), classifier.predict(CUSTOMERS), expected, strict=True):
        named = pytest.approx(dict(zip(LABELS, probabilities, strict=True)), abs=1e-6)
        listed = pytest.approx(probabilities.tolist(), abs=1e-6)
        found = (
            {"output_label": label, "output_probability": named}
            if zipmap
            else {"label": label, "probabilities": listed}
        )
        assert json.loads(text) == found


def test_all_writes_numbers_lists_and_tables_as_the_model_has_them(tmp_path: Path) -> None:
    values = helper.make_tensor_value_info("values", TensorProto.DOUBLE, [None, 2])
    outputs = [
        helper.make_tensor_value_info("twice", TensorProto.DOUBLE, [None, 2]),
        helper.make_tensor_value_info("first", TensorProto.DOUBLE, [None, 1]),
        helper.make_tensor_value_info("tables", TensorProto.DOUBLE, [None, 2, 1]),
        helper.make_tensor_value_info("is_large", TensorProto.BOOL, [None, 2]),
    ]
    nodes = [
        helper.make_node("Add", ["values", "values"], ["twice"]),
        helper.make_node("Gather", ["values", "zero"], ["first"], axis=1),
        helper.make_node("Unsqueeze", ["values", "two"], ["tables"]),
        helper.make_node("Greater", ["values", "one"], ["is_large"]),
    ]
    constants = {"zero": np.array([0]), "two": np.array([2]), "one": np.array(1.0)}
    path = write_graph(tmp_path / "model.onnx", nodes, [values], outputs, constants)
    outcome = answers(ModelFiles(path, None, None), table("all", features=(), by_name=False), ["[0.1, 2]", "[3, 1]"])
    assert [json.loads(text) for text in outcome.column("all")] == [
        {"twice": [0.2, 4], "first": 0.1, "tables": [[0.1], [2]], "is_large": [False, True]},
        {"twice": [6, 2], "first": 3, "tables": [[3], [1]], "is_large": [True, False]},
    ]


def write_sum(folder: Path, rank: int, output_rank: int = 1) -> ModelFiles:
    """A model of four features: three numbers of different types and a text, which counts if it is "yes"."""
    types = {"f": TensorProto.FLOAT, "d": TensorProto.DOUBLE, "i": TensorProto.INT64, "b": TensorProto.BOOL}
    shape: list[int | None] = [None] if rank == 1 else [None, 1]
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name, kind in types.items()]
    inputs.append(helper.make_tensor_value_info("s", TensorProto.STRING, shape))
    nodes = [helper.make_node("Cast", [name], [f"{name}_double"], to=TensorProto.DOUBLE) for name in types]
    nodes += [
        helper.make_node("LabelEncoder", ["s"], ["s_float"], domain="ai.onnx.ml", keys_strings=["yes", "jå"],
                         values_floats=[1000.0, 2000.0], default_float=0.0),
        helper.make_node("Cast", ["s_float"], ["s_double"], to=TensorProto.DOUBLE),
        helper.make_node("Sum", [f"{name}_double" for name in "fdibs"], ["sum"]),
        helper.make_node("Reshape", ["sum", "shape"], ["variable"]),
    ]  # fmt: skip
    output = helper.make_tensor_value_info("variable", TensorProto.DOUBLE, [None] if output_rank == 1 else [None, 1])
    constants = {"shape": np.array([-1] if output_rank == 1 else [-1, 1])}
    return ModelFiles(write_graph(folder / "model.onnx", nodes, inputs, [output], constants), None, None)


SUMMANDS = [
    ({"f": 0.5, "d": 0.1, "i": 2, "b": True, "s": "yes"}, 0.5 + 0.1 + 2 + 1 + 1000),
    ({"f": 1, "d": 1e-9, "i": -7, "b": False, "s": "no"}, 1 + 1e-9 - 7),
    ({"f": 0, "d": 3, "i": 2**40, "b": 1, "s": "jå"}, 3 + 2**40 + 1 + 2000),
    ({"f": 0, "d": 0, "i": 5.0, "b": 0, "s": ""}, 5),
]


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("output_rank", [1, 2])
@pytest.mark.parametrize("by_name", [True, False])
def test_inputs_of_every_type_and_both_shapes_get_their_feature(
    tmp_path: Path, rank: int, output_rank: int, by_name: bool
) -> None:
    files, items = (
        write_sum(tmp_path, rank, output_rank),
        table("value", features=map(Feature, "bdfis"), by_name=by_name),
    )
    texts = [json.dumps(each if by_name else [each[name] for name in "bdfis"]) for each, _ in SUMMANDS]
    assert answers(files, items, texts).column("value") == [expected for _, expected in SUMMANDS]
    # The last one, a fraction that is whole, has them looked at one by one.
    assert answers(files, items, texts[:3]).column("value") == [expected for _, expected in SUMMANDS[:3]]


def test_the_features_are_the_inputs_of_a_model_where_none_are_declared(tmp_path: Path) -> None:
    outcome = answers(write_sum(tmp_path, 2), table("value", features=()), [json.dumps(SUMMANDS[0][0])])
    assert outcome.column("value") == [SUMMANDS[0][1]]


def write_difference(folder: Path, metadata: str | None = None) -> ModelFiles:
    """A model of one matrix that takes the second value from the first."""
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 2])
    output = helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])
    nodes = [helper.make_node("MatMul", ["values", "weights"], ["variable"])]
    path = write_graph(folder / "model.onnx", nodes, [values], [output], {"weights": np.array([[1], [-1]], np.float32)})
    if metadata is not None:
        model = onnx.load(path)
        helper.set_model_props(model, {"feature_names": metadata})
        path.write_bytes(model.SerializeToString())
    return ModelFiles(path, None, None)


def test_the_metadata_of_a_model_may_name_its_features(tmp_path: Path) -> None:
    files = write_difference(tmp_path, '["left", "right"]')
    assert answers(files, table("value", features=()), ['{"right": 2, "left": 5}']).column("value") == [3]


@pytest.mark.parametrize("metadata", ["", "left", "{}", "[]", "[1, 2]", '["a", "a"]', '["a", ""]', "[" * 100_000])
def test_metadata_that_is_no_list_of_names_is_refused(tmp_path: Path, metadata: str) -> None:
    with pytest.raises(ModelError, match=r"The metadata feature_names of the model model\.onnx is not a JSON list"):
        load_model(write_difference(tmp_path, metadata), table("value", features=()))


def refusal(files: ModelFiles, items: ItemTable) -> str:
    """The sentence with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(files, items)
    return str(caught.value)


def test_a_matrix_whose_features_have_no_names_is_refused_for_items_that_name_them(tmp_path: Path) -> None:
    message = refusal(write_difference(tmp_path), table("value", features=()))
    assert "model.onnx does not say what its features are called" in message
    assert "metadata feature_names" in message


def test_more_features_than_a_matrix_has_columns_are_refused_by_name(tmp_path: Path) -> None:
    message = refusal(write_difference(tmp_path), table("value", features=map(Feature, "abc")))
    assert "takes 2 values an item, not the 3 features a, b, c" in message


def test_inputs_and_features_that_do_not_match_are_refused_with_the_names_of_both(tmp_path: Path) -> None:
    message = refusal(write_sum(tmp_path, 2), table("value", features=map(Feature, ("f", "d", "x", "y"))))
    assert "no input takes the features x, y" in message
    assert "no feature has the name of the inputs i, b, s" in message


@pytest.mark.parametrize(("name", "kind"), [("i", "int64"), ("b", "bool"), ("s", "string")])
def test_a_nullable_feature_whose_type_has_nothing_for_null_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    features = [Feature(each, nullable=each == name) for each in "fdibs"]
    message = refusal(write_sum(tmp_path, 2), table("value", features=features))
    assert f"The feature {name} is declared nullable, and the model model.onnx takes it as {kind}," in message


@pytest.mark.parametrize("by_name", [True, False])
def test_a_model_gets_null_of_a_nullable_feature_as_nan(tmp_path: Path, by_name: bool) -> None:
    rows = CUSTOMERS[["age", "spent"]].astype(float)
    rows.loc[::3, "spent"] = np.nan
    regression = make_pipeline(SimpleImputer(), LinearRegression()).fit(
        rows.to_numpy(), CUSTOMERS["age"] - rows["spent"].fillna(99)
    )
    files = write_exported(tmp_path, regression, [("x", FloatTensorType([None, 2]))])
    items = table("value", features=(Feature("age"), Feature("spent", nullable=True)), by_name=by_name)
    plain = [
        {name: None if np.isnan(value) else value for name, value in row.items()} for row in rows.to_dict("records")
    ]
    texts = [json.dumps(row if by_name else list(row.values())) for row in plain]
    expected = regression.predict(rows.to_numpy())
    np.testing.assert_allclose(answers(files, items, texts).column("value"), expected, atol=1e-4)
    outcome, _ = scored(load_model(files, items), items, ["oops", *texts])
    np.testing.assert_allclose(outcome.column("value"), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [[None, 2], [None, 1, 1], [8, 1]])
def test_an_input_that_is_not_one_column_is_refused_for_a_feature(tmp_path: Path, shape: list[int | None]) -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.STRING, shape) for name in "ab"]
    nodes = [helper.make_node("Identity", ["a"], ["o"]), helper.make_node("Identity", ["b"], ["p"])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.STRING, shape) for name in "op"]
    path = write_graph(tmp_path / "model.onnx", nodes, inputs, outputs)
    assert "The input a of the model model.onnx" in refusal(ModelFiles(path, None, None), table("all", features=()))


# What is wrong with single items


GOOD_ITEM = '{"f": 1, "d": 1, "i": 1, "b": true, "s": ""}'


def with_feature(name: str, text: str) -> str:
    """A good item, with another value in one feature."""
    return json.dumps(json.loads(GOOD_ITEM) | {name: "HERE"}).replace('"HERE"', text)


FAULTS = [
    ("{}", "missing_feature", "feature f is missing"),
    (with_feature("d", "null"), "null_value", "feature d is null"),
    (with_feature("f", '"1"'), "not_numeric", 'feature f is a string: "1"'),
    (with_feature("f", "true"), "not_numeric", "feature f is a boolean"),
    (with_feature("f", "1e39"), "too_large", "feature f is too large for the model's type float32"),
    (with_feature("d", "1e999"), "infinite", "feature d is infinite"),
    (with_feature("d", "NaN"), "not_a_number", "feature d is NaN"),
    (with_feature("i", "1.5"), "not_an_integer", "feature i is 1.5, the model takes integers"),
    (with_feature("i", "-9223372036854775809"), "too_large", "feature i is too large for the model's type int64"),
    (with_feature("b", '"true"'), "not_a_boolean", 'feature b is a string: "true"'),
    (with_feature("b", "2"), "not_a_boolean", "feature b is a number: 2"),
    (with_feature("b", "1.0"), "not_a_boolean", "feature b is a number: 1.0"),
    (with_feature("b", "null"), "null_value", "feature b is null"),
    (with_feature("s", "1"), "not_a_string", "feature s is a number"),
    (with_feature("s", "null"), "null_value", "feature s is null"),
    (
        with_feature("s", '"\\ud800"'),
        "not_a_string",
        'feature s is not valid Unicode, it holds half of a surrogate pair: "\\ud800"',
    ),
    ("[1, 1, 1, true, 1]", "not_an_object", "a list, not an object of 5 features: [1, 1, 1, true, 1]"),
    ("null", "null_value", "the value is null"),
    ("{", "not_json", "not JSON: Expecting property name enclosed in double quotes at character 2: {"),
    ("x" * 4_000_001, "too_long", "4000001 characters are too many for an object of 5 features"),
]


@pytest.mark.parametrize(
    ("text", "code", "message"), FAULTS, ids=[f"{code}-{at}" for at, (_, code, _) in enumerate(FAULTS)]
)
def test_a_bad_item_fails_with_the_name_of_its_feature_and_its_neighbours_are_scored(
    tmp_path: Path, text: str, code: str, message: str
) -> None:
    items = table("value", features=map(Feature, "fdibs"))
    good = json.dumps(SUMMANDS[0][0])
    outcome, progress = scored(load_model(write_sum(tmp_path, 2), items), items, [good, text, good])
    assert [tuple(row) for row in outcome.failed] == [(1, text, code, message)]
    assert outcome.column("id") == [0, 2]
    assert progress.codes == {code: 1}


def test_of_a_key_that_an_object_has_twice_the_last_one_counts(tmp_path: Path) -> None:
    items = table("value", features=map(Feature, "fdibs"))
    twice = '{"f": 1, "d": 0, "i": 0, "b": false, "s": "", "f": 2}'
    model = load_model(write_sum(tmp_path, 2), items)
    for neighbours in ([], ["oops"]):
        outcome, _ = scored(model, items, [twice, *neighbours])
        assert outcome.column("value") == [2]


def test_keys_that_name_no_feature_are_ignored_and_counted(tmp_path: Path) -> None:
    items = table("value", features=map(Feature, "fdibs"))
    extra = json.dumps(SUMMANDS[0][0] | {"note": [None, {}], "\ud800": 1})
    model = load_model(write_sum(tmp_path, 2), items)
    outcome, progress = scored(model, items, [extra, json.dumps(SUMMANDS[0][0] | {"more": 1}), '{"no": 1}'])
    assert outcome.column("value") == [SUMMANDS[0][1]] * 2
    assert progress.metadata()["ignored_keys"] == 3


def test_a_number_that_is_not_finite_fails_its_item_alone(tmp_path: Path) -> None:
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 1])
    output = helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])
    path = write_graph(tmp_path / "model.onnx", [helper.make_node("Log", ["values"], ["variable"])], [values], [output])
    items = table("value", features=(Feature("x"),))
    model = load_model(ModelFiles(path, None, None), items)
    outcome, _ = scored(model, items, ['{"x": 1}', '{"x": -1}', '{"x": 0}', '{"x": 1}'])
    assert outcome.rows == [(0, '{"x": 1}', 0.0), (3, '{"x": 1}', 0.0)]
    assert [(row.key, row.code, row.message) for row in outcome.failed] == [
        (key, "model_not_finite", "the model's answer is null") for key in (1, 2)
    ]
    with pytest.raises(ModelError, match=r"The answer of the model model\.onnx is not finite: for \[-1\.0\]"):
        scored(model, items, ['{"x": -1}'])


def test_a_sample_of_which_every_item_lacks_a_feature_does_not_fit(tmp_path: Path) -> None:
    items = table("value", features=map(Feature, "fdibs"))
    with pytest.raises(ModelError, match="does not fit the items of the hour: feature s is missing"):
        scored(load_model(write_sum(tmp_path, 2), items), items, ['{"f": 1, "d": 1, "i": 1, "b": true}'])


def test_a_file_of_samples_holds_items_as_they_are(tmp_path: Path) -> None:
    items, sample = table("value", features=map(Feature, "fdibs")), tmp_path / "sample.json"
    files = replace(write_sum(tmp_path, 2), sample_data_path=sample)
    sample.write_text(json.dumps([each for each, _ in SUMMANDS]))
    load_model(files, items)
    sample.write_text(json.dumps([SUMMANDS[0][0], SUMMANDS[1][0] | {"s": 1}]))
    assert "feature s is a number" in refusal(files, items)


# What a column gets


def test_a_column_of_json_gets_every_form_as_json(tmp_path: Path, classifier: Any) -> None:
    forms: tuple[Form, ...] = tuple(form for form in FORMS if form != "value")
    files = write_customer_model(tmp_path, classifier, zipmap=False)
    outcome = answers(files, table(*forms), as_objects(CUSTOMERS), json_columns=forms)
    assert [json.loads(text) for text in outcome.column("label")] == classifier.predict(CUSTOMERS).tolist()
    probabilities = np.array([json.loads(text) for text in outcome.column("probabilities")], np.float32)
    winning = np.array([json.loads(text) for text in outcome.column("probability")], np.float32)
    assert winning.tolist() == probabilities.max(axis=1).tolist()


def test_a_column_that_has_no_such_form_is_refused() -> None:
    with pytest.raises(
        SettingsError, match="prediction cannot be written as 'labels': write it as one of probabilities,"
    ):
        Output("prediction", "labels")  # type: ignore[arg-type]


@pytest.mark.parametrize("outputs", [(), (Output("a", "label"), Output("a", "value"))])
def test_a_table_writes_at_least_one_column_and_none_twice(outputs: tuple[Output, ...]) -> None:
    with pytest.raises(SettingsError):
        ItemTable(outputs=outputs)


def test_a_regression_asked_for_probabilities_is_refused(tmp_path: Path) -> None:
    message = refusal(write_sum(tmp_path, 2), table("probability", features=()))
    assert "no output that could be the class probabilities" in message


def test_a_model_with_a_text_for_an_answer_is_no_regression(tmp_path: Path) -> None:
    values = helper.make_tensor_value_info("values", TensorProto.STRING, [None])
    output = helper.make_tensor_value_info("variable", TensorProto.STRING, [None])
    path = write_graph(
        tmp_path / "model.onnx", [helper.make_node("Identity", ["values"], ["variable"])], [values], [output]
    )
    message = refusal(ModelFiles(path, None, None), table("value", features=()))
    assert "no output that could be a value: variable (tensor(string)" in message
