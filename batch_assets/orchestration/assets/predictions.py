"""The predictions of an hour."""

from functools import partial

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.slices.batches import Batches, BatchesByPartition
from batch_assets.orchestration.assets.run_summary import sum_up
from batch_assets.orchestration.failures import as_dagster_failure, tag_fault
from batch_assets.orchestration.model_of_run import model_of_run
from batch_assets.orchestration.names import asset_keys, group_name, io_manager_key, table_metadata
from batch_assets.orchestration.partitions import backfill_policy, closed_hours, hourly_partitions
from batch_assets.orchestration.resources import Model
from batch_assets.pipeline import Declaration
from batch_assets.scoring.hourly import HourlyScoring
from batch_assets.settings.retry import RetryMode, retry_mode

RETRY_TAG = "batch_assets/retry"
PACE_TAG = "batch_assets/pace"
# The server has nothing to write until the first batch is scored; with still smaller ones, what their transactions cost
# takes up what is won.
FIRST_BATCH_ROWS = 2_000


class Retry(dg.Config):
    """How an hour is scored, by the name of the mode; without it the tag of the run decides, and then BATCH_RETRY."""

    retry: RetryMode | None = None


def build_predictions(declaration: Declaration) -> dg.AssetsDefinition:
    """Returns the asset `predictions` of a pipeline."""
    keys, table = asset_keys(declaration), declaration.items
    # Dagster's UI shows metadata: only where they say something.
    packed = {"packed_lists": True} if table.from_columns else {}

    @dg.asset(
        key=keys.predictions,
        partitions_def=hourly_partitions(declaration),
        backfill_policy=backfill_policy,
        ins={
            "raw_items": dg.AssetIn(
                keys.raw_items,
                metadata={"columns": [table.key, table.values], "first_batch_rows": FIRST_BATCH_ROWS, **packed},
            )
        },
        deps=["iris_model"] if declaration.is_of_environment else [],
        io_manager_key=io_manager_key(declaration),
        metadata={
            **table_metadata(declaration),
            "update_columns": [output.column for output in table.outputs],
            "unchanged_columns": [table.values],
            **packed,
        },
        group_name=group_name(declaration),
        kinds={"onnx", "mysql"},
        hooks={tag_fault(declaration)},
    )
    @as_dagster_failure
    def predictions(
        context: dg.AssetExecutionContext, config: Retry, raw_items: Batches, model: Model
    ) -> BatchesByPartition:
        """The predictions of the hour's items, beside them in their table.

        Retry mode `partial` scores what has no prediction yet, batch by batch, so that a run which was interrupted is
        taken up where it stopped; failed items are tried again until they are given up. `whole_batch` scores every
        item of the hour again and publishes all of them at once. Set it in the run's config or by the tag
        `batch_assets/retry`. With the tag `batch_assets/pace` = `full` a run writes as fast as it can, whatever
        `BATCH_MAX_SLOWDOWN` says.

        An item that cannot be scored gets a row in `failed_items` with the reason, and its neighbours are
        scored; one that was corrected or deleted while it was being scored is left for the next run. A model that
        does not fit fails the run before anything is written.
        """
        pipeline = declaration.load()
        engine = engine_for(pipeline.database)
        scoring = HourlyScoring(
            engine,
            pipeline,
            model.load(model_of_run(context, declaration, pipeline), table, pipeline.inference),
            retry_mode(config.retry, context.run.tags.get(RETRY_TAG), pipeline.retry),
            context.run.run_id,
            Throttle(engine, pipeline.throttle.of_run(context.run.tags.get(PACE_TAG)), context.log.info),
            on_progress=context.log.info,
        )
        chosen = closed_hours(context, declaration)
        return BatchesByPartition(
            ((hour.key, scoring.predictions(hour, raw_items.of_partition(hour.key))) for hour in chosen),
            on_failure=partial(sum_up, context, declaration),
        )

    return predictions
