"""What a model answers: which of its outputs are read, and as what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.errors import ModelError
from batch_assets.inference.item_format import shown
from batch_assets.inference.model_inputs import static_size
from batch_assets.settings.items import Form, Output
from batch_assets.wording import counted

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

TABLE_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
}
VALUE_TYPES: dict[str, np.dtype[Any]] = {**TABLE_TYPES, "tensor(int64)": np.dtype(np.int64)}
LABEL_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(string)": np.dtype(np.object_),
}
ZIPMAP_TYPES = {"seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))"}
PROBABILITY_NAMES = ("probabilities", "output_probability")
LABEL_NAMES = ("label", "output_label")
VALUE_NAMES = ("variable",)

# What a form is made of.
_WITH_PROBABILITIES: set[Form] = {"probabilities", "probability", "label_and_probabilities"}
_WITH_LABEL: set[Form] = {"label", "probability", "label_and_probabilities"}

# The rows of each output that is read.
Answers = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Classes:
    """The classes of a classifier, in the order of its probabilities.

    Args:
        labels: What they are called; empty where nothing says so.
        keys: What the model calls them; empty where its graph does not say so.
    """

    labels: tuple[str, ...]
    keys: tuple[int, ...] | tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelOutputs:
    """The outputs of a model that are read.

    Args:
        model: What the model is called in messages.
        classes: The classes, of a classifier.
        types: The type of each output that is read, by name.
        probabilities: The output with the class probabilities.
        label: The output with the winning class.
        value: The output with the number of a regression.
        zipmaps: Those that are a dictionary by class for each item.
    """

    model: str
    classes: Classes
    types: dict[str, np.dtype[Any]]
    probabilities: str | None
    label: str | None
    value: str | None
    zipmaps: frozenset[str]

    def rows(self, name: str, output: Any, items: int) -> NDArray[Any]:
        """Returns what an output says of each item.

        Args:
            name: The output.
            output: What ONNX Runtime returns for it.
            items: How many items it was given.

        Raises:
            ModelError: It is not a row for each item, or not of the classes.
        """
        rows = self._table(name, output) if isinstance(output, list) else np.asarray(output)
        labels = self.classes.labels
        if labels and (name == self.probabilities or name in self.zipmaps):
            if rows.shape != (items, len(labels)):
                raise ModelError(
                    f"The model {self.model} returns an array of shape {rows.shape} for "
                    f"{counted(items, 'item')} and {counted(len(labels), 'label')}, not {(items, len(labels))}. "
                    "Export it with a dynamic first dimension, and point LABEL_FILEPATH at its own labels."
                )
            return rows
        if name != self.probabilities and rows.shape[1:] == (1,):
            rows = rows[:, 0]
        ndim = {self.probabilities: 2, self.label: 1, self.value: 1}.get(name, rows.ndim)
        if rows.shape[:1] != (items,) or rows.ndim != ndim:
            raise ModelError(
                f"The output {name} of the model {self.model} is an array of shape {rows.shape} for "
                f"{counted(items, 'item')}, not one of them for each. Export it with a dynamic first dimension."
            )
        return rows

    def no_rows(self, name: str) -> NDArray[Any]:
        """Returns what an output says of no items."""
        by_class = name == self.probabilities or name in self.zipmaps
        # One column at least: the winner is looked for among them.
        shape = (0, len(self.classes.labels) or 1) if by_class else (0,)
        return np.empty(shape, self.types[name])

    def winners(self, answers: Answers) -> NDArray[np.intp] | None:
        """Returns the index of the class that wins each item; None if the model alone knows their order.

        The model's own label decides where it is known which class it means: it need not be the most probable one.

        Raises:
            ModelError: The label is none of the classes.
        """
        keys = self.classes.keys
        if self.label is not None and keys:
            places = {key: place for place, key in enumerate(keys)}
            return np.array([self._place(places, key) for key in answers[self.label].tolist()], np.intp)
        if self.label is not None and self.types[self.label] == np.object_:
            return None
        if self.probabilities is not None:
            return np.asarray(answers[self.probabilities].argmax(axis=1), np.intp)
        places = {place: place for place in range(len(self.classes.labels))}
        return np.array([self._place(places, key) for key in answers[str(self.label)].tolist()], np.intp)

    def _place(self, places: Mapping[Any, int], key: int | str) -> int:
        if key not in places:
            raise ModelError(
                f"The model {self.model} answers the class {shown(repr(key))}, its classes are "
                f"{shown(repr(list(places)))}. Point LABEL_FILEPATH at the labels that belong to this model."
            )
        return places[key]

    def _table(self, name: str, rows: list[dict[Any, float]]) -> NDArray[Any]:
        """Turns the output of a ZipMap, a dictionary per item, into columns in label order."""
        labels, keys = self.classes.labels, set(rows[0]) if rows else set()
        known: tuple[Sequence[Any], ...] = (self.classes.keys, range(len(labels)), labels)
        columns = next((list(names) for names in known if names and keys == set(names)), None)
        if columns is None:
            raise ModelError(
                f"The model {self.model} names its classes {shown(repr(sorted(keys)))}, the "
                f"labels are {shown(repr(list(labels)))}: they must be the same names, or the numbers 0 "
                f"to {len(labels) - 1}. Point LABEL_FILEPATH at the labels that belong to this model."
            )
        if len(columns) == 1:
            return np.array([[row[columns[0]]] for row in rows], self.types[name])
        return np.array(list(map(itemgetter(*columns), rows)), self.types[name])


def joined(parts: Sequence[Answers]) -> Answers:
    """Puts the answers to parts of a batch together; there may be parts of no items."""
    joined_rows = {}
    for name in parts[0]:
        rows = [part[name] for part in parts]
        joined_rows[name] = np.concatenate([each for each in rows if len(each)] or rows)
    return joined_rows


def find_outputs(session: "InferenceSession", model: str, outputs: Sequence[Output], classes: Classes) -> ModelOutputs:
    """Returns which outputs of a model are read.

    Args:
        session: The model.
        model: What it is called in messages.
        outputs: What is to be written.
        classes: Its classes, as far as they are known.

    Raises:
        ModelError: The model has no such output, or its classes have no names.
    """
    forms = {output.form for output in outputs}
    every = session.get_outputs()
    label = _find_label(every, classes) if forms & _WITH_LABEL else None
    probabilities = value = None
    if forms & _WITH_PROBABILITIES or ("label" in forms and label is None):
        probabilities = _find_probabilities(every, model)
    if "value" in forms:
        value = _find_value(every, model)
    found = [each for each in (probabilities, label, value) if each is not None]
    read = every if "all" in forms else found
    zipmaps = frozenset(each.name for each in read if each.type in ZIPMAP_TYPES)
    _check_named(model, classes, forms, label, has_zipmap=bool(zipmaps))
    return ModelOutputs(
        model,
        _in_order(model, classes, probabilities),
        {each.name: _dtype(each) for each in read},
        _name(probabilities),
        _name(label),
        _name(value),
        zipmaps,
    )


def _name(output: "NodeArg | None") -> str | None:
    return None if output is None else output.name


def _check_named(model: str, classes: Classes, forms: set[Form], label: "NodeArg | None", *, has_zipmap: bool) -> None:
    by_place = "probabilities" in forms or has_zipmap
    label_by_place = forms & {"label", "label_and_probabilities"} and (label is None or label.type != "tensor(string)")
    if not classes.labels and (by_place or label_by_place):
        raise ModelError(
            f"The model {model} does not name its classes: point LABEL_FILEPATH at a file with their labels, such "
            'as {"0": "setosa", "1": "versicolor"}, or export the model with texts as its classes.'
        )


def _in_order(model: str, classes: Classes, probabilities: "NodeArg | None") -> Classes:
    """Returns the classes in the order of the labels, which a ZipMap is put in."""
    labels, keys = classes.labels, classes.keys
    tensor = probabilities is not None and probabilities.type not in ZIPMAP_TYPES
    number = (static_size(probabilities.shape, 1) if tensor and probabilities is not None else None) or len(keys)
    if labels and number and number != len(labels):
        raise ModelError(
            f"The model {model} has {number} classes, the labels name {len(labels)}: "
            f"{', '.join(labels)}. Point LABEL_FILEPATH at the labels that belong to this model."
        )
    if not keys or isinstance(keys[0], int):
        return classes
    if set(keys) != set(labels) or (tensor and keys != labels):
        raise ModelError(
            f"The model {model} names its classes {shown(repr(list(keys)))}, the labels are "
            f"{shown(repr(list(labels)))}: they must be the same names in the same order. Point LABEL_FILEPATH at the "
            "labels that belong to this model, or at nothing."
        )
    return Classes(labels, labels)


def _dtype(output: "NodeArg") -> np.dtype[Any]:
    return (VALUE_TYPES | LABEL_TYPES).get(output.type, np.dtype(np.float32))


def _tables(outputs: Sequence["NodeArg"]) -> list["NodeArg"]:
    return [
        each
        for each in outputs
        if each.type in ZIPMAP_TYPES or (each.type in TABLE_TYPES and len(each.shape) in {0, 2})
    ]


def _find_probabilities(outputs: Sequence["NodeArg"], model: str) -> "NodeArg":
    found = _tables(outputs)
    named = [each for each in found if each.name in PROBABILITY_NAMES]
    if len(found) == 1 or len(named) == 1:
        return (named or found)[0]
    if found:
        problem = "several outputs that could be the class probabilities"
    else:
        problem = "no output that could be the class probabilities"
    raise ModelError(
        f"The model {model} has {problem}: {_described(found or outputs)}. Export it with one output "
        "'probabilities', a float tensor of shape [None, number of classes] or a ZipMap."
    )


def _find_label(outputs: Sequence["NodeArg"], classes: Classes) -> "NodeArg | None":
    """Returns the output with the winning class; None where the probabilities say more clearly which one that is."""
    found = [each for each in outputs if each.type in LABEL_TYPES and _is_column(each)]
    named = [each for each in found if each.name in LABEL_NAMES]
    if len(found) != 1 and len(named) != 1:
        return None
    label = (named or found)[0]
    is_clear = bool(classes.keys) or label.type == "tensor(string)" or not _tables(outputs)
    return label if is_clear else None


def _find_value(outputs: Sequence["NodeArg"], model: str) -> "NodeArg":
    found = [each for each in outputs if each.type in VALUE_TYPES and _is_column(each)]
    named = [each for each in found if each.name in VALUE_NAMES]
    if len(found) == 1 or len(named) == 1:
        return (named or found)[0]
    problem = "several outputs that could be the value" if found else "no output that could be a value"
    raise ModelError(
        f"The model {model} has {problem}: {_described(found or outputs)}. Export it with one output 'variable', "
        "a float, double or int64 tensor of shape [None] or [None, 1]."
    )


def _is_column(output: "NodeArg") -> bool:
    return len(output.shape) < 2 or (len(output.shape) == 2 and static_size(output.shape, 1) == 1)


def _described(outputs: Sequence["NodeArg"]) -> str:
    return ", ".join(f"{each.name} ({each.type} {each.shape})" for each in outputs)
