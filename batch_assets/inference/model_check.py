"""Whether a model fits the items: a few of them are scored before anything is written to the database."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.errors import ModelError
from batch_assets.inference.answer_forms import are_finite, not_finite_text, written
from batch_assets.inference.item_format import LONGEST_TEXT, shown, shown_values
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.packed_lists import Values
from batch_assets.settings.items import Form
from batch_assets.wording import counted

SUM_TOLERANCE = 1e-3

# Faults that a whole sample has when items and model belong to different worlds.
MISFIT_CODES = {"wrong_length", "not_an_integer", "missing_feature"}
# Forms for which scores do as well as probabilities, or which ask for none.
NEED_NO_SUM: set[Form] = {"label", "value", "all"}
MISFIT_ADVICE = "Use a model that was trained on such items (MODEL_FILEPATH), or fix the items."


def check_sample(model: OnnxModel, texts: Sequence[Values], source: str, *, every: bool = False) -> int:
    """Scores a few items to see whether the model fits them, before anything is written.

    The model's `width`, when its file leaves it open, becomes the length of the first list of numbers among
    the texts. Bad items among the texts are ignored unless `every` is set; but when no item fits and one has
    the wrong length, or fractions where the model takes integers, then the model is the wrong one.

    Args:
        model: The model; its `width` may be set.
        texts: The values of a few items.
        source: What the items are, for messages: `the items of the hour`.
        every: Whether every item must fit and score, as in a sample file, or one is enough.

    Returns:
        How many of the items fit the model. With 0 nothing is known about the model.

    Raises:
        ModelError: Model and items do not fit, the model fails, or its output is not class probabilities.
    """
    width = model.width or _first_length(texts)
    if width is None:
        if every:
            raise ModelError(_misfit(model, source, "no item in it is a list of numbers"))
        return 0
    checked = model.check(texts, width)
    faults = checked.bad if every else [bad for bad in checked.bad if bad.code in MISFIT_CODES]
    if faults and (every or not len(checked.positions)):
        _raise_misfit(model, source, width, texts[faults[0].index], faults[0].message)
    if len(checked.positions):
        _check_scores(model, checked.features, source, every=every)
        model.width = width
    return len(checked.positions)


def _raise_misfit(model: OnnxModel, source: str, width: int, text: Values, message: str) -> None:
    length = _first_length([text])
    if length is not None and length != width:
        raise ModelError(
            f"The model {model.name} takes {counted(width, 'value')} an item, not {length} as "
            f"in {source}: {shown_values(text, width)}. {MISFIT_ADVICE}"
        )
    raise ModelError(_misfit(model, source, f"{message}: {shown_values(text, width)}"))


def _misfit(model: OnnxModel, source: str, reason: str) -> str:
    return f"The model {model.name} does not fit {source}: {reason}. {MISFIT_ADVICE}"


def _check_scores(model: OnnxModel, features: NDArray[Any], source: str, *, every: bool) -> None:
    """Raises unless the items score together; or, without `every`, when only some items are to blame."""
    if len(features) == 1:
        features = np.repeat(features, 2, axis=0)  # a model that mixes up the rows of a batch shows with two
    try:
        _check_answers(model, features, source)
    except ModelError:
        alone = [_scores(model, features[index : index + 1], source) for index in range(len(features))]
        if every or all(alone) or not any(alone):
            raise


def _scores(model: OnnxModel, features: NDArray[Any], source: str) -> bool:
    try:
        _check_answers(model, features, source)
    except ModelError:
        return False
    return True


def _check_answers(model: OnnxModel, features: NDArray[Any], source: str) -> None:
    answers = model.answers(features)
    if model.read.probabilities is not None and not NEED_NO_SUM.issuperset(output.form for output in model.outputs):
        _check_probabilities(model, features, answers[model.read.probabilities], source)
    finite = are_finite(answers)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ModelError(
            f"The answer of the model {model.name} is not finite: for "
            f"{shown(str(features[row].tolist()))} from {source} it is {shown(not_finite_text(answers, row))}. "
            "Use a model that answers such items (MODEL_FILEPATH), or fix the items."
        )
    for output in model.outputs:
        written(model.read, answers, output.form, as_json=True)


def _check_probabilities(model: OnnxModel, features: NDArray[Any], table: NDArray[Any], source: str) -> None:
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        sums_to_one = np.abs(table.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE
    proper = sums_to_one & ((table >= 0) & (table <= 1)).all(axis=1)
    if not proper.all():
        row = int(np.argmin(proper))
        raise ModelError(
            f"The output {model.read.probabilities} of the model {model.name} is not class "
            f"probabilities: for {shown(str(features[row].tolist()))} from {source} it is "
            f"{shown(str(table[row].tolist()))}. Numbers from 0 to 1 with the sum 1 are needed: export the "
            "model with its probabilities, not with scores or decision values."
        )


def _first_length(texts: Sequence[Values]) -> int | None:
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
