"""The summary of an hour."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from batch_assets.database.batches import Batch, Batches, BatchesByPartition
from batch_assets.database.failed_items import failed_ids
from batch_assets.database.hours import Hour
from batch_assets.failures import explained, tag_fault
from batch_assets.partitions import backfill_policy, check_closed, closed_hours, hours
from batch_assets.reporting.summary import Summary, count_outcome, read_predictions, store_summary
from batch_assets.reporting.tables import shares
from batch_assets.resources import Database, Model

RUNS_TO_LOOK_AT = 100


@dg.asset(
    partitions_def=hours,
    backfill_policy=backfill_policy,
    ins={"predictions": dg.AssetIn(metadata={"columns": ["id", "prediction"]})},
    io_manager_key="mysql_io_manager",
    metadata={"partition_expr": "hour", "key": "hour"},
    group_name="batch_inference",
    kinds={"mysql"},
    hooks={tag_fault},
)
@explained
def run_summary(
    context: dg.AssetExecutionContext, predictions: Batches, database: Database, model: Model
) -> BatchesByPartition:
    """One row for the hour in `run_summary`: its items by outcome and by label, and how they were scored.

    Counted from the rows that stand in the tables, so that it is right whichever runs the hour has seen.
    """

    def summed_up(hour: Hour) -> Batches:
        summary = _summary(context, database, model, hour, predictions.of_partition(hour.key))
        return Batches([summary.batch()], metadata=lambda: _metadata(summary))

    chosen = closed_hours(context)
    return BatchesByPartition((hour.key, summed_up(hour)) for hour in chosen)


def sum_up(context: dg.AssetExecutionContext, database: Database, model: Model, keys: Sequence[str]) -> None:
    """Sums up hours of which the predictions are stored, in the run whose step `predictions` fails for other hours.

    Dagster skips the step `run_summary` of that run, which would leave hours unfinished that have nothing to do with
    the fault.
    """
    engine = database.engine()
    for key in keys:
        hour = check_closed(key)
        summary = _summary(context, database, model, hour, read_predictions(engine, hour))
        store_summary(engine, summary)
        context.log_event(
            dg.AssetMaterialization("run_summary", partition=key, metadata={**_metadata(summary), "rows": 1})
        )


def _summary(
    context: dg.AssetExecutionContext, database: Database, model: Model, hour: Hour, predictions: Iterable[Batch]
) -> Summary:
    outcome = count_outcome(predictions, failed_ids(database.engine(), hour), model.labels())
    return Summary(hour.start, outcome, _last_scoring(context, hour))


def _last_scoring(context: dg.AssetExecutionContext, hour: Hour) -> Mapping[str, Any]:
    """Returns what the last run that scored items of the hour said of itself, with its id and its end.

    A run that gave no item a prediction says nothing about those that stand in the table; it is described only
    where no run did.
    """
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("predictions"), asset_partitions=[hour.key]), limit=RUNS_TO_LOOK_AT
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
