"""The summary of an hour."""

import datetime
from collections.abc import Mapping
from typing import Any

import dagster as dg

from batch_assets.assets.predictions import predictions as predictions_asset
from batch_assets.database.batches import Batches
from batch_assets.database.hours import Hour, failed_ids
from batch_assets.failures import explained
from batch_assets.partitions import closed_hour, hours
from batch_assets.reporting.summary import Summary, count_outcome
from batch_assets.reporting.tables import shares
from batch_assets.resources import Database, Model

RUNS_TO_LOOK_AT = 100


@dg.asset(
    partitions_def=hours,
    ins={"predictions": dg.AssetIn(metadata={"columns": ["id", "prediction"]})},
    io_manager_key="mysql_io_manager",
    metadata={"partition_expr": "hour", "key": "hour"},
    group_name="batch_inference",
    kinds={"mysql"},
)
@explained()
def run_summary(context: dg.AssetExecutionContext, predictions: Batches, database: Database, model: Model) -> Batches:
    """One row for the hour in `run_summary`: its items by outcome and by label, and how they were scored.

    Counted from the rows that stand in the tables, so that it is right whichever runs the hour has seen.
    """
    hour = closed_hour(context)
    outcome = count_outcome(predictions, failed_ids(database.engine(), hour), model.labels())
    summary = Summary(hour.start, outcome, _last_scoring(context, hour))
    return Batches([summary.batch()], metadata=lambda: _metadata(summary))


def _last_scoring(context: dg.AssetExecutionContext, hour: Hour) -> Mapping[str, Any]:
    """Returns what the last run that scored items of the hour said of itself, with its id and its end.

    A run that gave no item a prediction says nothing about those that stand in the table; it is described only
    where no run did.
    """
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=predictions_asset.key, asset_partitions=[hour.key]), limit=RUNS_TO_LOOK_AT
    )
    runs = [_said(record) for record in found.records]
    for outcome in ("scored", "failed"):
        for run in runs:
            if run.get(outcome):
                return run
    return {"run_id": context.run.run_id, "finished_at": datetime.datetime.now(datetime.UTC)}


def _said(record: dg.EventLogRecord) -> Mapping[str, Any]:
    metadata = record.asset_materialization.metadata if record.asset_materialization else {}
    finished = datetime.datetime.fromtimestamp(record.timestamp, datetime.UTC)
    return {**{key: value.value for key, value in metadata.items()}, "run_id": record.run_id, "finished_at": finished}


def _metadata(summary: Summary) -> Mapping[str, Any]:
    labels = summary.outcome.label_counts
    return {
        **summary.numbers(),
        **{f"label {label}": count for label, count in labels.items()},
        "labels": dg.MetadataValue.md(shares(labels, "label")),
    }
