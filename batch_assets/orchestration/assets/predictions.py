"""The predictions of an hour."""

from functools import partial

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.slices.batches import Batches, BatchesByPartition
from batch_assets.orchestration.assets.run_summary import sum_up
from batch_assets.orchestration.failures import as_dagster_failure, tag_fault
from batch_assets.orchestration.partitions import backfill_policy, closed_hours, hourly_partitions
from batch_assets.orchestration.resources import CurrentPipeline, Model
from batch_assets.pipeline import ITEM_TABLE
from batch_assets.scoring.hourly import HourlyScoring
from batch_assets.settings.retry import RetryMode, retry_mode

RETRY_TAG = "batch_assets/retry"


class Retry(dg.Config):
    """How an hour is scored, by the name of the mode; without it the tag of the run decides, and then BATCH_RETRY."""

    retry: RetryMode | None = None


@dg.asset(
    partitions_def=hourly_partitions,
    backfill_policy=backfill_policy,
    ins={"raw_items": dg.AssetIn(metadata={"columns": [ITEM_TABLE.key, ITEM_TABLE.values]})},
    deps=["iris_model"],
    io_manager_key="mysql_io_manager",
    metadata={
        "table": ITEM_TABLE.name,
        "partition_expr": ITEM_TABLE.created,
        "key": ITEM_TABLE.key,
        "update_columns": [ITEM_TABLE.prediction],
        "unchanged_columns": [ITEM_TABLE.values],
    },
    group_name="batch_inference",
    kinds={"onnx", "mysql"},
    hooks={tag_fault},
)
@as_dagster_failure
def predictions(
    context: dg.AssetExecutionContext, config: Retry, raw_items: Batches, pipeline: CurrentPipeline, model: Model
) -> BatchesByPartition:
    """The class probabilities of the hour's items, in `items.prediction`.

    Retry mode `partial` scores what has no prediction yet, batch by batch, so that a run which was interrupted is
    taken up where it stopped; failed items are tried again until they are given up. `whole_batch` scores every item of
    the hour again and publishes all of them at once. Set it in the run's config or by the tag `batch_assets/retry`.

    An item that cannot be scored gets a row in `failed_items` with the reason, and its neighbours are
    scored; one that was corrected or deleted while it was being scored is left for the next run. A model that
    does not fit fails the run before anything is written.
    """
    settings = pipeline.load()
    engine = engine_for(settings.database)
    scoring = HourlyScoring(
        engine,
        settings,
        model.load(settings.model),
        retry_mode(config.retry, context.run.tags.get(RETRY_TAG), settings.retry),
        context.run.run_id,
        Throttle(engine, settings.throttle, context.log.info),
        on_progress=context.log.info,
    )
    chosen = closed_hours(context)
    return BatchesByPartition(
        ((hour.key, scoring.predictions(hour, raw_items.of_partition(hour.key))) for hour in chosen),
        on_failure=partial(sum_up, context, settings),
    )
