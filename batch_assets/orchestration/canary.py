"""The canary of a pipeline: a job that proves that the next hour would be scored, and its schedule."""

from dataclasses import asdict

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.promotions import with_model_in_force
from batch_assets.orchestration.failures import as_dagster_failure, tag_fault
from batch_assets.orchestration.names import CANARY
from batch_assets.orchestration.resources import Model
from batch_assets.pipeline import Declaration
from batch_assets.scoring.canary import try_pipeline


def build_canary(declaration: Declaration) -> dg.Definitions:
    """Returns the job of the canary and its schedule, which runs where `BATCH_CANARY_MINUTE` is set."""

    @dg.op(name=declaration.prefixed("score_recent_items"), out=dg.Out(dg.Nothing))
    @as_dagster_failure
    def score_recent_items(context: dg.OpExecutionContext, model: Model) -> None:
        """Scores 100 recent items as an hour would be, and takes back what it wrote.

        It fails with the cause where the server is away, a right, a table or a column is missing, the model cannot be
        loaded or does not fit, or it answers otherwise than when it scored the same items.
        """
        pipeline = with_model_in_force(declaration.load())
        loaded = model.load(pipeline.model, declaration.items, pipeline.inference)
        result = try_pipeline(engine_for(pipeline.database), pipeline, loaded)
        context.log.info(
            "The next hour would be scored with %s: %s of %s recent items scored, %s failed; %s answers compared.",
            result.model,
            result.scored,
            result.items,
            result.failed,
            result.compared,
        )
        context.add_output_metadata(asdict(result))

    @dg.job(
        name=declaration.prefixed(CANARY),
        hooks={tag_fault(declaration)},
        description="Proves that the next hour would be scored, and writes nothing.",
    )
    def job() -> None:
        score_recent_items()

    minute = declaration.canary_minute()
    schedule = dg.ScheduleDefinition(
        name=declaration.prefixed("hourly_canary"),
        job=job,
        cron_schedule=f"{declaration.schedule_minute if minute is None else minute} * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED if minute is None else dg.DefaultScheduleStatus.RUNNING,
        description="Runs the canary each hour at `BATCH_CANARY_MINUTE`; without it, only if you start it here.",
    )
    return dg.Definitions(jobs=[job], schedules=[schedule])
