"""A second model beside the one in force: an asset of each hour, a job of its own, and a sensor that requests it.

Apart from the job that scores: what becomes of a challenger is no matter of the hour, whose items it never writes.
"""

import datetime
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.challengers import hours_to_compare
from batch_assets.database.records.promotions import model_that_scored
from batch_assets.database.records.summaries import last_model, read_summary
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import BatchAssetsError, PartitionsError, SettingsError
from batch_assets.hours import Hour, utc_now
from batch_assets.inference.model_files import labels_of
from batch_assets.inference.model_version import version_in_force
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.orchestration.assets.run_summary import last_scorings
from batch_assets.orchestration.dagster_internals import UnresolvedAssetJobDefinition
from batch_assets.orchestration.failures import as_dagster_failure, tag_fault
from batch_assets.orchestration.names import CHALLENGER, CHALLENGER_PREDICTIONS, asset_key, asset_keys, group_name
from batch_assets.orchestration.partitions import (
    RANGE_END_TAG,
    RANGE_START_TAG,
    backfill_policy,
    closed_hours,
    hourly_partitions,
)
from batch_assets.orchestration.resources import Model
from batch_assets.orchestration.run_history import RunHistory
from batch_assets.pipeline import Declaration, Pipeline
from batch_assets.reporting.challengers import Comparison, compare_hour, examples_table, labels_table
from batch_assets.scoring.challenger import answer_sample, faults_of_challenger
from batch_assets.settings.model import Challenger
from batch_assets.wording import counted

# Which two models a run was requested to compare: once for each hour, whatever becomes of the run.
CHALLENGER_TAG = "batch_assets/challenger"
# Runs that wait are started after all others.
_PRIORITY = {"dagster/priority": "-1"}
# Older hours are compared only when somebody backfills them.
DAYS_BACK = 7
HOURS_AT_ONCE = 24


def build_challenger(declaration: Declaration) -> dg.Definitions:
    """Returns the asset, the job and the sensor of the challenger of a pipeline; nothing where none is declared."""
    if declaration.challenger() is None:
        return dg.Definitions()
    job = dg.define_asset_job(
        declaration.prefixed(CHALLENGER),
        selection=dg.AssetSelection.assets(asset_key(declaration, CHALLENGER_PREDICTIONS)),
        description="Compares the challenger with the model that scored an hour, and publishes nothing.",
    )
    return dg.Definitions(
        assets=[build_challenger_predictions(declaration)], jobs=[job], sensors=[_build_sensor(declaration, job)]
    )


def build_challenger_predictions(declaration: Declaration) -> dg.AssetsDefinition:
    """Returns the asset `challenger_predictions` of a pipeline."""
    keys = asset_keys(declaration)

    @dg.asset(
        key=asset_key(declaration, CHALLENGER_PREDICTIONS),
        partitions_def=hourly_partitions(declaration),
        backfill_policy=backfill_policy,
        # The summary says which model has scored the hour.
        deps=[keys.predictions, keys.run_summary],
        group_name=group_name(declaration),
        kinds={"onnx", "mysql"},
        hooks={tag_fault(declaration)},
    )
    @as_dagster_failure
    def challenger_predictions(context: dg.AssetExecutionContext, model: Model) -> None:
        """What the challenger answers to a sample of the hour, in a table of its own, beside what was published.

        It shows how often both answer the same, how the labels have shifted and, as far as it is known what came true,
        how right both are on the very same items. Nothing is published: no item changes, and no hour waits for it.
        """
        pipeline, chosen = declaration.load(), closed_hours(context, declaration)
        challenger = _declared(pipeline)
        with faults_of_challenger():
            loaded = model.load(challenger.model, pipeline.items, pipeline.inference)
        done: dict[str, Mapping[str, Any]] = {}
        faults: dict[str, BatchAssetsError] = {}
        for hour in chosen:
            try:
                with faults_of_challenger():
                    done[hour.key] = _compare(context, declaration, pipeline, hour, loaded)
            except BatchAssetsError as fault:
                faults[hour.key] = fault
        if faults:
            # A step that fails records none of its partitions.
            for key, metadata in done.items():
                context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
            raise next(iter(faults.values())) if len(chosen) == 1 else _partitions_error(faults, len(chosen))
        for key, metadata in done.items():
            context.add_asset_metadata(metadata, partition_key=key)

    return challenger_predictions


