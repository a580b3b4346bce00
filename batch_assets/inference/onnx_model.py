"""The ONNX model of a run: what it takes and answers, and how it scores a batch."""

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.errors import ModelError, ModelRunError
from batch_assets.inference.item_format import shown
from batch_assets.settings.folders import relative_to_root
from batch_assets.wording import counted

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

INPUT_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
}
TABLE_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
}
ZIPMAP_TYPES = {"seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))"}
PROBABILITY_NAMES = ("probabilities", "output_probability")


class OnnxModel:
    """A classifier that fits its labels. Made by `load_model` in `model_files.py`.

    Attributes:
        version: SHA-256 of the model file's bytes, in hexadecimal.
        width: How many numbers the model takes an item; None while nothing has said so.
        dtype: The type of its input: float32, float64 or int64.
        labels: The names of the classes, in the order of the columns of `probabilities`.
        output_name: The output of the graph that has the probabilities.
        model_filepath: The ONNX file.
    """

    def __init__(self, session: "InferenceSession", version: str, labels: tuple[str, ...], path: Path) -> None:
        self.version = version
        self.labels = labels
        self.model_filepath = path
        self._session = session
        model_input = _find_input(session, path)
        self._input_name = model_input.name
        self.dtype = INPUT_TYPES[model_input.type]
        self.width = _static(model_input.shape, 1)
        output = _find_probabilities(session, path)
        self.output_name = output.name
        self._output_dtype = TABLE_TYPES.get(output.type, np.dtype(np.float32))
        classes = _static(output.shape, 1)
        if classes is not None and classes != len(labels):
            raise ModelError(
                f"The model {path.name} has {classes} classes, the labels name {len(labels)}: "
                f"{', '.join(labels)}. Point LABEL_FILEPATH at the labels that belong to this model."
            )

    def probabilities(self, features: NDArray[Any]) -> NDArray[Any]:
        """Scores a batch.

        Args:
            features: Array (n, width) of the model's type; n may be 0.

        Returns:
            Array (n, number of labels), columns in the order of `labels`, in the model's own float type. The
            numbers are the model's: whether they are probabilities is looked at for a sample only.

        Raises:
            ModelRunError: The model failed on this batch.
            ModelError: It cannot be run at all, or returned something other than a row per item.
        """
        if len(features) == 0:
            return np.empty((0, len(self.labels)), self._output_dtype)
        try:
            (output,) = self._session.run([self.output_name], {self._input_name: features})
        except _run_errors() as error:
            reason = _one_line(error)
            raise ModelRunError(
                f"The model {self.model_filepath.name} fails on {counted(len(features), 'item')}: "
                f"{reason}. Look at these items, or use another model (MODEL_FILEPATH).",
                reason,
            ) from None
        except _onnxruntime_errors() as error:
            raise ModelError(
                f"The model {self.model_filepath.name} cannot be run: {_one_line(error)}. Use another model "
                "(MODEL_FILEPATH)."
            ) from None
        table = self._table(output) if isinstance(output, list) else np.asarray(output)
        expected = (len(features), len(self.labels))
        if table.shape != expected:
            raise ModelError(
                f"The model {self.model_filepath.name} returns an array of shape {table.shape} for "
                f"{counted(len(features), 'item')} and {counted(len(self.labels), 'label')}, not {expected}. "
                "Export it with a dynamic first dimension, and point LABEL_FILEPATH at its own labels."
            )
        return table

    def _table(self, rows: list[dict[Any, float]]) -> NDArray[Any]:
        """Turns the output of a ZipMap, a dictionary per item, into columns in label order."""
        keys = set(rows[0]) if rows else set()
        if keys == set(range(len(self.labels))):
            columns: list[Any] = list(range(len(self.labels)))
        elif keys == set(self.labels):
            columns = list(self.labels)
        else:
            raise ModelError(
                f"The model {self.model_filepath.name} names its classes {shown(repr(sorted(keys)))}, the "
                f"labels are {shown(repr(list(self.labels)))}: they must be the same names, or the numbers 0 "
                f"to {len(self.labels) - 1}. Point LABEL_FILEPATH at the labels that belong to this model."
            )
        if len(columns) == 1:
            return np.array([[row[columns[0]]] for row in rows], self._output_dtype)
        return np.array(list(map(itemgetter(*columns), rows)), self._output_dtype)


