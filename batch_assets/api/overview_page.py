"""The page at `/`: how all pipelines stand. One document without scripts, and nothing is loaded from elsewhere."""

import base64
import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2
import sqlalchemy as sa
from fastapi import APIRouter, Response

from batch_assets.api.databases import ask_databases
from batch_assets.api.served import ServedPipeline
from batch_assets.errors import DatabaseError, DatabaseUnavailableError
from batch_assets.hours import Hour, utc_now
from batch_assets.reporting.overview import HOURS_SHOWN, HourState, PipelineOverview, pipeline_overview
from batch_assets.settings.user_interface import summaries_url
from batch_assets.wording import counted

ANSWER_SECONDS = 10
_MARKS = {
    HourState.scored: "✓",
    HourState.failed: "!",
    HourState.pending: "…",
    HourState.given_up: "✕",
    HourState.no_summary: "?",
    HourState.not_due: "·",
    HourState.before_first: "",
}
_WORDS = {
    HourState.scored: "scored",
    HourState.failed: "scored, with failed items",
    HourState.pending: "pending items",
    HourState.given_up: "given up",
    HourState.no_summary: "no summary",
    HourState.not_due: "not due yet",
    HourState.before_first: "before the first hour",
}
_ALARM_MARK = "▲"
_STYLE = files("batch_assets.api").joinpath("overview.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TEMPLATE = jinja2.Environment(
    loader=jinja2.PackageLoader("batch_assets.api", ""), autoescape=True, undefined=jinja2.StrictUndefined
).get_template("overview.html")

# How a pipeline stands, or why that cannot be told.
_Found = PipelineOverview | str


@dataclass(frozen=True)
class _Badge:
    text: str
    css: str


@dataclass(frozen=True)
class _PipelineView:
    """What the page shows of a pipeline.

    Args:
        served: The pipeline.
        found: How it stands, or why that cannot be told.
        ui_url: Dagster's webserver, None if nobody has said where it is.
    """

    served: ServedPipeline
    found: _Found
    ui_url: str | None

    @property
    def name(self) -> str:
        return self.served.pipeline.name

    @property
    def table(self) -> str:
        return self.served.pipeline.items.name

    @property
    def path(self) -> str:
        return self.served.path

    @property
    def overview(self) -> PipelineOverview | None:
        return None if isinstance(self.found, str) else self.found

    @property
    def fault(self) -> str | None:
        return self.found if isinstance(self.found, str) else None

    @property
    def is_right(self) -> bool:
        return not isinstance(self.found, str) and self.found.is_right

    @property
    def badge(self) -> _Badge:
        if isinstance(self.found, str):
            return _Badge("cannot be told", "wrong")
        return _Badge("all is right", "right") if self.found.is_right else _Badge("needs a look", "wrong")

    @property
    def ui(self) -> str | None:
        """Where Dagster shows its summaries."""
        return self.ui_url and summaries_url(self.ui_url, self._declared)

    def ui_of(self, hour: Hour) -> str | None:
        """Returns where Dagster shows an hour."""
        return self.ui_url and summaries_url(self.ui_url, self._declared, hour.key)

    @property
    def _declared(self) -> str | None:
        return None if self.served.is_of_environment else self.name


def overview_router(pipelines: Sequence[ServedPipeline], ui_url: str | None) -> APIRouter:
    """Returns the route of the page, which is for people and not in the OpenAPI document.

    Args:
        pipelines: What is shown.
        ui_url: Dagster's webserver, None if nobody has said where it is.
    """
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def overview() -> Response:
        now = utc_now()
        found = await _look(pipelines, now)
        views = [_PipelineView(served, found[served.pipeline.name], ui_url) for served in pipelines]
        return Response(_page(views, ui_url, now), media_type="text/html", headers=_HEADERS)

    return routes


async def _look(pipelines: Sequence[ServedPipeline], now: datetime.datetime) -> dict[str, _Found]:
    silent = f"The database has not answered within {ANSWER_SECONDS} seconds."
    found: dict[str, _Found] = {served.pipeline.name: silent for served in pipelines}

    def ask(engine: sa.Engine) -> None:
        away = None
        for served in pipelines:
            if served.engine != engine:
                continue
            try:
                # One that is away takes seconds to say so.
                found[served.pipeline.name] = away or pipeline_overview(engine, served.pipeline, now)
            except DatabaseUnavailableError as error:
                found[served.pipeline.name] = away = str(error)
            except DatabaseError as error:
                found[served.pipeline.name] = str(error)

    await ask_databases({served.engine for served in pipelines}, ask, ANSWER_SECONDS)
    return dict(found)


def _page(views: Sequence[_PipelineView], ui_url: str | None, now: datetime.datetime) -> str:
    return _TEMPLATE.render(
        headline=_headline(views),
        style=_STYLE,
        hours_shown=HOURS_SHOWN,
        now=now,
        views=views,
        ui=ui_url,
        marks=_MARKS,
        words=_WORDS,
        alarm_mark=_ALARM_MARK,
    )


def _headline(views: Sequence[_PipelineView]) -> str:
    """Returns the answer to the question of the morning."""
    wrong = [view.name for view in views if not view.is_right]
    if not wrong:
        return f"All is right: {counted(len(views), 'pipeline')}"
    return f"{len(wrong)} of {counted(len(views), 'pipeline')} {'needs' if len(wrong) == 1 else 'need'} a look: " + (
        ", ".join(wrong)
    )
