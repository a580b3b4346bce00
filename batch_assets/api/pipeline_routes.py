"""The requests that are about a pipeline: its items, its hours and its model."""

import datetime
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import anyio
import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from fastapi.security import APIKeyHeader
from pydantic import BaseModel
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException

from batch_assets.api.bodies import (
    LARGEST_ID,
    FeatureMetadata,
    FeatureModelMetadata,
    HourQuality,
    HourSummary,
    ModelMetadata,
    NewActual,
    Problem,
    Registered,
    Stored,
    in_utc,
)
from batch_assets.api.item_bodies import MOST_ITEMS, one_or_several
from batch_assets.api.served import ServedPipeline
from batch_assets.database.records.actuals import Actual, read_qualities, store_actuals
from batch_assets.database.records.items import ItemFilter, Position, correct_item, read_item, read_page, register_once
from batch_assets.database.records.summaries import read_summaries, read_summary
from batch_assets.database.slices.reflection import json_columns
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.hours import Hour, hour_of_key, utc_now
from batch_assets.inference.model_inputs import type_name
from batch_assets.inference.onnx_model import OnnxModel

MOST_ROWS = 1000
_EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - UTC without a zone, as in the database
_MICROSECOND = datetime.timedelta(microseconds=1)
_HOUR = r"^[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])-([01][0-9]|2[0-3]):00$"


class _ItemIds(Convertor[int]):
    """The ids in paths, and nothing else: what they are not may be a path of its own."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        """Returns the id that is written so."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Writes an id."""
        return str(value)


register_url_convertor("item_id", _ItemIds())

Answers = dict[int | str, dict[str, Any]]


def _answers(**described: str) -> Answers:
    """Returns the answers other than the good one: what each status says, by `status_404="There is none."`."""
    return {
        int(name.removeprefix("status_")): {"model": Problem, "description": text} for name, text in described.items()
    }


_READING = _answers(status_422="A parameter is malformed.", status_503="The database is away or busy: try again.")
_ASKING = _answers(status_503="The database is away or busy: try again.")
_WRITING = _answers(
    status_400="The body is no JSON.",
    status_401="The header `X-API-Key` is missing, or its key is another one.",
    status_413="The body is too large.",
    status_422="Items or parameters are malformed; nothing was done.",
    status_503="The database is away or busy: try again.",
)
_NO_ITEM = _answers(status_404="There is no such item.")
_CORRECTING = _answers(
    status_404="There is no such item.", status_409="The table does not take these values; nothing was done."
)
_NO_HOUR = _answers(status_404="The hour was not summed up.")
_STORING = _answers(status_409="An item is not there, or is named twice; nothing was done.")
_REGISTERING = _answers(
    status_409="Other items were registered under the idempotency key, or the table does not take these; nothing was "
    "done."
)

ItemId = Annotated[int, Path(ge=1, le=LARGEST_ID, examples=[4711])]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="How many at the most.")]
Cursor = Annotated[
    str | None,
    Query(
        pattern=r"^[0-9]{1,17}-[0-9]{1,18}$",
        description="Where the page before has ended, as its header `Link` has it.",
    ),
]
HourKey = Annotated[str, Path(pattern=_HOUR, examples=["2026-11-02-05:00"])]
BeforeHour = Annotated[str | None, Query(pattern=_HOUR, description="Older hours than this only.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Of your choice, for example a UUID: a request that is sent again with the same key registers "
        "nothing more and has the same answer.",
    ),
]


@dataclass(frozen=True)
class _Page:
    """A page that is asked for."""

    request: Request
    limit: Limit = 100

    def answer(self, content: Sequence[object], **parameters: object) -> Response:
        """Returns the page; with parameters also where the next one is, as RFC 8288 has it."""
        url = self.request.url.include_query_params(limit=self.limit, **parameters)
        return _json(content, {"Link": f'<{url}>; rel="next"'} if parameters else {})


Page = Annotated[_Page, Depends()]


def check_key(key: str | None) -> Callable[[str | None], None]:
    """Returns what lets a request write.

    Args:
        key: What it must bring; None, and nobody may write.
    """
    given_key = APIKeyHeader(name="X-API-Key", auto_error=False)

    def check(given: Annotated[str | None, Depends(given_key)]) -> None:
        if key is None:
            raise HTTPException(401, "Nobody may write: the API was started without API_KEY.")
        if given is None or not secrets.compare_digest(given.encode(), key.encode()):
            raise HTTPException(401, "The header X-API-Key is missing, or its key is another one.")

    return check


