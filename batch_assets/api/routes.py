"""The requests that the API takes."""

import datetime
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.to_thread
import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException

from batch_assets.api.bodies import (
    EXAMPLE_VALUES,
    LARGEST_ID,
    Healthy,
    HourSummary,
    Item,
    ModelMetadata,
    Problem,
    Registered,
    Unhealthy,
    in_utc,
    new_item_type,
    one_or_several,
)
from batch_assets.api.metrics import Metrics
from batch_assets.database.connection.engine import snapshot
from batch_assets.database.records.items import ItemFilter, Position, correct_item, read_item, read_page, register_once
from batch_assets.database.records.summaries import read_summaries, read_summary
from batch_assets.database.schema.tables import PipelineTables
from batch_assets.errors import DatabaseError
from batch_assets.hours import Hour, hour_of_key
from batch_assets.inference.onnx_model import OnnxModel

MOST_ROWS = 1000
HEALTH_SECONDS = 5
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
_WRITING = _answers(
    status_400="The body is no JSON.",
    status_401="The header `X-API-Key` is missing, or its key is another one.",
    status_413="The body is too large.",
    status_422="Items or parameters are malformed; nothing was done.",
    status_503="The database is away or busy: try again.",
)
_NO_ITEM = _answers(status_404="There is no such item.")
_NO_HOUR = _answers(status_404="The hour was not summed up.")
_OTHER_ITEMS = _answers(status_409="Other items were registered under the idempotency key; nothing was done.")
_TAGS: dict[str, list[Any]] = {"items": ["items"], "batch": ["batch"], "operation": ["operation"]}

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
    response: Response
    limit: Limit = 100

    def link(self, **parameters: object) -> None:
        """Names the next page, as RFC 8288 has it."""
        url = self.request.url.include_query_params(limit=self.limit, **parameters)
        self.response.headers["Link"] = f'<{url}>; rel="next"'


Page = Annotated[_Page, Depends()]


def router(engine: sa.Engine, tables: PipelineTables, model: OnnxModel, key: str | None, metrics: Metrics) -> APIRouter:
    """Returns the routes of an application.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        model: The model that items must fit.
        key: What a request that writes must bring; None, and nobody may write.
        metrics: What `/metrics` shows.
    """
    routes = APIRouter()
    _add_operation(routes, engine, model, metrics)
    _add_items(routes, engine, tables.items)
    _add_writing(routes, engine, tables, model, key)
    _add_hours(routes, engine, tables)
    return routes


