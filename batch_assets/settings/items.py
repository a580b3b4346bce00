"""What an item holds and how the model's answer to it is written: as they are declared for a table."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from batch_assets.errors import SettingsError

Form = Literal["probabilities", "label", "probability", "label_and_probabilities", "value", "all"]
FORMS: tuple[Form, ...] = get_args(Form)
# Of these the label of an item can be told, so that a summary counts them.
FORMS_WITH_LABEL: tuple[Form, ...] = ("probabilities", "label", "label_and_probabilities")


@dataclass(frozen=True)
class Feature:
    """One of the values of an item.

    Args:
        name: As the model names it.
        nullable: Whether null is a value of it, which the model gets as NaN.
    """

    name: str
    nullable: bool = False


@dataclass(frozen=True)
class Output:
    """A column that is written once an item is scored.

    Args:
        column: The column.
        form: What is written to it. `probabilities`: the JSON list of class probabilities in label order. `label`: the
            winning class. `probability`: that of the winning class. `label_and_probabilities`: a JSON object of both.
            `value`: the number of a regression. `all`: a JSON object of every output of the model by its name.

    Raises:
        SettingsError: There is no such form.
    """

    column: str
    form: Form

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise SettingsError(
                f"The column {self.column} cannot be written as {self.form!r}: write it as one of {', '.join(FORMS)}."
            )


@dataclass(frozen=True, kw_only=True)
class ItemFormat:
    """What an item holds, and what is written once it is scored.

    Args:
        features: The values of an item in their order. Empty: a list of numbers, as many as the model takes.
        by_name: Whether an item is a JSON object by the name of the feature, not a JSON list.
        outputs: What is written, at least one column. The first of them is NULL until then.

    Raises:
        SettingsError: A feature has no name, or two features or two outputs have the same.
    """

    features: tuple[Feature, ...] = ()
    by_name: bool = False
    outputs: tuple[Output, ...] = (Output("prediction", "probabilities"),)

    def __post_init__(self) -> None:
        if not self.outputs:
            raise SettingsError("No column is named for what the model answers: name one with its form.")
        _check_names([feature.name for feature in self.features], "feature")
        _check_names([output.column for output in self.outputs], "column")

    @property
    def prediction(self) -> str:
        """The column that is NULL until an item is scored."""
        return self.outputs[0].column

    @property
    def labelled_output(self) -> Output | None:
        """The output of which the label of an item can be told; None if there is none, as for a regression."""
        return next((output for output in self.outputs if output.form in FORMS_WITH_LABEL), None)


def _check_names(names: list[str], what: str) -> None:
    for name, count in Counter(names).items():
        if not name:
            raise SettingsError(f"A {what} has no name: give it one.")
        if count > 1:
            raise SettingsError(f"The {what} {name} is named {count} times: name it once.")
