"""What an item of a pipeline is in requests and in answers: as its declaration and its model say."""

import datetime
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Union

import numpy as np
import orjson
import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, create_model
from pydantic_core import PydanticKnownError

from batch_assets.api.bodies import EXAMPLE_TIME, EXAMPLE_VALUES, Item, in_utc
from batch_assets.inference.item_format import LIMITS
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import ENVIRONMENT_PIPELINE, ITEM_TABLE, ItemTable, Pipeline
from batch_assets.settings.items import Form
from batch_assets.wording import is_unicode

MOST_ITEMS = 10_000


@dataclass(frozen=True)
class ItemBodies:
    """The items of a pipeline, as the API takes and shows them.

    Args:
        names: The table, and what its columns hold.
        model: The model that items must fit.
        shown: The type of an item in answers.
        new: The type of an item in requests.
    """

    names: ItemTable
    model: OnnxModel
    shown: type[BaseModel]
    new: type[BaseModel]

    @property
    def example(self) -> dict[str, Any]:
        """An item that can be registered."""
        return {"values": _example_values(self.model)}

    def row(self, item: BaseModel) -> list[Any]:
        """Returns what the columns of an item get that are scored, in their order; JSON as its text."""
        values = item.values  # type: ignore[attr-defined]
        if isinstance(values, BaseModel):
            values = values.model_dump(by_alias=True)
        return list(values.values()) if self.names.from_columns else [orjson.dumps(values).decode()]

    def content(self, row: sa.Row[Any], json_columns: Collection[str]) -> dict[str, Any]:
        """Returns an item of an answer.

        Args:
            row: As `read_page` returns it.
            json_columns: Which columns of the table are JSON.
        """
        answers = {
            output.column: _answer(output.form, row._mapping[f"answer_{place}"], output.column in json_columns)
            for place, output in enumerate(self.names.outputs)
        }
        one = answers[self.names.prediction]
        content = {
            "id": row.id,
            "values": self._by_name(row.values) if self.names.from_columns else _parsed(row.values),
            "prediction": one if len(answers) == 1 or one is None else answers,
            "created_datetime": row.created_datetime and in_utc(row.created_datetime),
        }
        if self.names.updated:
            content["updated_datetime"] = row.updated_datetime and in_utc(row.updated_datetime)
        return content

    def _by_name(self, text: str) -> dict[str, Any]:
        """Returns the columns of the features by name."""
        try:
            values = orjson.loads(text)
        except orjson.JSONDecodeError:  # infinity, which SQLite has in a column
            values = json.loads(text, parse_constant=str)
        inputs = self.model.inputs
        return {
            # A database hands over its booleans as 0 and 1.
            feature.name: bool(value) if inputs.dtype_of(feature).kind == "b" and value in (0, 1) else value
            for feature, value in zip(inputs.features, values, strict=True)
        }


def item_bodies(pipeline: Pipeline, model: OnnxModel) -> ItemBodies:
    """Returns what the items of a pipeline are.

    Args:
        pipeline: Its declaration.
        model: Says what the values of an item must be.
    """
    # The names of types in the OpenAPI document, of which each pipeline has its own.
    prefix = "" if pipeline.name == ENVIRONMENT_PIPELINE else f"{pipeline.name}_"
    values = _values_type(prefix, model)
    shown = Item if pipeline.items == ITEM_TABLE else _shown_type(prefix, pipeline.items, model, values)
    return ItemBodies(pipeline.items, model, shown, new_item_type(prefix, values))


def one_or_several(item: type[BaseModel]) -> Any:
    """Returns the type of an item or a list of items."""
    several = Annotated[list[item], Field(min_length=1, max_length=MOST_ITEMS)]  # type: ignore[valid-type]
    return Annotated[
        Annotated[item, Tag("one")] | Annotated[several, Tag("several")],
        Discriminator(lambda given: "several" if isinstance(given, list) else "one"),
    ]


class _Strict(BaseModel):
    """What may have no other keys than those that are named."""

    model_config = ConfigDict(extra="forbid")


def new_item_type(prefix: str, values: Any) -> type[BaseModel]:
    """Returns the type of an item that the model can score.

    Args:
        prefix: What its name begins with.
        values: The type of its values.
    """
    return create_model(f"{prefix}NewItem", __base__=_Strict, __doc__="An item to register.", values=values)


