"""The summary of an hour."""

import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.failed_items import failed_ids, failures_by_code
from batch_assets.database.records.hour_models import predictions_by_model
from batch_assets.database.records.promotions import model_that_scored
from batch_assets.database.records.summaries import read_summaries
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches, BatchesByPartition
from batch_assets.database.slices.read_ahead import read_ahead
from batch_assets.hours import Hour
from batch_assets.inference.model_files import labels_of
from batch_assets.orchestration.checks import evaluations
from batch_assets.orchestration.failures import as_dagster_failure, tag_fault
from batch_assets.orchestration.hour_checks import SummedHour, checks_of_hour, record_checks, record_failures
from batch_assets.orchestration.names import asset_keys, group_name, io_manager_key
from batch_assets.orchestration.partitions import backfill_policy, check_closed, closed_hours, hourly_partitions
from batch_assets.pipeline import Declaration, Pipeline
from batch_assets.reporting.drift import KeySample, profile_hour
from batch_assets.reporting.picture import HOURS_SHOWN, hour_of_outcome, hour_of_row, picture
from batch_assets.reporting.summary import (
    Outcome,
    Summary,
    columns_to_count,
    count_outcome,
    read_predictions,
    store_summary,
)
from batch_assets.reporting.tables import failures, judgements, shares

# Of an hour, on the average of those that are looked up together.
RUNS_TO_LOOK_AT, EVENTS_AT_ONCE = 100, 4
# Of the failed items of each code.
IDS_SHOWN = 20


def build_run_summary(declaration: Declaration) -> dg.AssetsDefinition:
    """Returns the asset `run_summary` of a pipeline."""
    keys, table, checks = asset_keys(declaration), declaration.items, checks_of_hour(declaration)

    @dg.asset(
        key=keys.run_summary,
        check_specs=checks,
        partitions_def=hourly_partitions(declaration),
        backfill_policy=backfill_policy,
        ins={"predictions": dg.AssetIn(keys.predictions, metadata={"columns": list(columns_to_count(table))})},
        io_manager_key=io_manager_key(declaration),
        metadata={
            "table": "run_summary",
            "schema": "",
            "partition_expr": "hour",
            "key": "hour",
            "constant_columns": {"pipeline": declaration.name},
        },
        group_name=group_name(declaration),
        kinds={"mysql"},
        hooks={tag_fault(declaration)},
    )
    def run_summary(context: dg.AssetExecutionContext, predictions: Batches) -> Iterator[dg.Output[Any]]:
        """One row for the hour in `run_summary`: its items by outcome and by label, and how they were scored.

        Counted from the rows that stand in the tables, so that it is right whichever runs the hour has seen. With it
        goes a picture of the hour beside those before it, and what the checks of the hour say.
        """
        stored: dict[Hour, SummedHour] = {}
        yield dg.Output(_summaries(context, declaration, predictions, stored))
        record_checks(context, declaration, stored)
        for check in checks:
            yield dg.Output(None, output_name=check.get_python_identifier())

    return run_summary


@as_dagster_failure
def _summaries(
    context: dg.AssetExecutionContext, declaration: Declaration, predictions: Batches, stored: dict[Hour, SummedHour]
) -> BatchesByPartition:
    """Returns the rows of the hours, and puts what is known of each into `stored` when it is."""
    pipeline, chosen = declaration.load(), closed_hours(context, declaration)
    scorings = _scorings(context, declaration, chosen)

    def summary_of(hour: Hour) -> Batches:
        summed = _sum_up(pipeline, hour, predictions.of_partition(hour.key), scorings[hour.key])

        def metadata() -> Mapping[str, Any]:
            stored[hour] = summed
            return _metadata(declaration, pipeline, summed)

        return Batches([summed.summary.batch()], metadata=metadata)

    return BatchesByPartition(
        ((hour.key, summary_of(hour)) for hour in chosen),
        on_failure=lambda _: record_checks(context, declaration, stored),
    )


def sum_up(context: dg.AssetExecutionContext, declaration: Declaration, keys: Sequence[str]) -> None:
    """Sums up hours of which the predictions are stored, in the run whose step `predictions` fails for other hours.

    Dagster skips the step `run_summary` of that run, which would leave hours unfinished that have nothing to do with
    the fault, and the steps of its checks, which would say nothing.
    """
    pipeline, hours_stored = declaration.load(), [check_closed(key, declaration) for key in keys]
    engine, scorings = engine_for(pipeline.database), _scorings(context, declaration, hours_stored)
    stored: dict[Hour, SummedHour] = {}
    for hour in hours_stored:
        items = Batches(partial(read_predictions, engine, pipeline.items, hour))
        stored[hour] = summed = _sum_up(pipeline, hour, items, scorings[hour.key])
        store_summary(engine, summed.summary)
        metadata = {**_metadata(declaration, pipeline, summed), "rows": 1}
        asset = asset_keys(declaration).run_summary
        context.log_event(dg.AssetMaterialization(asset, partition=hour.key, metadata=metadata))
    record_checks(context, declaration, stored)
    failed = [hour for hour in closed_hours(context, declaration) if hour.key not in keys]
    record_failures(context, declaration, failed)
    for evaluation in evaluations(declaration):
        context.log_event(evaluation)


