"""What requests and answers are made of, as the OpenAPI document shows it."""

import datetime
from typing import Annotated, Any, Literal

import orjson
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, create_model

from batch_assets.inference.item_format import LIMITS
from batch_assets.inference.onnx_model import OnnxModel

MOST_ITEMS = 10_000
EXAMPLE_VALUES = [5.1, 3.5, 1.4, 0.2]
EXAMPLE_TIME = "2026-11-02T05:30:00Z"
LARGEST_ID = 10**18 - 1


class Item(BaseModel):
    """An item, with its prediction once it is scored."""

    id: int = Field(examples=[4711])
    values: Any = Field(description="What is scored, as the service wrote it.", examples=[EXAMPLE_VALUES])
    prediction: Any = Field(
        description="The probability of each label, in the order of `GET /metadata`; null until the item is scored.",
        examples=[[0.97, 0.02, 0.01]],
    )
    created_datetime: datetime.datetime = Field(examples=[EXAMPLE_TIME])
    updated_datetime: datetime.datetime = Field(examples=[EXAMPLE_TIME])

    @classmethod
    def of_row(cls, row: sa.Row[Any]) -> "Item":
        """Makes one of a row as `database/items.py` reads it."""
        return cls(
            id=row.id,
            values=_parsed(row.values),
            prediction=_parsed(row.prediction),
            created_datetime=in_utc(row.created_datetime),
            updated_datetime=in_utc(row.updated_datetime),
        )


class Registered(BaseModel):
    """The items that a request has registered."""

    ids: list[int] = Field(description="Their ids, in the order of the request.", examples=[[4711, 4712]])


class HourSummary(BaseModel):
    """What became of the items of an hour; items = predicted + failed + pending."""

    hour: str = Field(description="Start of the hour, in UTC.", examples=["2026-11-02-05:00"])
    items: int
    predicted: int
    failed: int
    pending: int
    label_counts: dict[str, int] = Field(
        description="Predicted items by their most probable label.", examples=[{"setosa": 3, "virginica": 1}]
    )
    model_version: str | None
    retry: str | None = Field(description="The mode of the last run: `partial` or `whole_batch`.")
    run_id: str = Field(description="The last run that scored items of the hour.")
    started_at: datetime.datetime | None
    finished_at: datetime.datetime
    scored: int | None = Field(description="How many items that run has scored.")
    rows_per_second: float | None


class ModelMetadata(BaseModel):
    """The model by which registered items are checked."""

    model_version: str = Field(description="SHA-256 of its file.")
    labels: list[str] = Field(examples=[["setosa", "versicolor", "virginica"]])
    number_of_values: int | None = Field(
        description="How many numbers an item has; null while nothing has said so.", examples=[4]
    )
    type: str = Field(description="The type of the numbers.", examples=["float32"])


class Healthy(BaseModel):
    """The API and its database are at work."""

    health: Literal["ok"] = "ok"


class Unhealthy(BaseModel):
    """The database is away."""

    health: str = Field(examples=["No MySQL server answers at 127.0.0.1:3306"])


class Fault(BaseModel):
    """Something that is wrong with a request.

    `index` counts the items of a list from 0; null where it is not an item that is wrong.
    """

    index: int | None = None
    reason: str


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
    faults: list[Fault] = []


class _NewItem(BaseModel):
    """An item to register."""

    model_config = ConfigDict(extra="forbid", title="NewItem", json_schema_extra={"additionalProperties": False})


def new_item_type(model: OnnxModel) -> type[BaseModel]:
    """Returns the type of an item that the model can score.

    Args:
        model: Says how many numbers an item has, and within which limits they must lie.
    """
    lowest, highest = LIMITS[model.dtype]
    kind: Any = int if model.dtype.kind == "i" else float
    value = Annotated[kind, Field(strict=True, ge=kind(lowest), le=kind(highest))]
    length = {"min_length": model.width or 1, "max_length": model.width}
    values = Annotated[list[value], Field(description="The numbers to score.", examples=[EXAMPLE_VALUES], **length)]
    return create_model("NewItem", __base__=_NewItem, values=values)


def one_or_several(item: type[BaseModel]) -> Any:
    """Returns the type of an item or a list of items."""
    several = Annotated[list[item], Field(min_length=1, max_length=MOST_ITEMS)]  # type: ignore[valid-type]
    return Annotated[
        Annotated[item, Tag("one")] | Annotated[several, Tag("several")],
        Discriminator(lambda given: "several" if isinstance(given, list) else "one"),
    ]


def in_utc(moment: datetime.datetime) -> datetime.datetime:
    """Returns a time of the database with its zone."""
    return moment.replace(tzinfo=datetime.UTC)


def _parsed(text: str | None) -> Any:
    """Returns what a JSON text says; what is none, which SQLite lets pass, is shown as the text."""
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
