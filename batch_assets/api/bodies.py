"""What requests and answers are made of, as the OpenAPI document shows it."""

import datetime
import sys
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from batch_assets.settings.items import Form

EXAMPLE_VALUES = [5.1, 3.5, 1.4, 0.2]
EXAMPLE_TIME = "2026-11-02T05:30:00Z"
LARGEST_ID = 10**18 - 1
LARGEST_NUMBER = sys.float_info.max
# So that as many as a request may have fit into its largest body.
LONGEST_LABEL = 500


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
    ignored_keys: int = Field(description="How many keys of these items name no feature.")
    predicted_by_other_models: int = Field(description="Predictions that stem from another model than this one.")
    rows_per_second: float | None


def _as_integer(given: Any) -> Any:
    """Returns 4711 for 4711.0, which is the same number in JSON."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


class _OfItem(BaseModel):
    model_config = ConfigDict(extra="forbid")

    # The bound itself is a number that clients which read JSON into floating-point numbers have, too.
    item_id: Annotated[int, BeforeValidator(_as_integer)] = Field(ge=1, lt=LARGEST_ID + 1, strict=True, examples=[4711])


class ActualLabel(_OfItem):
    """What came true of an item, where the model answers with labels."""

    label: str = Field(min_length=1, max_length=LONGEST_LABEL, examples=["setosa"])


class ActualValue(_OfItem):
    """What came true of an item, where the model answers with a number."""

    value: float = Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER, strict=True, examples=[0.5])


def _kind_of_actual(given: Any) -> str:
    return "value" if isinstance(given, dict) and "value" in given and "label" not in given else "label"


NewActual = Annotated[
    Annotated[ActualLabel, Tag("label")] | Annotated[ActualValue, Tag("value")], Discriminator(_kind_of_actual)
]


class Stored(BaseModel):
    """What a request has stored."""

    stored: int = Field(description="Of how many items.", examples=[2])


class HourQuality(BaseModel):
    """How right the predictions of an hour were, as far as it is known what came true."""

    hour: str = Field(description="Start of the hour, in UTC.", examples=["2026-11-02-05:00"])
    model_version: str | None
    measured_at: datetime.datetime
    predicted: int
    known: int = Field(description="Predictions of which it is known what came true.")
    coverage: float | None = Field(description="`known` divided by `predicted`.")
    accuracy: float | None = Field(description="The share of the known labels that were right.")
    mean_absolute_error: float | None = Field(description="Of the known numbers.")
    brier_score: float | None = Field(description="From 0, right and sure, to 2, wrong and sure.")
    expected_accuracy: float | None = Field(description="Estimated from the probabilities, if they are calibrated.")


class ModelMetadata(BaseModel):
    """The model by which registered items are checked."""

    model_version: str = Field(description="SHA-256 of its file.")
    labels: list[str] = Field(examples=[["setosa", "versicolor", "virginica"]])
    number_of_values: int | None = Field(
        description="How many numbers an item has; null while nothing has said so.", examples=[4]
    )
    type: str = Field(description="The type of the numbers.", examples=["float32"])


class FeatureMetadata(BaseModel):
    """A value that the model takes, by its name."""

    name: str
    type: str = Field(description="`string`, or the type of the number or boolean.", examples=["float32"])
    nullable: bool


class FeatureModelMetadata(BaseModel):
    """The model by which registered items are checked, whose features have names."""

    model_version: str = Field(description="SHA-256 of its file.")
    labels: list[str] = Field(description="None for a regression.", examples=[["benign", "malignant"]])
    features: list[FeatureMetadata] = Field(description="What an item has, in the order of the model.")


class PipelineDescription(BaseModel):
    """A pipeline: what it scores, when, and where this API has it."""

    name: str = Field(examples=["churn"])
    table: str = Field(description="Whose rows are its items.", examples=["customers"])
    task: Literal["classification", "regression"]
    outputs: dict[str, Form] = Field(
        description="The columns that are written, and what to each.", examples=[{"churn_score": "value"}]
    )
    first_hour: str = Field(description="Older items are not scored.", examples=["2026-11-01-00:00"])
    schedule_minute: int = Field(description="The minute at which the hour that has closed is scored.", examples=[19])
    retry: str = Field(
        description="What is done about what is left over: `partial`, `whole_batch` or `leave`.", examples=["partial"]
    )
    data: str = Field(description="The path of its items.", examples=["/pipelines/churn/data"])
    hours: str = Field(description="The path of its hours.", examples=["/pipelines/churn/hours"])
    metadata: str = Field(description="The path of its model.", examples=["/pipelines/churn/metadata"])


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


def in_utc(moment: datetime.datetime) -> datetime.datetime:
    """Returns a time of the database with its zone."""
    return moment.replace(tzinfo=datetime.UTC)