def _sum_up(pipeline: Pipeline, hour: Hour, predictions: Batches, scoring: Mapping[str, Any]) -> SummedHour:
    """Counts an hour, and judges it by a sample of its items if a run is known that scored it."""
    sample, version = KeySample(pipeline.items), scoring.get("model_version")
    with closing(read_ahead(predictions)) as batches:
        outcome = _outcome(pipeline, hour, sample.watching(batches), scoring)
    profile = profile_hour(pipeline, hour, sample.keys, outcome.label_counts, version) if version else None
    by_model = predictions_by_model(engine_for(pipeline.database), pipeline_tables(pipeline), hour, outcome.predicted)
    return SummedHour(Summary(pipeline.name, hour.start, outcome, scoring, by_model), profile)


def _outcome(pipeline: Pipeline, hour: Hour, predictions: Iterable[Batch], scoring: Mapping[str, Any]) -> Outcome:
    source = model_that_scored(pipeline, scoring.get("model_version"))
    labels = labels_of(source, pipeline.items, scoring.get("labels", ()))
    failed = failed_ids(engine_for(pipeline.database), pipeline_tables(pipeline), hour)
    return count_outcome(predictions, pipeline.items, failed, labels)


def _scorings(
    context: dg.AssetExecutionContext, declaration: Declaration, hours_looked_up: Sequence[Hour]
) -> dict[str, Mapping[str, Any]]:
    this_run = {"run_id": context.run.run_id, "finished_at": datetime.datetime.now(datetime.UTC)}
    found = last_scorings(context.instance, declaration, hours_looked_up)
    return {hour.key: found.get(hour.key, this_run) for hour in hours_looked_up}


def last_scorings(
    instance: dg.DagsterInstance, declaration: Declaration, hours_looked_up: Collection[Hour]
) -> dict[str, Mapping[str, Any]]:
    """Returns what the last run that scored items of an hour said of itself, with its id and its end, by key.

    A run that gave no item a prediction says nothing about those that stand in the table; it is described only
    where no run did. All hours at once, since each question to Dagster's tables costs.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {"scored": {}, "failed": {}}
    keys, cursor = [hour.key for hour in hours_looked_up], None
    for _ in range(RUNS_TO_LOOK_AT // EVENTS_AT_ONCE if keys else 0):
        page = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=asset_keys(declaration).predictions, asset_partitions=keys),
            limit=EVENTS_AT_ONCE * len(keys),
            cursor=cursor,
        )
        for record in page.records:
            run = _run_metadata(record)
            for outcome, runs in found.items():
                if run.get(outcome):
                    runs.setdefault(str(record.partition_key), run)
        cursor = page.cursor
        if not page.has_more or len(found["scored"]) == len(keys):
            break
    return found["failed"] | found["scored"]


def _run_metadata(record: dg.EventLogRecord) -> Mapping[str, Any]:
    metadata = record.asset_materialization.metadata if record.asset_materialization else {}
    finished = datetime.datetime.fromtimestamp(record.timestamp, datetime.UTC)
    return {**{key: value.value for key, value in metadata.items()}, "run_id": record.run_id, "finished_at": finished}


def _metadata(declaration: Declaration, pipeline: Pipeline, summed: SummedHour) -> Mapping[str, Any]:
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    summary, hour = summed.summary, Hour(summed.summary.hour)
    outcome, labels = summary.outcome, summary.outcome.label_counts
    before = [hour_of_row(row) for row in read_summaries(engine, tables, hour, HOURS_SHOWN - 1)]
    values = () if labels else outcome.answers.values
    shown = {"picture": picture(hour_of_outcome(hour, outcome), before, values)}
    if outcome.failed:
        shown["failed items"] = failures(failures_by_code(engine, tables, hour, IDS_SHOWN))
    alarms = {}
    if summed.profile:
        shown["drift"] = judgements(summed.profile, declaration.command("baseline"))
        alarms["drift_alarms"] = len(summed.profile.alarms)
    shown["labels"] = shares(labels, "label")
    # What says most comes first: the UI keeps the order.
    return {
        **{name: dg.MetadataValue.md(text) for name, text in shown.items()},
        **summary.numbers(),
        **alarms,
        **{f"label {label}": count for label, count in labels.items()},
    }
