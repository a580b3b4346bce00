"""The ONNX model of a run: read once, checked against its labels and a sample, then scoring batches.

Whatever does not fit ends in a `ModelError` before anything is written to the database.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.errors import ModelError, ModelRunError
from batch_assets.inference.item_format import LONGEST_TEXT, check_values, counted, shown
from batch_assets.settings.folders import model_folder, root_folder

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
SUM_TOLERANCE = 1e-3

# Faults that a whole sample has when items and model belong to different worlds.
MISFIT_CODES = {"wrong_length", "not_an_integer"}
MISFIT_ADVICE = "Use a model that was trained on such items (MODEL_FILEPATH), or fix the items."


@dataclass(frozen=True)
class ModelFiles:
    """Where the model lies.

    Attributes:
        model_filepath: The ONNX file.
        label_filepath: JSON object of class index to label: `{"0": "setosa", ...}`.
        sample_data_path: JSON list of the values of a few items that the model must be able to score. None:
            the first items of an hour serve as the sample.
    """

    model_filepath: Path
    label_filepath: Path
    sample_data_path: Path | None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Reads MODEL_FILEPATH, LABEL_FILEPATH and SAMPLE_DATA_PATH; unset or empty means the iris model.

        The sample of the iris model says nothing about another model: with a MODEL_FILEPATH of one's own and
        no SAMPLE_DATA_PATH there is no sample.
        """
        folder = model_folder(environ)
        model = Path(environ.get("MODEL_FILEPATH") or folder / "iris_svc.onnx")
        label = Path(environ.get("LABEL_FILEPATH") or folder / "label.json")
        sample: Path | None = folder / "sample.json"
        if environ.get("SAMPLE_DATA_PATH"):
            sample = Path(environ["SAMPLE_DATA_PATH"])
        elif model.resolve() != (folder / "iris_svc.onnx").resolve():
            sample = None
        return cls(model, label, sample)


