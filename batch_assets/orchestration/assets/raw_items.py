"""The items of an hour as the service wrote them."""

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_counts import Stock, take_stock
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.orchestration.failures import as_dagster_failure, tag_fault
from batch_assets.orchestration.partitions import backfill_policy, closed_hours, hourly_partitions
from batch_assets.orchestration.resources import CurrentPipeline
from batch_assets.pipeline import ITEM_TABLE
from batch_assets.reporting.tables import shares


@dg.asset(
    partitions_def=hourly_partitions,
    backfill_policy=backfill_policy,
    io_manager_key="mysql_io_manager",
    metadata={"table": ITEM_TABLE.name, "partition_expr": ITEM_TABLE.created, "key": ITEM_TABLE.key},
    group_name="batch_inference",
    kinds={"mysql"},
    hooks={tag_fault},
)
@as_dagster_failure
def raw_items(context: dg.AssetExecutionContext, pipeline: CurrentPipeline) -> None:
    """The items that the web service wrote in the hour, in the table `items`.

    Materialising it takes stock and copies nothing: how many items there are, how many have a prediction, have
    failed or are pending, the first and the last one, and the shape of the values of a sample. No items is a
    success: an hour in which the service wrote nothing.
    """
    settings = pipeline.load()
    engine = engine_for(settings.database)
    for hour in closed_hours(context):
        context.add_asset_metadata(
            _metadata(take_stock(engine, pipeline_tables(settings), hour)), partition_key=hour.key
        )


def _metadata(stock: Stock) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/table_name": dg.MetadataValue.text(ITEM_TABLE.name),
        "dagster/partition_row_count": dg.MetadataValue.int(stock.counts.items),
        "predicted": dg.MetadataValue.int(stock.counts.predicted),
        "failed": dg.MetadataValue.int(stock.counts.failed),
        "pending": dg.MetadataValue.int(stock.counts.pending),
        "shapes of a sample": dg.MetadataValue.md(shares(stock.shapes, "values")),
    }
    for name, end in (("first item", stock.first), ("last item", stock.last)):
        if end:
            metadata[name] = dg.MetadataValue.text(f"{end[0]}, created {end[1]:%Y-%m-%d %H:%M:%S} UTC")
    return metadata
