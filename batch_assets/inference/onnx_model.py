"""The ONNX model of a run: what it takes and answers, and how it scores a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from batch_assets.errors import ModelError, ModelRunError, SettingsError
from batch_assets.inference.feature_format import FeatureReader
from batch_assets.inference.item_format import CheckedValues, check_items, check_values
from batch_assets.inference.model_content import ModelContent
from batch_assets.inference.model_inputs import ModelInputs
from batch_assets.inference.model_outputs import Answers, ModelOutputs
from batch_assets.packed_lists import Values
from batch_assets.settings.items import ItemFormat
from batch_assets.wording import counted

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class OnnxModel:
    """A model that fits its items, and its labels where it has some. Made by `load_model` in `model_files.py`.

    Attributes:
        version: SHA-256 of the model file's bytes, in hexadecimal, and of its weights where these are other files.
        name: What it is called: the name of its file, or its version in a registry, as `models:/churn/3`.
        width: How many values the model takes an item; None while nothing has said so.
        inputs: What it takes, as its file says it.
        dtype: The type of its input, float32, float64 or int64; or records with a field for each feature.
        outputs: The columns that are written, and how.
        read: The outputs of the graph that these are made of.
        content: What it is made of, where another process is to open it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what was found in its files
        self,
        session: "InferenceSession",
        version: str,
        name: str,
        items: ItemFormat,
        inputs: ModelInputs,
        read: ModelOutputs,
    ) -> None:
        self.version = version
        self.name = name
        self.width = inputs.width
        self.dtype = inputs.dtype
        self.outputs = items.outputs
        self.read = read
        self.content: ModelContent | None = None
        self._session = session
        self.inputs = inputs
        self._features = FeatureReader(inputs.features, items.by_name, inputs.dtype) if inputs.features else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of `probabilities`; empty where there are none."""
        return self.read.classes.labels

    def check(self, texts: Sequence[Values], width: int) -> CheckedValues:
        """Turns the values of items into rows for the model, and says what is wrong with the rest.

        Args:
            texts: The values as the database returns them.
            width: How many values an item has.
        """
        if self._features is not None:
            return check_items(texts, self._features)
        return check_values(texts, width, self.dtype)

    def answers(self, features: NDArray[Any]) -> Answers:
        """Scores a batch.

        Args:
            features: Rows as `check` returns them; there may be none.

        Returns:
            For each output that is read a row for each item.

        Raises:
            ModelRunError: The model failed on this batch.
            ModelError: It cannot be run at all, or returned something other than a row per item.
        """
        names = list(self.read.types)
        if names == [self.read.probabilities]:
            return {names[0]: self.probabilities(features)}
        return self._rows(names, features)

    def probabilities(self, features: NDArray[Any]) -> NDArray[Any]:
        """Scores a batch by a classifier.

        Args:
            features: Array (n, width) of the model's type; n may be 0.

        Returns:
            Array (n, number of labels), columns in the order of `labels`, in the model's own float type. The
            numbers are the model's: whether they are probabilities is looked at for a sample only.

        Raises:
            ModelRunError: The model failed on this batch.
            ModelError: It cannot be run at all, or returned something other than a row per item.
        """
        name = str(self.read.probabilities)
        return self._rows([name], features)[name]

    def _rows(self, names: list[str], features: NDArray[Any]) -> dict[str, NDArray[Any]]:
        if len(features) == 0:
            return {name: self.read.no_rows(name) for name in names}
        try:
            outputs = self._session.run(names, self.inputs.feed(features))
        except _run_errors() as error:
            reason = _one_line(error)
            raise ModelRunError(
                f"The model {self.name} fails on {counted(len(features), 'item')}: "
                f"{reason}. Look at these items, or use another model (MODEL_FILEPATH).",
                reason,
            ) from None
        except _onnxruntime_errors() as error:
            raise ModelError(
                f"The model {self.name} cannot be run: {_one_line(error)}. Use another model (MODEL_FILEPATH)."
            ) from None
        return {name: self.read.rows(name, output, len(features)) for name, output in zip(names, outputs, strict=True)}


def import_runtime() -> None:
    """Imports ONNX Runtime, for which who then opens a session need not wait."""
    import onnxruntime  # noqa: F401, PLC0415 - heavy: only who scores pays for it


def open_session(
    model_bytes: bytes, place: str, weights_folder: Path | None, providers: Sequence[str], threads: int | None
) -> "InferenceSession":
    """Loads a model into ONNX Runtime.

    Args:
        model_bytes: The ONNX file.
        place: Where it was read, for messages.
        weights_folder: The folder whose files it may take its weights from. None: it must hold them itself.
        providers: The execution providers, in order of preference.
        threads: So many threads score one batch; None for one on each core.

    Raises:
        SettingsError: An execution provider is not there, or cannot be used.
        ModelError: It is no ONNX model, or one that ONNX Runtime cannot load.
    """
    import onnxruntime  # noqa: PLC0415 - heavy: only who scores pays for it

    missing = [provider for provider in providers if provider not in onnxruntime.get_available_providers()]
    if missing:
        raise SettingsError(
            f"BATCH_ONNX_PROVIDERS names {missing[0]}, which this ONNX Runtime ({onnxruntime.__version__}) does not "
            f"have: it has {', '.join(onnxruntime.get_available_providers())}. Leave it out, or install the package "
            "that has it in the place of onnxruntime: onnxruntime-gpu for CUDAExecutionProvider."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # only fatal: what goes wrong comes as an exception
    if threads is not None:
        options.intra_op_num_threads = threads
    # Its threads would burn what the server could use, while batches are read and written.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights that a model keeps in other files would be read from the working folder: any file of it, say one with a
    # password, would be scored. Beneath a file there is none.
    folder = str(weights_folder or __file__)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        session = onnxruntime.InferenceSession(model_bytes, options, providers=list(providers))
    except _onnxruntime_errors() as error:
        raise ModelError(
            f"The model file {place} ({len(model_bytes)} bytes) is not an ONNX model that ONNX "
            f"Runtime can load: {_one_line(error)}. It may be truncated or of another format: export it "
            "again, or point MODEL_FILEPATH at another file."
        ) from None
    # Where one cannot be started, ONNX Runtime goes on with the next one and says nothing.
    unused = [provider for provider in providers if provider not in session.get_providers()]
    if unused:
        raise SettingsError(
            f"BATCH_ONNX_PROVIDERS names {unused[0]}, which ONNX Runtime has and could not start: the model would be "
            f"scored by {', '.join(session.get_providers())}. Look at the driver and the libraries of the device, or "
            "leave it out."
        )
    return session


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
