"""What becomes of some items: it depends on nothing but the model and their values, wherever they are scored."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.errors import ModelRunError
from batch_assets.inference.answer_forms import are_finite, not_finite_text, written
from batch_assets.inference.item_format import BadValues, CheckedValues
from batch_assets.inference.model_outputs import Answers, joined
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.packed_lists import Values

# ONNX Runtime takes ten times as long to fail as to score: below this, further halving costs more than it saves.
ONE_BY_ONE_ITEMS = 8


@dataclass(frozen=True)
class Outcome:
    """What became of some items.

    Args:
        columns: For each column that is written, the values of the items that were scored, in their order.
        faults: The other items, in their order.
        taken: How many items the model was given.
        refusals: What it says of each on which it fails.
        ignored_keys: Keys of scored items that name no feature.
        check_seconds: How long it took to check the values.
        score_seconds: How long it took to score them, and to write the answers as text.
    """

    columns: Sequence[Sequence[Any]]
    faults: Sequence[BadValues]
    taken: int
    refusals: Sequence[str]
    ignored_keys: int
    check_seconds: float
    score_seconds: float


def outcome_of(model: OnnxModel, values: Sequence[Values], width: int, json_columns: Collection[str] = ()) -> Outcome:
    """Scores items; those that cannot be scored are handed on with the reason.

    Args:
        model: The model. Several threads may ask it at once.
        values: The values of the items.
        width: How many values an item has.
        json_columns: Columns of JSON, which take a label or a number as JSON text.

    Raises:
        ModelError: The model cannot be run at all, or answers something that cannot be written.
    """
    start = time.perf_counter()
    checked = model.check(values, width)
    checked_at = time.perf_counter()
    answers, refusals = _split(model, checked.features)
    finite = are_finite(answers)
    faults: list[BadValues] = []
    if len(finite) < len(values) or not finite.all():
        faults = sorted(_faults(checked, refusals, answers, finite))
        answers = {name: rows[finite] for name, rows in answers.items()}
    columns = [
        written(model.read, answers, output.form, as_json=output.column in json_columns) for output in model.outputs
    ]
    return Outcome(
        columns=columns,
        faults=faults,
        taken=len(checked.features),
        refusals=list(refusals.values()),
        ignored_keys=checked.ignored_keys,
        check_seconds=checked_at - start,
        score_seconds=time.perf_counter() - checked_at,
    )


def _faults(
    checked: CheckedValues, refusals: Mapping[int, str], answers: Answers, finite: NDArray[np.bool_]
) -> Iterator[BadValues]:
    """Yields what has no prediction: bad values, items on which the model fails, and answers that are no numbers."""
    positions = checked.positions.tolist()
    answered = [position for row, position in enumerate(positions) if row not in refusals]
    yield from checked.bad
    for row, reason in refusals.items():
        yield BadValues(positions[row], "model_error", f"the model fails: {reason}")
    for row in np.flatnonzero(~finite).tolist():
        message = f"the model's answer is {not_finite_text(answers, row)}"
        yield BadValues(answered[row], "model_not_finite", message)


def _split(model: OnnxModel, features: NDArray[Any]) -> tuple[Answers, dict[int, str]]:
    """Scores items, or each half of them by itself if the model fails on them, down to the single one.

    Returns:
        The answers to the items on which it does not fail, in their order; and for the index of each other item what
        the model says.
    """
    try:
        return model.answers(features), {}
    except ModelRunError as error:
        if len(features) == 1:
            return model.answers(features[:0]), {0: error.reason}
    step = 1 if len(features) <= ONE_BY_ONE_ITEMS else -(-len(features) // 2)
    parts, refusals = [], {}
    for start in range(0, len(features), step):
        answers, of_part = _split(model, features[start : start + step])
        parts.append(answers)
        refusals.update({start + row: reason for row, reason in of_part.items()})
    return joined(parts), refusals
