"""The API as an ASGI application: made of the environment, and ended with its last request."""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.to_thread
import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from batch_assets.api.bodies import Fault, Problem
from batch_assets.api.metrics import Metrics
from batch_assets.api.middleware import BodyLimit, RequestLog
from batch_assets.api.overview_page import overview_router
from batch_assets.api.pipeline_routes import check_key, pipeline_router
from batch_assets.api.routes import router
from batch_assets.api.served import ServedPipeline, served_pipelines
from batch_assets.errors import (
    ActualError,
    BatchAssetsError,
    DatabaseUnavailableError,
    IdempotencyError,
    ItemRefusedError,
)
from batch_assets.inference.item_format import shown
from batch_assets.pipeline import ENVIRONMENT_PIPELINE, OF_ENVIRONMENT, Declaration
from batch_assets.settings.api import ApiSettings
from batch_assets.settings.user_interface import ui_url
from batch_assets.wording import counted

RETRY_AFTER_SECONDS = 1
MOST_FAULTS = 100
DESCRIPTION = """Registers items for the hourly batch and shows what became of them.

An item is **unpredicted** when it is registered. In the hour after the one in which it was registered it is scored, and
becomes **predicted**; an item that cannot be scored stays unpredicted until its values are corrected.

Lists come in pages, the newest items first. Where there are more, the header `Link` names the next page.
"""

_log = logging.getLogger("batch_assets.api")


def application(environment: Mapping[str, str], declarations: Sequence[Declaration] = (OF_ENVIRONMENT,)) -> FastAPI:
    """Makes the application.

    Args:
        environment: The variables of the databases, the models and the API.
        declarations: The pipelines that it serves.

    Raises:
        SettingsError: A variable has a value that cannot be used.
        ModelError: The model or its labels cannot be used.
    """
    settings = ApiSettings.from_environment(environment)
    pipelines = served_pipelines(declarations, environment, settings.connections)
    metrics = Metrics(pipelines)
    app = FastAPIOffline(
        title="batch_assets",
        description=DESCRIPTION,
        redoc_url=None,
        lifespan=_lifespan({served.engine for served in pipelines}, settings.connections),
    )
    may_write = check_key(settings.key)
    turns = {served.engine: anyio.Semaphore(settings.connections) for served in pipelines}
    of_pipelines = [pipeline_router(served, may_write, turns[served.engine]) for served in pipelines]
    overview = overview_router(pipelines, ui_url(environment))
    routers = [overview, router(pipelines, metrics), *of_pipelines]
    for each in routers:
        app.include_router(each)
    _answer_faults(app, [route for each in routers for route in each.routes], pipelines)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestLog, metrics=metrics)
    return app


def _lifespan(
    engines: Collection[sa.Engine], connections: int
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Whose turn it is at a database has a thread and a connection too: no request waits for one and fails.
        anyio.to_thread.current_default_thread_limiter().total_tokens = connections * len(engines)
        yield
        for engine in engines:
            engine.dispose()

    return lifespan


def _answer_faults(app: FastAPI, routes: Sequence[BaseRoute], pipelines: Sequence[ServedPipeline]) -> None:
    """Has every fault answered by a `Problem`."""

    @app.exception_handler(RequestValidationError)
    def _(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [_fault(found) for found in error.errors()]
        detail = f"{counted(len(faults), 'fault')}; nothing was done."
        return _problem(422, detail, faults[:MOST_FAULTS])

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(routes, request)))
        no_route = error.status_code == 404 and "route" not in request.scope
        detail = _not_there(request.url.path, pipelines) if no_route else error.detail
        return _problem(error.status_code, detail, headers=headers)

    @app.exception_handler(ActualError)
    @app.exception_handler(IdempotencyError)
    @app.exception_handler(ItemRefusedError)
    def _(_request: Request, error: ActualError | IdempotencyError | ItemRefusedError) -> JSONResponse:
        return _problem(409, str(error))

    @app.exception_handler(DatabaseUnavailableError)
    def _(_request: Request, error: DatabaseUnavailableError) -> JSONResponse:
        _log.warning("%s", error)
        detail = "The database is away or busy: try again."
        return _problem(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    @app.exception_handler(BatchAssetsError)
    def _(_request: Request, error: BatchAssetsError) -> JSONResponse:
        _log.error("%s", error)
        return _problem(500, "The request could not be done: the log says why.")


def _methods(routes: Sequence[BaseRoute], request: Request) -> set[str]:
    """Returns the methods that a path has: those of all its routes, of which Starlette names one."""
    matching = [route for route in routes if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE]
    return {method for route in matching for method in route.methods or ()}


def _not_there(path: str, pipelines: Sequence[ServedPipeline]) -> str:
    """Says of a path that leads nowhere where its beginning leads."""
    begins, _, rest = path.lstrip("/").partition("/")
    name = rest.partition("/")[0]
    names = [served.pipeline.name for served in pipelines]
    listed = "GET /pipelines lists those that there are."
    if begins == "pipelines" and name and name not in names:
        return f"There is no pipeline {shown(repr(name))}: {listed}"
    if begins == "pipelines" and name == ENVIRONMENT_PIPELINE:
        return "The pipeline of the environment has its paths without /pipelines/items: /data, for example."
    if begins in ("data", "hours", "metadata", "actuals", "quality") and ENVIRONMENT_PIPELINE not in names:
        return f"/{begins} is that of the pipeline of the environment, which this project does not declare: {listed}"
    return "Not Found"


def _problem(
    status: int, detail: str, faults: list[Fault] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(Problem(detail=detail, faults=faults or []).model_dump(), status, headers)


def _fault(error: Mapping[str, object]) -> Fault:
    """Says of a fault which item has it and where: of what pydantic calls `("body", "several", 3, "values", 2)`."""
    place = [part for part in error["loc"] if part not in ("body", "one", "several")]  # type: ignore[attr-defined]
    index = place.pop(0) if place and isinstance(place[0], int) else None
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in place).lstrip(".")
    return Fault(index=index, reason=f"{where}: {error['msg']}" if where else str(error["msg"]))
