"""The requests that are about no single pipeline: whether all is well, and which pipelines there are."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from batch_assets.api.bodies import Healthy, PipelineDescription, Unhealthy
from batch_assets.api.databases import ask_databases
from batch_assets.api.metrics import Metrics
from batch_assets.api.served import ServedPipeline
from batch_assets.database.connection.engine import snapshot
from batch_assets.errors import DatabaseError

HEALTH_SECONDS = 5


def router(pipelines: Sequence[ServedPipeline], metrics: Metrics) -> APIRouter:
    """Returns the routes that an application has once.

    Args:
        pipelines: What it serves.
        metrics: What `/metrics` shows.
    """
    routes = APIRouter()
    # Pipelines of one database share its engine, and a fault is told in the order of the pipelines.
    engines = list(dict.fromkeys(served.engine for served in pipelines))

    @routes.get("/health", tags=["operation"], responses={503: {"model": Unhealthy}})
    async def health() -> Healthy:
        """Whether the API can do its work, that is whether the databases of all pipelines answer."""
        reasons = await _what_is_wrong(engines)
        return JSONResponse({"health": " ".join(reasons)}, 503) if reasons else Healthy()  # type: ignore[return-value]

    @routes.get(
        "/metrics",
        tags=["operation"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def show_metrics() -> Response:
        """What is pending, has failed and was scored last, and how long requests take, for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/pipelines", tags=["batch"])
    def pipelines_served() -> list[PipelineDescription]:
        """The pipelines, and where this API has what is theirs."""
        return list(map(_description, pipelines))

    return routes


async def _what_is_wrong(engines: Collection[sa.Engine]) -> list[str]:
    """Returns why databases are of no use, nothing if all of them answer in time."""
    silent = f"The database has not answered within {HEALTH_SECONDS} seconds."
    found: dict[sa.Engine, str | None] = dict.fromkeys(engines, silent)

    def ask(engine: sa.Engine) -> None:
        found[engine] = _fault(engine)

    await ask_databases(engines, ask, HEALTH_SECONDS)
    return list(dict.fromkeys(reason for reason in found.values() if reason))


def _fault(engine: sa.Engine) -> str | None:
    try:
        with snapshot(engine) as connection:
            connection.execute(sa.text("SELECT 1"))
    except DatabaseError as error:
        return str(error)
    return None


def _description(served: ServedPipeline) -> PipelineDescription:
    pipeline, path = served.pipeline, served.path
    outputs = {output.column: output.form for output in pipeline.items.outputs}
    forms = set(outputs.values())
    regression = "value" in forms or (forms == {"all"} and not served.model.labels)
    return PipelineDescription(
        name=pipeline.name,
        table=pipeline.items.name,
        task="regression" if regression else "classification",
        outputs=outputs,
        first_hour=pipeline.first_hour.key,
        schedule_minute=pipeline.schedule_minute,
        retry=pipeline.retry.policy,
        data=f"{path}/data",
        hours=f"{path}/hours",
        metadata=f"{path}/metadata",
    )
