"""The checks of an hour, recorded for its partition by whatever sums it up: a step for one hour.

A step of its own for a check says one thing of all its hours; these say one of each.
"""

import datetime
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.failed_items import stray_failures
from batch_assets.database.records.hour_counts import count_by_hour
from batch_assets.database.records.profiles import Profile
from batch_assets.database.records.promotions import with_model_in_force
from batch_assets.database.records.summaries import read_volumes
from batch_assets.database.schema.tables import PipelineTables, pipeline_tables
from batch_assets.errors import ModelError, RegistryError, SettingsError
from batch_assets.hours import Hour
from batch_assets.inference.model_version import version_in_force
from batch_assets.monitoring.judgement import REFERENCE_AGE
from batch_assets.monitoring.volume import judge_volume
from batch_assets.orchestration.dagster_internals import AssetCheckEvaluationTargetMaterializationData
from batch_assets.orchestration.failures import as_dagster_failure
from batch_assets.orchestration.names import asset_keys
from batch_assets.orchestration.partitions import hourly_partitions
from batch_assets.pipeline import Declaration, Pipeline
from batch_assets.reporting.summary import Summary
from batch_assets.reporting.verdicts import (
    CHECKS_OF_HOUR,
    Verdict,
    verdict_on_failures,
    verdict_on_model,
    verdicts_of_hour,
    verdicts_on_profile,
    verdicts_on_volume,
)
from batch_assets.settings.model import RegisteredModel

# Of an hour: a run over many records each of them twice.
EVENTS_AT_ONCE = 3
# Without its partitions, a check that is declared would be planned once for a run, and never be done in the UI.
warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)


@dataclass(frozen=True)
class SummedHour:
    """An hour that was summed up.

    Args:
        summary: Its row in `run_summary`.
        profile: What its items looked like, None if no run is known that scored it.
    """

    summary: Summary
    profile: Profile | None


def checks_of_hour(declaration: Declaration) -> list[dg.AssetCheckSpec]:
    """Returns the checks that each hour of a pipeline has."""
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset_keys(declaration).run_summary,
            description=description,
            partitions_def=hourly_partitions(declaration),
        )
        for name, description in CHECKS_OF_HOUR.items()
    ]


@as_dagster_failure
def record_checks(
    context: dg.AssetExecutionContext, declaration: Declaration, hours: Mapping[Hour, SummedHour]
) -> None:
    """Records what holds of hours that were summed up; nothing of what was not judged, which is neither green nor red.

    After they are recorded as materialised: Dagster counts no result that does not name the materialisation it is of.

    Args:
        context: That of the step, whichever it is.
        declaration: The pipeline.
        hours: What is known of each.
    """
    pipeline = with_model_in_force(declaration.load())
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    in_force = _model_in_force(pipeline)
    materialised = _materialisations(context.instance, declaration, list(hours))
    volumes = _volumes_before(engine, tables, hours)
    for hour, summed in hours.items():
        summary = summed.summary
        name = "model" if isinstance(pipeline.model, RegisteredModel) else "model_version"
        of_model = verdict_on_model(
            summary.outcome.predicted, summary.predicted_by_other_models, summary.scoring.get(name), in_force
        )
        strays = stray_failures(engine, tables, hour)
        profile, command = summed.profile, declaration.command("baseline")
        of_profile = verdicts_on_profile(profile, command) if profile else []
        volume = judge_volume(hour.start, summary.outcome.items, volumes)
        of_items = verdicts_of_hour(summary.outcome, strays, pipeline.retry, of_model)
        for verdict in [*of_items, *of_profile, *verdicts_on_volume(volume)]:
            context.log_event(evaluation_of(declaration, verdict, hour, materialised.get(hour.key)))


def _volumes_before(engine: sa.Engine, tables: PipelineTables, hours: Collection[Hour]) -> dict[datetime.datetime, int]:
    starts = [hour.start for hour in hours]
    return read_volumes(engine, tables, min(starts) - REFERENCE_AGE, max(starts)) if starts else {}


def record_failures(context: dg.AssetExecutionContext, declaration: Declaration, hours: Sequence[Hour]) -> None:
    """Records which of the hours that a run has failed for have more failed items than the limits allow.

    They are not summed up: nothing else is said of them.
    """
    pipeline = declaration.load()
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    for hour in hours:
        for counts in count_by_hour(engine, tables, hour.start, hour.end):
            verdict = verdict_on_failures(counts.failed, counts.items, pipeline.retry)
            if not verdict.passed:
                materialised = _materialisations(context.instance, declaration, [hour])
                context.log_event(evaluation_of(declaration, verdict, hour, materialised.get(hour.key)))


def evaluation_of(
    declaration: Declaration,
    verdict: Verdict,
    hour: Hour | None = None,
    materialised: AssetCheckEvaluationTargetMaterializationData | None = None,
) -> dg.AssetCheckEvaluation:
    """Returns a verdict as Dagster records it.

    Args:
        declaration: The pipeline.
        verdict: What holds.
        hour: Of which hour; None of all of them.
        materialised: Of which materialisation of the hour.
    """
    return dg.AssetCheckEvaluation(
        asset_key=asset_keys(declaration).run_summary,
        check_name=verdict.name,
        passed=verdict.passed,
        metadata={**verdict.numbers, "seen": verdict.seen, "expected": verdict.expected},
        severity=dg.AssetCheckSeverity.ERROR if verdict.grave else dg.AssetCheckSeverity.WARN,
        description=f"{verdict.seen}; expected: {verdict.expected}",
        partition=hour.key if hour else None,
        target_materialization_data=materialised,
    )


def _materialisations(
    instance: dg.DagsterInstance, declaration: Declaration, hours: Sequence[Hour]
) -> dict[str, AssetCheckEvaluationTargetMaterializationData]:
    """Returns the last materialisation of each of some hours, all looked up at once."""
    if not hours:
        return {}
    wanted = dg.AssetRecordsFilter(
        asset_key=asset_keys(declaration).run_summary, asset_partitions=[hour.key for hour in hours]
    )
    found: dict[str, AssetCheckEvaluationTargetMaterializationData] = {}
    for record in instance.fetch_materializations(wanted, limit=EVENTS_AT_ONCE * len(hours)).records:
        data = AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        found.setdefault(str(record.partition_key), data)
    return found


def _model_in_force(pipeline: Pipeline) -> str:
    try:
        return version_in_force(pipeline.model)
    except (ModelError, RegistryError, SettingsError) as error:  # which does not make the summary a wrong one
        return f"that cannot be told: {error}"