def open_session(model_bytes: bytes, path: Path) -> "InferenceSession":
    """Loads a model into ONNX Runtime.

    Args:
        model_bytes: The ONNX file.
        path: Where it was read, for messages.

    Raises:
        ModelError: It is no ONNX model, or one that ONNX Runtime cannot load.
    """
    import onnxruntime  # noqa: PLC0415 - heavy: only who scores pays for it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # only fatal: what goes wrong comes as an exception
    # Its threads would burn what the server could use, while batches are read and written.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights that a model keeps in other files would be read from the working folder: any file of it, say one with a
    # password, would be scored. Beneath a file there is none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path))
    try:
        return onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
    except _onnxruntime_errors() as error:
        raise ModelError(
            f"The model file {relative_to_root(path)} ({len(model_bytes)} bytes) is not an ONNX model that ONNX "
            f"Runtime can load: {_one_line(error)}. It may be truncated or of another format: export it "
            "again, or point MODEL_FILEPATH at another file."
        ) from None


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Returns what ONNX Runtime raises: its exceptions have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415 - as above

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


def _run_errors() -> tuple[type[Exception], ...]:
    """Returns what ONNX Runtime raises where a node fails on what it is given.

    Memory that does not suffice is among it, where fewer items may do or one item asks for too much. All else says
    that the model does not load, is not known or does not take such an input, whatever the items are.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415 - as above

    return (state.Fail, state.InvalidArgument, state.RuntimeException)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).removeprefix("[ONNXRuntimeError] : ")
    return (text if len(text) <= 300 else f"{text[:297]}...").rstrip(".")


def _static(shape: Sequence[int | str | None], axis: int) -> int | None:
    """Returns the size of a dimension, None when the model leaves it open."""
    size = shape[axis] if len(shape) > axis else None
    return size if isinstance(size, int) else None


def _find_input(session: "InferenceSession", path: Path) -> "NodeArg":
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(f"{each.name} ({each.type})" for each in inputs) or "none"
        raise ModelError(
            f"The model {path.name} has {len(inputs)} inputs, not one: {names}. Export it with one input "
            "of the shape [None, number of values]."
        )
    (only,) = inputs
    # ONNX Runtime shows an unknown rank as an empty shape.
    if only.type not in INPUT_TYPES or len(only.shape) not in {0, 2}:
        raise ModelError(
            f"The input {only.name} of the model {path.name} is {only.type} of shape {only.shape}: it must "
            "be a float32, float64 or int64 tensor of shape [None, number of values]. Export it so."
        )
    batch = _static(only.shape, 0)
    if batch is not None:
        raise ModelError(
            f"The input {only.name} of the model {path.name} takes batches of exactly "
            f"{counted(batch, 'item')}. Export it with a dynamic first dimension: "
            "FloatTensorType([None, width]) in skl2onnx, dynamic_axes or dynamic_shapes in PyTorch."
        )
    return only


def _find_probabilities(session: "InferenceSession", path: Path) -> "NodeArg":
    outputs = session.get_outputs()
    found = [
        each
        for each in outputs
        if each.type in ZIPMAP_TYPES or (each.type in TABLE_TYPES and len(each.shape) in {0, 2})
    ]
    named = [each for each in found if each.name in PROBABILITY_NAMES]
    if len(found) == 1 or len(named) == 1:
        return (named or found)[0]
    if found:
        problem = "several outputs that could be the class probabilities"
    else:
        problem = "no output that could be the class probabilities"
    described = ", ".join(f"{each.name} ({each.type} {each.shape})" for each in found or outputs)
    raise ModelError(
        f"The model {path.name} has {problem}: {described}. Export it with one output 'probabilities', a "
        "float tensor of shape [None, number of classes] or a ZipMap."
    )
