"""What a model takes: one matrix of numbers, or an input for each feature."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.errors import ModelError
from batch_assets.inference.item_format import shown
from batch_assets.settings.items import Feature, ItemFormat
from batch_assets.wording import counted

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

MATRIX_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
}
FEATURE_TYPES: dict[str, np.dtype[Any]] = {
    **MATRIX_TYPES,
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(np.object_),
}
FEATURE_NAMES = "feature_names"


@dataclass(frozen=True)
class ModelInputs:
    """What a model takes.

    Args:
        features: The features that are declared, or that the model names; empty for lists of numbers.
        dtype: The type of the matrix, or records with a field for each feature.
        width: How many values an item has; None while nothing has said so.
        shapes: The inputs by name, and the shape that a feature has in each; none for a matrix.
    """

    features: tuple[Feature, ...]
    dtype: np.dtype[Any]
    width: int | None
    shapes: dict[str, tuple[int, ...]]

    def dtype_of(self, feature: Feature) -> np.dtype[Any]:
        """Returns the type that the model takes a feature as."""
        return self.dtype[feature.name] if self.dtype.names else self.dtype

    def feed(self, features: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Returns what each input gets of a batch."""
        if self.dtype.names is None:
            return dict.fromkeys(self.shapes, features)
        return {name: np.ascontiguousarray(features[name]).reshape(shape) for name, shape in self.shapes.items()}


def find_inputs(session: "InferenceSession", model: str, items: ItemFormat) -> ModelInputs:
    """Returns how the model takes items.

    Args:
        session: The model.
        model: What it is called in messages.
        items: What an item holds.

    Raises:
        ModelError: The inputs do not fit the features, or cannot be used.
    """
    inputs = session.get_inputs()
    features = items.features
    if not features and items.by_name:
        features = _features_of_model(session, model)
    one_by_one = features and not _takes_matrix(inputs, features)
    found = (_by_feature if one_by_one else _matrix)(inputs, model, features)
    _check_nullable(found, model)
    return found


def _takes_matrix(inputs: Sequence["NodeArg"], features: tuple[Feature, ...]) -> bool:
    """Whether a model takes its features as one matrix, and not each by an input of its name."""
    if len(inputs) != 1 or inputs[0].type not in MATRIX_TYPES:
        return False
    return [feature.name for feature in features] != [inputs[0].name]


def _features_of_model(session: "InferenceSession", model: str) -> tuple[Feature, ...]:
    text = session.get_modelmeta().custom_metadata_map.get(FEATURE_NAMES)
    inputs = session.get_inputs()
    if text is not None:
        names = _names(text)
        if names is None:
            raise ModelError(
                f"The metadata {FEATURE_NAMES} of the model {model} is not a JSON list of names, each of them "
                f"once: {shown(text)}. Export it so, or declare the features."
            )
        return tuple(map(Feature, names))
    if len(inputs) == 1 and static_size(inputs[0].shape, 1) != 1 and len(inputs[0].shape) != 1:
        raise ModelError(
            f"The model {model} does not say what its features are called, by which items name their values: "
            f"declare the features in the order of the model, or write them to its metadata {FEATURE_NAMES} as a JSON "
            "list."
        )
    return tuple(Feature(each.name) for each in inputs)


def _names(text: str) -> list[str] | None:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        return None
    return names if len(set(names)) == len(names) else None


def _matrix(inputs: Sequence["NodeArg"], model: str, features: tuple[Feature, ...]) -> ModelInputs:
    if len(inputs) != 1:
        names = ", ".join(f"{each.name} ({each.type})" for each in inputs) or "none"
        raise ModelError(
            f"The model {model} has {len(inputs)} inputs, not one: {names}. Export it with one input "
            "of the shape [None, number of values], or declare the features that these inputs take."
        )
    (only,) = inputs
    # ONNX Runtime shows an unknown rank as an empty shape.
    if only.type not in MATRIX_TYPES or len(only.shape) not in {0, 2}:
        raise ModelError(
            f"The input {only.name} of the model {model} is {only.type} of shape {only.shape}: it must "
            "be a float32, float64 or int64 tensor of shape [None, number of values]. Export it so."
        )
    _check_batch(only, model)
    width = static_size(only.shape, 1)
    if features and width not in {None, len(features)}:
        raise ModelError(
            f"The model {model} takes {counted(width or 0, 'value')} an item, not the "
            f"{counted(len(features), 'feature')} {_listed(feature.name for feature in features)}. Declare the "
            "features that it was trained on, in their order."
        )
    return ModelInputs(features, MATRIX_TYPES[only.type], len(features) or width, {only.name: ()})


def _by_feature(inputs: Sequence["NodeArg"], model: str, features: tuple[Feature, ...]) -> ModelInputs:
    names, taken = [feature.name for feature in features], {each.name: each for each in inputs}
    faults = []
    if without_input := [name for name in names if name not in taken]:
        faults.append(f"no input takes the {_plural('feature', without_input)}")
    if without_feature := [name for name in taken if name not in names]:
        faults.append(f"no feature has the name of the {_plural('input', without_feature)}")
    if faults:
        raise ModelError(
            f"The model {model} does not fit the features: {'; '.join(faults)}. Declare the features by the names "
            "of the inputs."
        )
    for each in inputs:
        _check_batch(each, model)
        if each.type not in FEATURE_TYPES or len(each.shape) > 2 or static_size(each.shape, 1) not in {None, 1}:
            raise ModelError(
                f"The input {each.name} of the model {model} is {each.type} of shape {each.shape}: for a feature "
                "it must be a float32, float64, int64, bool or string tensor of shape [None] or [None, 1]. Export it "
                "so."
            )
    dtype = np.dtype([(name, FEATURE_TYPES[taken[name].type]) for name in names])
    shapes: dict[str, tuple[int, ...]] = {
        name: (-1,) if len(each.shape) == 1 else (-1, 1) for name, each in taken.items()
    }
    return ModelInputs(features, dtype, len(features), shapes)


def _check_batch(each: "NodeArg", model: str) -> None:
    batch = static_size(each.shape, 0)
    if batch is not None:
        raise ModelError(
            f"The input {each.name} of the model {model} takes batches of exactly "
            f"{counted(batch, 'item')}. Export it with a dynamic first dimension: "
            "FloatTensorType([None, width]) in skl2onnx, dynamic_axes or dynamic_shapes in PyTorch."
        )


def _check_nullable(inputs: ModelInputs, model: str) -> None:
    for feature in inputs.features:
        dtype = inputs.dtype_of(feature)
        if feature.nullable and dtype.kind != "f":
            raise ModelError(
                f"The feature {feature.name} is declared nullable, and the model {model} takes it as "
                f"{type_name(dtype)}, which "
                "has nothing that stands for null: declare it without, or train the model on a float or on a value of "
                "your own for what is missing."
            )


def type_name(dtype: np.dtype[Any]) -> str:
    """Returns what people call the type of a feature."""
    return "string" if dtype.kind == "O" else dtype.name


def static_size(shape: Sequence[int | str | None], axis: int) -> int | None:
    """Returns the size of a dimension, None when the model leaves it open."""
    size = shape[axis] if len(shape) > axis else None
    return size if isinstance(size, int) else None


def _plural(what: str, names: list[str]) -> str:
    return f"{what if len(names) == 1 else f'{what}s'} {_listed(names)}"


def _listed(names: Iterable[str]) -> str:
    return shown(", ".join(names))