def _compare(
    context: dg.AssetExecutionContext, declaration: Declaration, pipeline: Pipeline, hour: Hour, model: OnnxModel
) -> Mapping[str, Any]:
    """Compares an hour, and returns what the UI shows of it; it says why if there is nothing to compare."""
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    summary = read_summary(engine, tables, hour)
    reason = None
    if summary is None or summary.model_version is None or not summary.predicted:
        reason = f"The hour {hour.key} has no predictions: nothing to compare."
    elif summary.model_version == model.version:
        reason = f"The hour {hour.key} was scored by the challenger {model.name} itself: nothing to compare."
    if summary is None or reason:
        context.log.info(reason)
        return {"sampled": 0, "nothing to compare": reason}
    scoring = last_scorings(context.instance, declaration, [hour]).get(hour.key, {})
    scored_by = model_that_scored(pipeline, summary.model_version)
    labels = tuple(scoring.get("labels") or ()) or labels_of(scored_by, pipeline.items)
    sample = answer_sample(pipeline, hour, summary.predicted, _declared(pipeline).items, model)
    comparison = compare_hour(
        pipeline, hour, summary.model_version, labels, model, sample.items, sample.answers, utc_now()
    )
    return _metadata(comparison)


def _metadata(comparison: Comparison) -> Mapping[str, Any]:
    shown = {}
    if comparison.agreement.labels:
        shown["labels"] = labels_table(comparison.agreement)
    if comparison.examples:
        shown["items that differ"] = examples_table(comparison)
    # What says most comes first: the UI keeps the order.
    return {
        **{name: dg.MetadataValue.md(text) for name, text in shown.items()},
        **comparison.numbers(),
        "failed_by_code": dict(sorted(comparison.failed_by_code.items())),
        "challenger": comparison.hour.challenger,
        "challenger_version": comparison.hour.challenger_version,
        "model_version": comparison.hour.model_version,
    }


def _partitions_error(faults: Mapping[str, BatchAssetsError], count: int) -> PartitionsError:
    reasons: dict[str, list[str]] = {}
    for key, fault in faults.items():
        reasons.setdefault(str(fault), []).append(key)
    described = " ".join(f"{', '.join(keys)}: {reason}" for reason, keys in reasons.items())
    return PartitionsError(f"{len(faults)} of {counted(count, 'hour')} could not be compared. {described}", faults)


def _build_sensor(declaration: Declaration, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=declaration.prefixed("compare_challenger"),
        job=job,
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def compare_challenger(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Hours of the last seven days that the model in force has scored, and the challenger has not.

        The newest ones first, as many of them in a row as a run takes, and one run at a time. An hour whose run fails
        is not requested again before the challenger or the model in force is another one: materialise it.
        """
        pipeline, now = declaration.load(), utc_now()
        engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
        with faults_of_challenger():
            challenger = version_in_force(_declared(pipeline).model)
        model_version = last_model(engine, tables)
        if model_version in (None, challenger):
            return dg.SkipReason("No hour was scored, or the last one by the challenger itself: nothing to compare.")
        history = RunHistory(context.instance, declaration, asset_key(declaration, CHALLENGER_PREDICTIONS), job.name)
        if busy := history.busy_hours(now):
            return dg.SkipReason(f"{counted(len(busy), 'hour')} are being compared: it waits until that run has ended.")
        since = max(pipeline.first_hour.start, now - datetime.timedelta(days=DAYS_BACK))
        due = hours_to_compare(engine, tables, since, str(model_version), challenger)
        tag = {CHALLENGER_TAG: f"{challenger} {model_version}"}
        tried = _requested(context.instance, job.name, tag, now, history.hours_of)
        chosen = _newest_in_a_row([hour for hour in due if hour not in tried])
        if not chosen:
            failed = f" {counted(len(due), 'hour')} could not be compared: see the runs." if due else ""
            return dg.SkipReason(f"No hour is left to compare.{failed}")
        first, last = chosen[-1], chosen[0]
        # As a range, even of one: a run that has the partition as its tag would keep the hour itself waiting, of which
        # there are never two runs at once.
        return dg.RunRequest(
            run_key=f"{tag[CHALLENGER_TAG]} {first.key} {last.key}",
            tags={RANGE_START_TAG: first.key, RANGE_END_TAG: last.key, **tag, **_PRIORITY},
        )

    return compare_challenger


def _requested(
    instance: dg.DagsterInstance,
    job: str,
    tag: Mapping[str, str],
    now: datetime.datetime,
    hours_of: Callable[[dg.DagsterRun], list[Hour]],
) -> set[Hour]:
    """Returns the hours for which runs with a tag have been made, as far back as any is requested."""
    since = now.replace(tzinfo=datetime.UTC) - datetime.timedelta(days=DAYS_BACK)
    made = dg.RunsFilter(job_name=job, tags=dict(tag), created_after=since)
    return {hour for run in instance.get_runs(made) for hour in hours_of(run)}


def _newest_in_a_row(hours: list[Hour]) -> list[Hour]:
    """Returns the newest of some hours and those before it without a gap, newest first."""
    chosen = hours[:1]
    for hour in hours[1:HOURS_AT_ONCE]:
        if hour.end != chosen[-1].start:
            break
        chosen.append(hour)
    return chosen


def _declared(pipeline: Pipeline) -> Challenger:
    if pipeline.challenger is None:
        raise SettingsError(
            "This process knows of no challenger: set CHALLENGER_FILEPATH for it as for the process that shows the "
            "asset, or declare one."
        )
    return pipeline.challenger