def pipeline_router(
    served: ServedPipeline, may_write: Callable[[str | None], None], turns: anyio.Semaphore
) -> APIRouter:
    """Returns the routes of a pipeline.

    Args:
        served: The pipeline.
        may_write: Refuses a request that may not write.
        turns: As many as its database has connections: where one hangs, the pipelines of the others go on.
    """

    async def turn() -> AsyncIterator[None]:
        async with turns:
            yield

    tag = None if served.is_of_environment else f"pipeline {served.pipeline.name}"
    routes = APIRouter(prefix=served.path, dependencies=[Depends(turn)])
    _add_items(routes, served, tag or "items")
    _add_writing(routes, served, may_write, tag or "items")
    _add_hours(routes, served, tag or "batch")
    _add_actuals(routes, served, may_write, tag or "batch")
    _add_metadata(routes, served, tag or "batch")
    return routes


def _add_items(routes: APIRouter, served: ServedPipeline, tag: str) -> None:
    for which, summary in (
        (ItemFilter.all, "All items"),
        (ItemFilter.predicted, "The items with a prediction"),
        (ItemFilter.unpredicted, "The items without a prediction"),
    ):
        routes.add_api_route(
            f"/data/{which}",
            partial(_page, served, which),
            name=f"data_{which}",
            summary=summary,
            description="The newest first; the header `Link` names the next page, if there is one.",
            response_model=list[served.bodies.shown],  # type: ignore[name-defined]
            responses=_READING,
            tags=[tag],
        )

    @routes.get(
        "/data/{item_id:item_id}", response_model=served.bodies.shown, tags=[tag], responses=_READING | _NO_ITEM
    )
    def one_item(item_id: ItemId) -> Response:
        """An item."""
        return _item(served, item_id, read_item(served.engine, served.tables.items, item_id))


def _page(served: ServedPipeline, which: ItemFilter, page: Page, cursor: Cursor = None) -> Response:
    before = _position(cursor) if cursor else None
    rows = read_page(served.engine, served.tables.items, which, before, page.limit + 1)
    content, more = _items(served, rows[: page.limit]), len(rows) > page.limit
    return page.answer(content, cursor=_cursor(rows[page.limit - 1])) if more else page.answer(content)


def _item(served: ServedPipeline, item_id: int, row: sa.Row[Any] | None) -> Response:
    if row is None:
        raise HTTPException(404, f"There is no item {item_id}.")
    return _json(_items(served, [row])[0])


def _items(served: ServedPipeline, rows: Sequence[sa.Row[Any]]) -> list[dict[str, Any]]:
    names = served.pipeline.items
    # Only of a label the text itself does not tell whether it is JSON.
    labels = any(output.form == "label" for output in names.outputs)
    in_json = json_columns(served.engine, TableSlice(names.name)) if labels else ()
    return [served.bodies.content(row, in_json) for row in rows]


def _add_writing(routes: APIRouter, served: ServedPipeline, may_write: Callable[[str | None], None], tag: str) -> None:
    new_item, example = served.bodies.new, served.bodies.example
    body: Any = Annotated[one_or_several(new_item), Body(examples=[example, [example, example]])]
    allowed = [Depends(may_write)]

    @routes.post("/data", status_code=201, dependencies=allowed, tags=[tag], responses=_WRITING | _REGISTERING)
    def register(new_items: body, idempotency_key: IdempotencyKey = None) -> Registered:
        """Registers an item, or a list of up to 10,000: all of them or none.

        They belong to the hour in which they are registered, and are scored once that has ended.
        """
        given: Sequence[BaseModel] = new_items if isinstance(new_items, list) else [new_items]
        rows = [served.bodies.row(item) for item in given]
        return Registered(ids=register_once(served.engine, served.tables, rows, idempotency_key))

    @routes.patch(
        "/data/{item_id:item_id}",
        response_model=served.bodies.shown,
        dependencies=allowed,
        tags=[tag],
        responses=_WRITING | _CORRECTING,
    )
    def correct(item_id: ItemId, item: new_item) -> Response:  # type: ignore[valid-type]
        """Gives an item other values and takes its prediction away, so that it is scored anew."""
        values = served.bodies.row(item)
        row = correct_item(served.engine, served.tables.items, item_id, values, served.columns_to_clear)
        return _item(served, item_id, row)


def _add_hours(routes: APIRouter, served: ServedPipeline, tag: str) -> None:
    engine, tables = served.engine, served.tables

    @routes.get("/hours", response_model=list[HourSummary], tags=[tag], responses=_READING)
    def hours(page: Page, before: BeforeHour = None) -> Response:
        """What became of the hours, the newest first; the header `Link` names the next page, if there is one."""
        return _page_of_hours(page, read_summaries(engine, tables, _bound(before), page.limit + 1), _summary)

    @routes.get("/hours/{hour}", tags=[tag], responses=_READING | _NO_HOUR)
    def one_hour(hour: HourKey) -> HourSummary:
        """What became of an hour."""
        found = hour_of_key(hour)
        row = read_summary(engine, tables, found) if found else None
        if row is None:
            raise HTTPException(404, f"The hour {hour} was not summed up: it has not ended, or not been scored.")
        return _summary(row)