class OnnxModel:
    """A classifier that fits its labels. Made by `load_model`.

    Attributes:
        version: SHA-256 of the model file's bytes, in hexadecimal.
        width: How many numbers the model takes an item; None while nothing has said so.
        dtype: The type of its input: float32, float64 or int64.
        labels: The names of the classes, in the order of the columns of `probabilities`.
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
        self._output_name = output.name
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
            (output,) = self._session.run([self._output_name], {self._input_name: features})
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


def load_model(files: ModelFiles) -> OnnxModel:
    """Reads the model and its labels, and score the sample where there is one.

    Raises:
        ModelError: A file is missing or malformed, or model, labels and sample do not fit one another.
    """
    model_bytes = _read(files.model_filepath, "model", "MODEL_FILEPATH")
    labels = load_labels(files.label_filepath)
    session = _open_session(model_bytes, files.model_filepath)
    version = hashlib.sha256(model_bytes).hexdigest()
    model = OnnxModel(session, version, labels, files.model_filepath)
    if files.sample_data_path is not None:
        source = f"the sample in {_relative(files.sample_data_path)}"
        check_sample(model, _load_sample(files.sample_data_path), source, every=True)
    return model


def check_sample(
    model: OnnxModel, rows_as_json_texts: Sequence[str | None], source: str, *, every: bool = False
) -> int:
    """Scores a few items to see whether the model fits them, before anything is written.

    The model's `width`, when its file leaves it open, becomes the length of the first list of numbers among
    the texts. Bad items among the texts are ignored unless `every` is set; but when no item fits and one has
    the wrong length, or fractions where the model takes integers, then the model is the wrong one.

    Args:
        model: The model; its `width` may be set.
        rows_as_json_texts: The values of a few items as JSON texts.
        source: What the items are, for messages: `the items of the hour`.
        every: Whether every item must fit and score, as in a sample file, or one is enough.

    Returns:
        How many of the items fit the model. With 0 nothing is known about the model.

    Raises:
        ModelError: Model and items do not fit, the model fails, or its output is not class probabilities.
    """
    width = model.width or _first_length(rows_as_json_texts)
    if width is None:
        if every:
            raise ModelError(_misfit(model, source, "no item in it is a list of numbers"))
        return 0
    checked = check_values(rows_as_json_texts, width, model.dtype)
    faults = checked.bad if every else [bad for bad in checked.bad if bad.code in MISFIT_CODES]
    if faults and (every or not len(checked.positions)):
        _raise_misfit(model, source, width, rows_as_json_texts[faults[0].index], faults[0].message)
    if len(checked.positions):
        _check_scores(model, checked.features, source, every=every)
        model.width = width
    return len(checked.positions)


def _raise_misfit(model: OnnxModel, source: str, width: int, text: str | None, message: str) -> None:
    length = _first_length([text])
    if length is not None and length != width:
        raise ModelError(
            f"The model {model.model_filepath.name} takes {counted(width, 'value')} an item, not {length} as "
            f"in {source}: {shown(text or '')}. {MISFIT_ADVICE}"
        )
    raise ModelError(_misfit(model, source, f"{message}: {shown(text or 'NULL')}"))


def _misfit(model: OnnxModel, source: str, reason: str) -> str:
    return f"The model {model.model_filepath.name} does not fit {source}: {reason}. {MISFIT_ADVICE}"


def _check_scores(model: OnnxModel, features: NDArray[Any], source: str, *, every: bool) -> None:
    """Raises unless the items score together; or, without `every`, when only some items are to blame."""
    if len(features) == 1:
        features = np.repeat(features, 2, axis=0)  # a model that mixes up the rows of a batch shows with two
    try:
        _check_probabilities(model, features, source)
    except ModelError:
        alone = [_scores(model, features[index : index + 1], source) for index in range(len(features))]
        if every or all(alone) or not any(alone):
            raise


def _scores(model: OnnxModel, features: NDArray[Any], source: str) -> bool:
    try:
        _check_probabilities(model, features, source)
    except ModelError:
        return False
    return True


def _check_probabilities(model: OnnxModel, features: NDArray[Any], source: str) -> None:
    table = model.probabilities(features)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        sums_to_one = np.abs(table.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE
    proper = sums_to_one & ((table >= 0) & (table <= 1)).all(axis=1)
    if not proper.all():
        row = int(np.argmin(proper))
        raise ModelError(
            f"The output {model._output_name} of the model {model.model_filepath.name} is not class "
            f"probabilities: for {shown(str(features[row].tolist()))} from {source} it is "
            f"{shown(str(table[row].tolist()))}. Numbers from 0 to 1 with the sum 1 are needed: export the "
            "model with its probabilities, not with scores or decision values."
        )


def _first_length(texts: Sequence[str | None]) -> int | None:
    """Returns the length of the first text that is a list of numbers."""
    for text in texts:
        if text is None or len(text) > LONGEST_TEXT:
            continue
        try:
            value = orjson.loads(text)
        except ValueError:
            continue
        if type(value) is list and value and set(map(type, value)) <= {int, float}:
            return len(value)
    return None


def _relative(path: Path) -> Path:
    """Shorten a path below the root folder for messages."""
    return path.relative_to(root_folder()) if path.is_relative_to(root_folder()) else path


def _read(path: Path, what: str, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"Cannot read the {what} file {_relative(path)}: {error.strerror}. Point {variable} at the file, "
            "or materialise the asset iris_model, which writes the files of the iris model."
        ) from None


def _load_json(path: Path, what: str, variable: str, example: str) -> Any:
    try:
        return json.loads(_read(path, what, variable), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"The {what} file {_relative(path)} cannot be used: {error}. It must be JSON such as {example}."
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    most_common = Counter(name for name, _ in pairs).most_common(1)
    if most_common and most_common[0][1] > 1:
        raise ValueError(f"it has the key {shown(most_common[0][0])} twice")
    return dict(pairs)


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
    raise ModelError(f"The labels file {_relative(path)} cannot be used: {reason}. It must look like {example}.")


def _load_sample(path: Path) -> list[str]:
    example = "[[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]"
    document = _load_json(path, "sample", "SAMPLE_DATA_PATH", example)
    if not isinstance(document, list) or not document:
        raise ModelError(
            f"The sample file {_relative(path)} is not a list of the values of a few items. "
            f"It must look like {example}."
        )
    return [json.dumps(values) for values in document]


def _open_session(model_bytes: bytes, path: Path) -> "InferenceSession":
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
            f"The model file {_relative(path)} ({len(model_bytes)} bytes) is not an ONNX model that ONNX "
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
