"""The version of a model: a checksum of all that it is made of. Commands that only compare need no NumPy for it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from batch_assets.errors import ModelError
from batch_assets.inference.model_registry import resolve
from batch_assets.settings.folders import relative_to_root
from batch_assets.settings.model import ModelSource, RegisteredModel

if TYPE_CHECKING:
    from onnx import GraphProto

_PART = 1 << 20


def version_in_force(source: ModelSource) -> str:
    """Returns the version that a run would score with now: SHA-256 of the file, or of a registry `models:/churn/3`.

    Raises:
        SettingsError: The model is in a registry, and MLflow is missing or no registry is named.
        ModelError: The file is missing or not the one that was promoted, or the registry has no such model.
        RegistryError: The registry does not answer.
    """
    if isinstance(source, RegisteredModel):
        return str(resolve(source))
    version = version_of(read_file(source.model_filepath, "model", "MODEL_FILEPATH"), None)
    check_version(source, version)
    return version


def check_version(source: ModelSource, version: str) -> None:
    """Refuses a model that was promoted and is another one by now.

    Args:
        source: Where it is, and which version it must be.
        version: Which one it is, in SHA-256.

    Raises:
        ModelError: It must be another one.
    """
    if source.sha256 not in (None, version):
        file = None if isinstance(source, RegisteredModel) else source.model_filepath
        name = f"file {relative_to_root(file)}" if file else source
        raise ModelError(
            f"The model {name} is not the one that was put in force: its SHA-256 is {version}, and was "
            f"{source.sha256}. Nothing is scored with it. Put the one that it was back, promote this one "
            "(batch-assets promote), or take the promotion back (batch-assets rollback)."
        )


def read_file(path: Path, what: str, variable: str) -> bytes:
    """Reads a file of a model.

    Args:
        path: The file.
        what: What it is called in errors.
        variable: The variable that names it.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"Cannot read the {what} file {relative_to_root(path)}: {error.strerror}. Point {variable} at the file, "
            "or materialise the asset iris_model, which writes the files of the iris model."
        ) from None


def version_of(model_bytes: bytes, weights_folder: Path | None) -> str:
    """Returns the SHA-256 of a model in hexadecimal: of its file, and then of the files that it keeps weights in.

    Args:
        model_bytes: The ONNX file.
        weights_folder: Where these files are, whose names ONNX Runtime has checked. None: it may have none.
    """
    digest = hashlib.sha256(model_bytes)
    if weights_folder is not None:
        for location in sorted(weight_files(model_bytes)):
            with (weights_folder / location).open("rb") as file:
                while part := file.read(_PART):
                    digest.update(part)
    return digest.hexdigest()


def weight_files(model_bytes: bytes) -> set[str]:
    """Returns the names of the files that a model keeps weights in."""
    import onnx  # noqa: PLC0415 - heavy: only models of a registry pay for it

    return {
        entry.value
        for graph in _graphs(onnx.load_model_from_string(model_bytes).graph)
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _graphs(graph: "GraphProto") -> Iterator["GraphProto"]:
    """Yields a graph, and those of its branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for branch in (attribute.g, *attribute.graphs):
                yield from _graphs(branch)