def _add_operation(routes: APIRouter, engine: sa.Engine, model: OnnxModel, metrics: Metrics) -> None:
    @routes.get("/health", tags=_TAGS["operation"], responses={503: {"model": Unhealthy}})
    async def health() -> Healthy:
        """Whether the API can do its work, that is whether its database answers."""
        reason = await _what_is_wrong(engine)
        return JSONResponse({"health": reason}, 503) if reason else Healthy()  # type: ignore[return-value]

    @routes.get(
        "/metrics",
        tags=_TAGS["operation"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def show_metrics() -> Response:
        """What is pending, has failed and was scored last, and how long requests take, for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/metadata", tags=_TAGS["batch"])
    def metadata() -> ModelMetadata:
        """The model by which registered items are checked."""
        return ModelMetadata(
            model_version=model.version,
            labels=list(model.labels),
            number_of_values=model.width,
            type=model.dtype.name,
        )


async def _what_is_wrong(engine: sa.Engine) -> str | None:
    """Returns why the database is of no use, None if it answers in time."""

    def ask() -> str | None:
        try:
            with snapshot(engine) as connection:
                connection.execute(sa.text("SELECT 1"))
        except DatabaseError as error:
            return str(error)
        return None

    with anyio.move_on_after(HEALTH_SECONDS):
        return await anyio.to_thread.run_sync(ask, abandon_on_cancel=True)
    return f"The database has not answered within {HEALTH_SECONDS} seconds."


def _add_items(routes: APIRouter, engine: sa.Engine, items: sa.Table) -> None:
    for which, summary in (
        (ItemFilter.all, "All items"),
        (ItemFilter.predicted, "The items with a prediction"),
        (ItemFilter.unpredicted, "The items without a prediction"),
    ):
        routes.add_api_route(
            f"/data/{which}",
            partial(_page, engine, items, which),
            name=f"data_{which}",
            summary=summary,
            description="The newest first; the header `Link` names the next page, if there is one.",
            response_model=list[Item],
            responses=_READING,
            tags=_TAGS["items"],
        )

    @routes.get("/data/{item_id:item_id}", tags=_TAGS["items"], responses=_READING | _NO_ITEM)
    def one_item(item_id: ItemId) -> Item:
        """An item."""
        row = read_item(engine, items, item_id)
        if row is None:
            raise _no_item(item_id)
        return Item.of_row(row)


def _page(engine: sa.Engine, items: sa.Table, which: ItemFilter, page: Page, cursor: Cursor = None) -> list[Item]:
    rows = read_page(engine, items, which, _position(cursor) if cursor else None, page.limit + 1)
    if len(rows) > page.limit:
        page.link(cursor=_cursor(rows[page.limit - 1]))
    return [Item.of_row(row) for row in rows[: page.limit]]


def _add_writing(
    routes: APIRouter, engine: sa.Engine, tables: PipelineTables, model: OnnxModel, key: str | None
) -> None:
    given_key = APIKeyHeader(name="X-API-Key", auto_error=False)

    def check_key(given: Annotated[str | None, Depends(given_key)]) -> None:
        if key is None:
            raise HTTPException(401, "Nobody may write: the API was started without API_KEY.")
        if given is None or not secrets.compare_digest(given.encode(), key.encode()):
            raise HTTPException(401, "The header X-API-Key is missing, or its key is another one.")

    new_item = new_item_type(model)
    examples = [{"values": EXAMPLE_VALUES}, [{"values": EXAMPLE_VALUES}, {"values": EXAMPLE_VALUES}]]
    body: Any = Annotated[one_or_several(new_item), Body(examples=examples)]
    allowed = [Depends(check_key)]

    @routes.post("/data", status_code=201, dependencies=allowed, tags=_TAGS["items"], responses=_WRITING | _OTHER_ITEMS)
    def register(new_items: body, idempotency_key: IdempotencyKey = None) -> Registered:
        """Registers an item, or a list of up to 10,000: all of them or none.

        They belong to the hour in which they are registered, and are scored once that has ended.
        """
        given: Sequence[BaseModel] = new_items if isinstance(new_items, list) else [new_items]
        ids = register_once(engine, tables, [_text(item) for item in given], idempotency_key)
        return Registered(ids=ids)

    @routes.patch("/data/{item_id:item_id}", dependencies=allowed, tags=_TAGS["items"], responses=_WRITING | _NO_ITEM)
    def correct(item_id: ItemId, item: new_item) -> Item:  # type: ignore[valid-type]
        """Gives an item other values and takes its prediction away, so that it is scored anew."""
        row = correct_item(engine, tables.items, item_id, _text(item))
        if row is None:
            raise _no_item(item_id)
        return Item.of_row(row)


def _add_hours(routes: APIRouter, engine: sa.Engine, tables: PipelineTables) -> None:
    @routes.get("/hours", tags=_TAGS["batch"], responses=_READING)
    def hours(page: Page, before: BeforeHour = None) -> list[HourSummary]:
        """What became of the hours, the newest first; the header `Link` names the next page, if there is one."""
        rows = read_summaries(engine, tables, _bound(before) if before else None, page.limit + 1)
        if len(rows) > page.limit:
            page.link(before=Hour(rows[page.limit - 1].hour).key)
        return [_summary(row) for row in rows[: page.limit]]

    @routes.get("/hours/{hour}", tags=_TAGS["batch"], responses=_READING | _NO_HOUR)
    def one_hour(hour: HourKey) -> HourSummary:
        """What became of an hour."""
        found = hour_of_key(hour)
        row = read_summary(engine, tables, found) if found else None
        if row is None:
            raise HTTPException(404, f"The hour {hour} was not summed up: it has not ended, or not been scored.")
        return _summary(row)


def _no_item(item_id: int) -> HTTPException:
    return HTTPException(404, f"There is no item {item_id}.")


def _text(item: BaseModel) -> str:
    return orjson.dumps(item.values).decode()  # type: ignore[attr-defined]


def _cursor(row: sa.Row[Any]) -> str:
    return f"{(row.created_datetime - _EPOCH) // _MICROSECOND}-{row.id}"


def _position(cursor: str) -> Position:
    microseconds, _, item_id = cursor.partition("-")
    return Position(_EPOCH + int(microseconds) * _MICROSECOND, int(item_id))


def _bound(key: str) -> Hour:
    """Returns the hour that is written as `key`, also where its month has fewer days."""
    month, day, hour = key[:7], int(key[8:10]), int(key[11:13])
    return Hour(datetime.datetime.fromisoformat(f"{month}-01") + datetime.timedelta(days=day - 1, hours=hour))


def _summary(row: sa.Row[Any]) -> HourSummary:
    found = dict(row._mapping)
    for name in ("started_at", "finished_at"):
        found[name] = found[name] and in_utc(found[name])
    known = {name: found[name] for name in HourSummary.model_fields if name in found}
    return HourSummary(**known | {"hour": Hour(row.hour).key, "label_counts": orjson.loads(row.label_counts)})
