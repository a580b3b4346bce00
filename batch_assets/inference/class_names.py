"""How a model itself calls its classes, read from its graph: no output of it says so before it has scored an item."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import GraphProto

# What comes between the classes and an output.
_PASSING_ON = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_CLASS_ATTRIBUTES = {"classlabels_strings", "classlabels_int64s", "classlabels_ints"}


def classes_of(model_bytes: bytes, weights_folder: Path | None) -> tuple[int, ...] | tuple[str, ...]:
    """Returns the classes of a classifier in the order of its probabilities; none where its graph does not say.

    skl2onnx writes them to the node that classifies or makes a ZipMap, or to the list from which the label is taken.

    Args:
        model_bytes: The ONNX file.
        weights_folder: Where it may keep a long list of classes; None for a model that holds it itself.
    """
    import onnx  # noqa: PLC0415 - heavy: only models whose classes no file names pay for it
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above

    try:
        graph = onnx.load_model_from_string(model_bytes).graph
    except DecodeError:
        return ()
    found = (_classes_before(graph, output.name, str(weights_folder or __file__)) for output in graph.output)
    return next(filter(None, found), ())


def _classes_before(graph: "GraphProto", name: str, folder: str) -> tuple[Any, ...]:
    from onnx import helper, numpy_helper  # noqa: PLC0415 - as above

    nodes = {output: node for node in graph.node for output in node.output}
    while (node := nodes.get(name)) is not None:
        for attribute in node.attribute:
            if attribute.name in _CLASS_ATTRIBUTES and len(values := helper.get_attribute_value(attribute)):
                return tuple(value.decode() if isinstance(value, bytes) else value for value in values)
        name = node.input[0] if node.input else ""
        if node.op_type == "ArrayFeatureExtractor":
            arrays = [numpy_helper.to_array(array, folder) for array in graph.initializer if array.name == name]
            return tuple(_plain(value) for array in arrays for value in array.ravel().tolist())
        if node.op_type not in _PASSING_ON:
            break
    return ()


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
