"""The items of an hour as the service wrote them."""

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_counts import Stock, take_stock
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.orchestration.failures import as_dagster_failure, tag_fault
from batch_assets.orchestration.names import asset_keys, group_name, io_manager_key, table_metadata
from batch_assets.orchestration.partitions import backfill_policy, closed_hours, hourly_partitions
from batch_assets.pipeline import Declaration
from batch_assets.reporting.tables import shares


def build_raw_items(declaration: Declaration) -> dg.AssetsDefinition:
    """Returns the asset `raw_items` of a pipeline."""
    table = declaration.items

    @dg.asset(
        key=asset_keys(declaration).raw_items,
        partitions_def=hourly_partitions(declaration),
        backfill_policy=backfill_policy,
        metadata=table_metadata(declaration),
        io_manager_key=io_manager_key(declaration),
        group_name=group_name(declaration),
        kinds={"mysql"},
        hooks={tag_fault(declaration)},
    )
    @as_dagster_failure
    def raw_items(context: dg.AssetExecutionContext) -> None:
        """The items as the web service wrote them in the hour.

        Materialising it takes stock and copies nothing: how many items there are, how many have a prediction, have
        failed or are pending, the first and the last one, and the shape of the values of a sample. No items is a
        success: an hour in which the service wrote nothing.
        """
        pipeline = declaration.load()
        engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
        for hour in closed_hours(context, declaration):
            context.add_asset_metadata(_metadata(table.name, take_stock(engine, tables, hour)), partition_key=hour.key)

    return raw_items


def _metadata(table: str, stock: Stock) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/table_name": dg.MetadataValue.text(table),
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
