"""The version of a model: a checksum of all that it is made of."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto

_PART = 1 << 20


def version_of(model_bytes: bytes, weights_folder: Path | None) -> str:
    """Returns the SHA-256 of a model in hexadecimal: of its file, and then of the files that it keeps weights in.

    Args:
        model_bytes: The ONNX file.
        weights_folder: Where these files are, whose names ONNX Runtime has checked. None: it may have none.
    """
    digest = hashlib.sha256(model_bytes)
    if weights_folder is not None:
        for location in sorted(_weight_files(model_bytes)):
            with (weights_folder / location).open("rb") as file:
                while part := file.read(_PART):
                    digest.update(part)
    return digest.hexdigest()


def _weight_files(model_bytes: bytes) -> set[str]:
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
