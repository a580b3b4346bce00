"""Small ONNX classifiers with their labels and samples, for tests."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from batch_assets.settings.model import ModelFiles

INPUT_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}


def write_classifier(
    folder: Path,
    *,
    width: int | None = 4,
    labels: int | list[str] = 3,
    dtype: str = "float32",
    zipmap: str | None = None,
    label_output: str = "first",
    batch: int | None = None,
    sample: bool = True,
) -> ModelFiles:
    """Writes a softmax classifier whose class k is the likelier the larger the k-th value of an item is.

    Args:
        folder: Where `model.onnx`, `label.json` and `sample.json` go.
        width: How many values the input declares; None leaves it open (the model itself then takes 4).
        labels: Names of the classes, or how many of them.
        dtype: Type of the input: float32, float64 or int64.
        zipmap: None for a tensor output, "int64" or "string" for a ZipMap with such keys.
        label_output: "first", "last" or "absent": where the output with the labels stands.
        batch: The first dimension of the input; None is dynamic.
        sample: Whether to write a sample and name it in the result.
    """
    names = [f"class_{index}" for index in range(labels)] if isinstance(labels, int) else labels
    weights = np.eye(width or 4, len(names), dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["values"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probability_tensor"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    if zipmap:
        zip_node = helper.make_node("ZipMap", ["probability_tensor"], ["output_probability"], domain="ai.onnx.ml")
        keys = ("classlabels_int64s", range(len(names))) if zipmap == "int64" else ("classlabels_strings", names)
        zip_node.attribute.append(helper.make_attribute(*keys))
        nodes.append(zip_node)
        key_type = TensorProto.INT64 if zipmap == "int64" else TensorProto.STRING
        value_type = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        map_type = helper.make_map_type_proto(key_type, value_type)
        probabilities = helper.make_value_info("output_probability", helper.make_sequence_type_proto(map_type))
    else:
        nodes.append(helper.make_node("Identity", ["probability_tensor"], ["probabilities"]))
        probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(names)])
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
    outputs = {"first": [label, probabilities], "last": [probabilities, label], "absent": [probabilities]}
    values = helper.make_tensor_value_info("values", INPUT_TYPES[dtype], [batch, width])
    model_filepath = write_graph(folder / "model.onnx", nodes, [values], outputs[label_output], {"weights": weights})
    label_filepath = write_labels(folder / "label.json", names)
    sample_data_path = None
    if sample:
        sample_data_path = folder / "sample.json"
        sample_data_path.write_text(json.dumps([[1] * (width or 4), [2] * (width or 4)]))
    return ModelFiles(model_filepath, label_filepath, sample_data_path)


def write_labels(path: Path, names: list[str]) -> Path:
    """Writes the labels file of classes with these names."""
    path.write_text(json.dumps({str(index): name for index, name in enumerate(names)}))
    return path


def labels_file(files: ModelFiles) -> Path:
    """The labels file of a model that has one."""
    assert files.label_filepath is not None
    return files.label_filepath


def write_sample(files: ModelFiles, content: str) -> None:
    """Replaces the sample of a model that has one."""
    assert files.sample_data_path is not None
    files.sample_data_path.write_text(content)


def write_graph(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any] | None = None
) -> Path:
    """Writes an ONNX model of these nodes; unlike exporters it does not mind a model that makes no sense."""
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def write_table_model(
    folder: Path, nodes: list[Any], columns: int = 3, constants: dict[str, Any] | None = None
) -> ModelFiles:
    """Writes a model from `values` (float, [None, 4]) to `probabilities` (float, [None, columns]) of any nodes."""
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 4])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, columns])
    path = write_graph(folder / "model.onnx", nodes, [values], [output], constants)
    labels = write_labels(folder / "label.json", [f"class_{index}" for index in range(columns)])
    sample = folder / "sample.json"
    sample.write_text("[[1, 2, 3, 4], [5, 6, 7, 8]]")
    return ModelFiles(path, labels, sample)


def write_picky_classifier(folder: Path) -> ModelFiles:
    """Writes a model that is sure of the class whose number is the first value, and fails on a batch with one above 2.

    It really fails: ONNX Runtime finds no such row in a table of three.
    """
    nodes = [
        helper.make_node("Gather", ["values", "zero"], ["first"], axis=1),
        helper.make_node("Cast", ["first"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["probabilities"], axis=0),
    ]
    files = write_table_model(folder, nodes, constants={"zero": np.array(0), "table": np.eye(3, dtype=np.float32)})
    write_sample(files, "[[0, 0, 0, 0], [2, 0, 0, 0]]")
    return files


def write_heavy_classifier(folder: Path, layers: int = 36, width: int = 1024) -> ModelFiles:
    """Writes a classifier of wide layers, which takes a core about a millisecond an item: as many more, the longer."""
    random = np.random.default_rng(0)
    sizes = [4, *[width] * layers, 3]
    constants: dict[str, Any] = {}
    nodes, name = [], "values"
    for layer, (rows, columns) in enumerate(pairwise(sizes)):
        constants[f"weights_{layer}"] = (random.normal(size=(rows, columns)) / rows**0.5).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [name, f"weights_{layer}"], [f"sums_{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"sums_{layer}"], [f"layer_{layer}"]))
        name = f"layer_{layer}"
    nodes.append(helper.make_node("Softmax", [name], ["probabilities"], axis=1))
    return write_table_model(folder, nodes, constants=constants)
