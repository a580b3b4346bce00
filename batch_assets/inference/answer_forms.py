"""How the answers of a model are written: one value for each item in each column."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.errors import ModelError
from batch_assets.inference.item_format import shown
from batch_assets.inference.model_outputs import Answers, ModelOutputs
from batch_assets.settings.items import Form

# Which are JSON texts in a column of any type.
FORMS_AS_JSON: set[Form] = {"probabilities", "label_and_probabilities", "all"}


def are_finite(answers: Answers) -> NDArray[np.bool_]:
    """Returns for each item whether all numbers of the answer are finite."""
    finite: NDArray[np.bool_] = np.logical_and.reduce([_finite_rows(rows) for rows in answers.values()])
    return finite


def not_finite_text(answers: Answers, item: int) -> str:
    """Returns what the model says of an item of which not all is finite, as JSON, in which that is null."""
    rows = next(rows[item : item + 1] for rows in answers.values() if not _finite_rows(rows[item : item + 1]).all())
    return json_texts(rows)[0]


def written(read: ModelOutputs, answers: Answers, form: Form, *, as_json: bool) -> list[Any]:
    """Returns what a column gets for each item.

    Args:
        read: The outputs of the model.
        answers: What they say, all of it finite.
        form: How it is written.
        as_json: Whether a label and a number become JSON texts too, as what a JSON column takes. Otherwise a label is a
            text as it is, and a number one of Python.

    Raises:
        ModelError: The label that the model answers is none of its classes.
    """
    if form == "probabilities":
        return json_texts(answers[str(read.probabilities)])
    if form == "label":
        labels = _labels(read, answers)
        return json_texts(labels) if as_json else labels.tolist()
    if form == "all":
        return _objects({name: _named_texts(read, name, rows) for name, rows in answers.items()})
    if form == "label_and_probabilities":
        probabilities = json_texts(answers[str(read.probabilities)])
        return _objects({"label": json_texts(_labels(read, answers)), "probabilities": probabilities})
    numbers = answers[str(read.value)] if form == "value" else _of_winner(read, answers)
    return json_texts(numbers) if as_json else numbers.tolist()


def json_texts(rows: NDArray[Any]) -> list[str]:
    """Writes each row as JSON: a number, a text or a list, with as many digits as its type holds."""
    if not len(rows):
        return []
    if rows.dtype == np.object_:
        return [orjson.dumps(row).decode() for row in rows.tolist()]
    text = orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    if rows.ndim == 1:
        return text[1:-1].split(",")
    if rows.ndim == 2:
        # [[a,b],[c,d]]: numbers and nulls hold no brackets, so the rows are what stands between those.
        return [f"[{row}]" for row in text[2:-2].split("],[")]
    return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() for row in np.ascontiguousarray(rows)]


def _finite_rows(rows: NDArray[Any]) -> NDArray[np.bool_]:
    if rows.dtype.kind != "f":
        return np.ones(len(rows), np.bool_)
    finite: NDArray[np.bool_] = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    return finite


def _labels(read: ModelOutputs, answers: Answers) -> NDArray[Any]:
    """Returns the label of the class that wins each item."""
    winners = read.winners(answers)
    if winners is not None:
        return np.array(read.classes.labels, np.object_)[winners]
    labels = answers[str(read.label)]
    if read.classes.labels and (unknown := set(labels.tolist()) - set(read.classes.labels)):
        raise ModelError(
            f"The model {read.model} answers the label {shown(repr(min(unknown)))}, its labels are "
            f"{shown(repr(list(read.classes.labels)))}. Point LABEL_FILEPATH at the labels that belong to this model."
        )
    return labels


def _of_winner(read: ModelOutputs, answers: Answers) -> NDArray[Any]:
    """Returns the probability of the class that wins each item."""
    table, winners = answers[str(read.probabilities)], read.winners(answers)
    of_winner: NDArray[Any] = table.max(axis=1) if winners is None else table[np.arange(len(table)), winners]
    return of_winner


def _named_texts(read: ModelOutputs, name: str, rows: NDArray[Any]) -> list[str]:
    """Writes each row of an output as JSON: that of a ZipMap as an object by label."""
    if name not in read.zipmaps:
        return json_texts(rows)
    return _objects({label: json_texts(rows[:, place]) for place, label in enumerate(read.classes.labels)})


def _objects(texts: dict[str, Sequence[str]]) -> list[str]:
    """Puts JSON texts together to an object for each item."""
    names = [orjson.dumps(name).decode() for name in texts]
    parts = [[f"{name}:{text}" for text in column] for name, column in zip(names, texts.values(), strict=True)]
    return [f"{{{','.join(members)}}}" for members in zip(*parts, strict=True)]