def _page_of_hours(page: _Page, rows: Sequence[sa.Row[Any]], shown: Callable[[sa.Row[Any]], BaseModel]) -> Response:
    """Answers with some hours, of which one more was read than the page has if there is a next one."""
    content = [shown(row).model_dump() for row in rows[: page.limit]]
    more = len(rows) > page.limit
    return page.answer(content, before=content[-1]["hour"]) if more else page.answer(content)


def _add_actuals(routes: APIRouter, served: ServedPipeline, may_write: Callable[[str | None], None], tag: str) -> None:
    engine, tables = served.engine, served.tables
    several = Annotated[list[NewActual], Body(min_length=1, max_length=MOST_ITEMS)]

    @routes.post(
        "/actuals", status_code=201, dependencies=[Depends(may_write)], tags=[tag], responses=_WRITING | _STORING
    )
    def actuals(known: several) -> Stored:
        """Stores what came true of up to 10,000 items: of all of them or none.

        It takes the place of what was stored of them before. Their hours are measured anew within five minutes.
        """
        rows = [Actual(**each.model_dump()) for each in known]
        return Stored(stored=store_actuals(engine, tables, rows, utc_now()))

    @routes.get("/quality", response_model=list[HourQuality], tags=[tag], responses=_READING)
    def quality(page: Page, before: BeforeHour = None) -> Response:
        """How right the predictions of the hours were, the newest first; the header `Link` names the next page."""
        return _page_of_hours(page, read_qualities(engine, tables, _bound(before), page.limit + 1), _quality)


def _add_metadata(routes: APIRouter, served: ServedPipeline, tag: str) -> None:
    by_name = bool(served.model.inputs.features)
    shown = FeatureModelMetadata if by_name else ModelMetadata

    @routes.get("/metadata", response_model=shown, tags=[tag], responses=_ASKING)
    def metadata() -> ModelMetadata | FeatureModelMetadata:
        """The model that the next hour is scored with."""
        model = served.model_in_force()
        return _features_of(model) if by_name else _numbers_of(model)


def _numbers_of(model: OnnxModel) -> ModelMetadata:
    return ModelMetadata(
        model_version=model.version,
        labels=list(model.labels),
        number_of_values=model.width,
        type=model.dtype.name,
    )


def _features_of(model: OnnxModel) -> FeatureModelMetadata:
    inputs = model.inputs
    features = [
        FeatureMetadata(name=feature.name, type=type_name(inputs.dtype_of(feature)), nullable=feature.nullable)
        for feature in inputs.features
    ]
    return FeatureModelMetadata(model_version=model.version, labels=list(model.labels), features=features)


def _json(content: object, headers: Mapping[str, str] | None = None) -> Response:
    # Not checked against its type: what the service has written is shown, whatever it is.
    return Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), media_type="application/json", headers=headers)


def _cursor(row: sa.Row[Any]) -> str:
    return f"{(row.created_datetime - _EPOCH) // _MICROSECOND}-{row.id}"


def _position(cursor: str) -> Position:
    microseconds, _, item_id = cursor.partition("-")
    return Position(_EPOCH + int(microseconds) * _MICROSECOND, int(item_id))


def _bound(key: str | None) -> Hour | None:
    """Returns the hour that is written as `key`, also where its month has fewer days; None if none is given."""
    if key is None:
        return None
    month, day, hour = key[:7], int(key[8:10]), int(key[11:13])
    return Hour(datetime.datetime.fromisoformat(f"{month}-01") + datetime.timedelta(days=day - 1, hours=hour))


def _summary(row: sa.Row[Any]) -> HourSummary:
    found = dict(row._mapping)
    for name in ("started_at", "finished_at"):
        found[name] = found[name] and in_utc(found[name])
    known = {name: found[name] for name in HourSummary.model_fields if name in found}
    return HourSummary(**known | {"hour": Hour(row.hour).key, "label_counts": orjson.loads(row.label_counts)})


def _quality(row: sa.Row[Any]) -> HourQuality:
    known = {name: value for name, value in row._mapping.items() if name in HourQuality.model_fields}
    return HourQuality(**known | {"hour": Hour(row.hour).key, "measured_at": in_utc(row.measured_at)})
