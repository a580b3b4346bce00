"""The files of a model: read, and checked against each other. Whatever does not fit ends in a `ModelError`."""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_assets.errors import ModelError
from batch_assets.inference.class_names import classes_of
from batch_assets.inference.item_format import shown
from batch_assets.inference.model_check import check_sample
from batch_assets.inference.model_content import ModelContent
from batch_assets.inference.model_inputs import find_inputs
from batch_assets.inference.model_outputs import Classes, find_outputs
from batch_assets.inference.model_registry import downloaded, resolve
from batch_assets.inference.model_version import check_version, read_file, version_of, weight_files
from batch_assets.inference.onnx_model import OnnxModel, open_session
from batch_assets.settings.folders import relative_to_root
from batch_assets.settings.inference import InferenceSettings, cores
from batch_assets.settings.items import ItemFormat
from batch_assets.settings.model import ModelSource, RegisteredModel

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# What the pipeline of the environment takes, and writes class probabilities.
LISTS_OF_NUMBERS = ItemFormat()
ON_PROCESSOR = InferenceSettings()


def load_model(
    source: ModelSource, items: ItemFormat = LISTS_OF_NUMBERS, inference: InferenceSettings = ON_PROCESSOR
) -> OnnxModel:
    """Reads the model and its labels, and score the sample where there is one.

    Args:
        source: Where they are; of an alias, the version that it names now.
        items: What an item holds, and what is written once it is scored.
        inference: Where and how it scores.

    Raises:
        SettingsError: The model is in a registry, and MLflow is missing or no registry is named; or ONNX Runtime does
            not have an execution provider.
        ModelError: A file is missing or malformed, or model, labels, features and sample do not fit one another.
        RegistryError: The registry does not hand it over.
    """
    labels = () if source.label_filepath is None else load_labels(source.label_filepath)
    if isinstance(source, RegisteredModel):
        version = resolve(source)
        with downloaded(version) as path:
            model = _load(version, path, labels, items, inference)
    else:
        model = _load(source, source.model_filepath, labels, items, inference)
    if source.sample_data_path is not None:
        shown_as = f"the sample in {relative_to_root(source.sample_data_path)}"
        check_sample(model, _load_sample(source.sample_data_path), shown_as, every=True)
    return model


def _load(
    source: ModelSource, path: Path, labels: tuple[str, ...], items: ItemFormat, inference: InferenceSettings
) -> OnnxModel:
    registered = isinstance(source, RegisteredModel)
    name, weights_folder = (str(source), path.parent) if registered else (path.name, None)
    model_bytes = read_file(path, "model", "MODEL_FILEPATH")
    if source.sha256 is not None and not registered:
        check_version(source, version_of(model_bytes, None))
    place = name if registered else str(relative_to_root(path))
    # One batch at a time has the threads of ONNX Runtime; several share the cores.
    threads = None if inference.threads == 1 else max(1, cores() // inference.threads)
    session = open_session(model_bytes, place, weights_folder, inference.providers_here, threads)
    # ONNX Runtime has checked the names of the files with weights.
    version = version_of(model_bytes, weights_folder)
    check_version(source, version)
    weights = {}
    if inference.ray_address is not None and weights_folder is not None:
        weights = {location: (weights_folder / location).read_bytes() for location in weight_files(model_bytes)}
    content = ModelContent(name, model_bytes, weights, labels, items)
    model = _fitted(session, version, content, weights_folder)
    model.content = None if inference.ray_address is None else content
    return model


def open_content(content: ModelContent, providers: Sequence[str], threads: int) -> OnnxModel:
    """Opens a model that another process has loaded and checked.

    Args:
        content: What it is made of.
        providers: The execution providers of ONNX Runtime, in order of preference.
        threads: So many threads score one batch.

    Raises:
        SettingsError: An execution provider is not there, or cannot be used.
        ModelError: ONNX Runtime cannot load it here.
    """
    with tempfile.TemporaryDirectory(prefix="batch_assets_model_") as name:
        folder = Path(name) if content.weights else None
        for location, weights in content.weights.items():
            file = Path(name) / location
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(weights)
        session = open_session(content.model_bytes, content.name, folder, providers, threads)
        return _fitted(session, version_of(content.model_bytes, folder), content, folder)


def _fitted(session: "InferenceSession", version: str, content: ModelContent, weights_folder: Path | None) -> OnnxModel:
    """Returns a model whose inputs and outputs fit the items."""
    name, items = content.name, content.items
    inputs = find_inputs(session, name, items)
    classes = _classes(content.labels, items, content.model_bytes, weights_folder)
    read = find_outputs(session, name, items.outputs, classes)
    return OnnxModel(session, version, name, items, inputs, read)


def labels_of(source: ModelSource, items: ItemFormat, scored_with: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the labels by which predictions are counted; none where nothing that is written has a label.

    Args:
        source: The model.
        items: What is written once an item is scored.
        scored_with: The labels of the model that scored the items: a registry may name another one by now.

    Raises:
        ModelError: A file is missing or malformed.
    """
    if items.labelled_output is None:
        return ()
    # A model that was put in force is not to name the answers of the one before it.
    if scored_with and source.sha256 is not None:
        return tuple(scored_with)
    if source.label_filepath is not None:
        return load_labels(source.label_filepath)
    if isinstance(source, RegisteredModel):
        return tuple(scored_with)
    return tuple(map(str, classes_of(read_file(source.model_filepath, "model", "MODEL_FILEPATH"), None)))


def _classes(labels: tuple[str, ...], items: ItemFormat, model_bytes: bytes, weights_folder: Path | None) -> Classes:
    """Returns the classes, also as the graph has them where the labels alone do not do."""
    forms = {output.form for output in items.outputs}
    if forms == {"value"} or (labels and forms == {"probabilities"}):
        return Classes(labels)
    keys = classes_of(model_bytes, weights_folder)
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


def _load_json(path: Path, what: str, variable: str, example: str) -> Any:
    try:
        return json.loads(read_file(path, what, variable), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"The {what} file {relative_to_root(path)} cannot be used: {error}. It must be JSON such as {example}."
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    most_common = Counter(name for name, _ in pairs).most_common(1)
    if most_common and most_common[0][1] > 1:
        raise ValueError(f"it has the key {shown(most_common[0][0])} twice")
    return dict(pairs)
