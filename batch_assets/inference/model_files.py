"""The files of a model: read, and checked against each other. Whatever does not fit ends in a `ModelError`."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from batch_assets.errors import ModelError
from batch_assets.inference.class_names import classes_of
from batch_assets.inference.item_format import shown
from batch_assets.inference.model_check import check_sample
from batch_assets.inference.model_inputs import find_inputs
from batch_assets.inference.model_outputs import Classes, find_outputs
from batch_assets.inference.onnx_model import OnnxModel, open_session
from batch_assets.settings.folders import relative_to_root
from batch_assets.settings.items import ItemFormat
from batch_assets.settings.model import ModelFiles

# What the pipeline of the environment takes, and writes class probabilities.
LISTS_OF_NUMBERS = ItemFormat()


def load_model(files: ModelFiles, items: ItemFormat = LISTS_OF_NUMBERS) -> OnnxModel:
    """Reads the model and its labels, and score the sample where there is one.

    Args:
        files: Where they are.
        items: What an item holds, and what is written once it is scored.

    Raises:
        ModelError: A file is missing or malformed, or model, labels, features and sample do not fit one another.
    """
    model_bytes = _read(files.model_filepath, "model", "MODEL_FILEPATH")
    labels = () if files.label_filepath is None else load_labels(files.label_filepath)
    path = files.model_filepath
    session = open_session(model_bytes, path)
    version = hashlib.sha256(model_bytes).hexdigest()
    inputs = find_inputs(session, path.name, items)
    read = find_outputs(session, path.name, items.outputs, _classes(labels, items, model_bytes))
    model = OnnxModel(session, version, path.name, items, inputs, read)
    if files.sample_data_path is not None:
        source = f"the sample in {relative_to_root(files.sample_data_path)}"
        check_sample(model, _load_sample(files.sample_data_path), source, every=True)
    return model


def labels_of(files: ModelFiles, items: ItemFormat) -> tuple[str, ...]:
    """Returns the labels by which predictions are counted; none where nothing that is written has a label.

    Args:
        files: Of the model.
        items: What is written once an item is scored.

    Raises:
        ModelError: A file is missing or malformed.
    """
    if items.labelled_output is None:
        return ()
    if files.label_filepath is not None:
        return load_labels(files.label_filepath)
    return tuple(map(str, classes_of(_read(files.model_filepath, "model", "MODEL_FILEPATH"))))


def _classes(labels: tuple[str, ...], items: ItemFormat, model_bytes: bytes) -> Classes:
    """Returns the classes, also as the graph has them where the labels alone do not do."""
    forms = {output.form for output in items.outputs}
    if forms == {"value"} or (labels and forms == {"probabilities"}):
        return Classes(labels)
    keys = classes_of(model_bytes)
    return Classes(labels or tuple(map(str, keys)), keys)


def load_labels(path: Path) -> tuple[str, ...]:
    """Returns the labels of a LABEL_FILEPATH in the order of the probabilities.

    Raises:
        ModelError: The file is missing, or is not an object of class index to label.
    """
    example = '{"0": "setosa", "1": "versicolor"}'
    document = _load_json(path, "labels", "LABEL_FILEPATH", example)
    keys = [str(number) for number in range(len(document))] if isinstance(document, dict) else []
    if not keys:
        reason = "it is not a JSON object with at least one label"
    elif set(document) != set(keys):
        reason = f"its keys are {shown(', '.join(document))}, not the numbers 0 to {len(keys) - 1}"
    elif not all(isinstance(label, str) and label for label in document.values()):
        reason = f"its labels are not all texts: {shown(str(list(document.values())))}"
    elif len(set(document.values())) != len(document):
        reason = f"two classes have the same label: {shown(', '.join(document.values()))}"
    else:
        return tuple(document[key] for key in keys)
    raise ModelError(f"The labels file {relative_to_root(path)} cannot be used: {reason}. It must look like {example}.")


def _load_sample(path: Path) -> list[str]:
    example = "[[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]"
    document = _load_json(path, "sample", "SAMPLE_DATA_PATH", example)
    if not isinstance(document, list) or not document:
        raise ModelError(
            f"The sample file {relative_to_root(path)} is not a list of the values of a few items. "
            f"It must look like {example}."
        )
    return [json.dumps(values) for values in document]


def _read(path: Path, what: str, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"Cannot read the {what} file {relative_to_root(path)}: {error.strerror}. Point {variable} at the file, "
            "or materialise the asset iris_model, which writes the files of the iris model."
        ) from None


def _load_json(path: Path, what: str, variable: str, example: str) -> Any:
    try:
        return json.loads(_read(path, what, variable), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"The {what} file {relative_to_root(path)} cannot be used: {error}. It must be JSON such as {example}."
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    most_common = Counter(name for name, _ in pairs).most_common(1)
    if most_common and most_common[0][1] > 1:
        raise ValueError(f"it has the key {shown(most_common[0][0])} twice")
    return dict(pairs)