def _values_type(prefix: str, model: OnnxModel) -> Any:
    example = [_example_values(model)]
    if not model.inputs.features:
        number = _number_type(model.dtype)
        of_length = Field(
            min_length=model.width or 1,
            max_length=model.width,
            description="The numbers to score.",
            examples=example,
        )
        return Annotated[list[number], of_length]  # type: ignore[valid-type]
    # The name of a feature may be none of a field.
    fields: dict[str, Any] = {}
    for place, feature in enumerate(model.inputs.features):
        kind = _feature_type(model.inputs.dtype_of(feature))
        fields[f"feature_{place}"] = Annotated[kind | None if feature.nullable else kind, Field(alias=feature.name)]
    by_name = create_model(f"{prefix}Values", __base__=_Strict, __doc__="The features, by name.", **fields)
    return Annotated[by_name, Field(description="The features to score.", examples=example)]


def _number_type(dtype: np.dtype[Any]) -> Any:
    lowest, highest = LIMITS[dtype]
    kind: Any = int if dtype.kind == "i" else float
    return Annotated[kind, Field(strict=True, ge=kind(lowest), le=kind(highest))]


def _feature_type(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "fi":
        return _number_type(dtype)
    if dtype.kind == "b":
        return Annotated[bool, Field(strict=True)]
    return Annotated[str, Field(strict=True), AfterValidator(_unicode)]


def _unicode(text: str) -> str:
    """Refuses half of a surrogate pair, which an escape in JSON may leave and no database takes."""
    if not is_unicode(text):
        raise PydanticKnownError("string_unicode")
    return text


def _example_values(model: OnnxModel) -> Any:
    of_kind: Mapping[str, Any] = {"f": 1.5, "i": 1, "b": True, "O": "text"}
    inputs = model.inputs
    if inputs.features:
        return {feature.name: of_kind[inputs.dtype_of(feature).kind] for feature in inputs.features}
    fits = model.width in (None, len(EXAMPLE_VALUES)) and model.dtype.kind == "f"
    return EXAMPLE_VALUES if fits else [of_kind[model.dtype.kind]] * (model.width or 1)


def _shown_type(prefix: str, names: ItemTable, model: OnnxModel, values: Any) -> type[BaseModel]:
    answers = {output.column: _answer_type(prefix, output.form, model) for output in names.outputs}
    prediction = answers[names.prediction]
    if len(answers) > 1:
        columns: dict[str, Any] = {
            f"output_{place}": Annotated[kind | None, Field(alias=column)]
            for place, (column, kind) in enumerate(answers.items())
        }
        prediction = create_model(f"{prefix}Prediction", __doc__="The columns that are written.", **columns)
    time = Annotated[datetime.datetime, Field(examples=[EXAMPLE_TIME])]
    fields: dict[str, Any] = {
        "id": Annotated[int, Field(examples=[4711])],
        # A service writes what it wants.
        "values": Annotated[
            Union[values, Any],  # noqa: UP007 - made at run time
            Field(description="What is scored. What cannot be scored is shown as the service wrote it."),
        ],
        "prediction": Annotated[prediction | None, Field(description="Null until the item is scored.")],
        "created_datetime": time | None,
    }
    if names.updated:
        fields["updated_datetime"] = time | None
    return create_model(f"{prefix}Item", __doc__="An item, with its prediction once it is scored.", **fields)


def _answer_type(prefix: str, form: Form, model: OnnxModel) -> Any:
    if form == "label_and_probabilities":
        doc = "The winning class, and the probability of each label in the order of `metadata`."
        return create_model(f"{prefix}Answer", __doc__=doc, label=str, probabilities=list[float])
    whole = form == "value" and model.read.types[str(model.read.value)].kind == "i"
    kinds: Mapping[Form, Any] = {
        "probabilities": Annotated[
            list[float], Field(description="The probability of each label, in the order of `metadata`.")
        ],
        "label": str,
        "probability": float,
        "value": int if whole else float,
        "all": dict[str, Any],
    }
    return kinds[form]


def _answer(form: Form, stored: Any, is_json: bool) -> Any:
    """Returns what is written in a column as it is shown."""
    if isinstance(stored, Decimal):
        return float(stored)
    # A number is one in a text too.
    as_text = isinstance(stored, str) and (is_json or form != "label")
    return _parsed(stored) if as_text else stored


def _parsed(text: str | None) -> Any:
    """Returns what a JSON text says; what is none, which SQLite lets pass, is shown as the text."""
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
