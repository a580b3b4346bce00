"""What must hold of the hours that were scored, looked up in the tables and not in the last run.

These speak of all hours: green means that none is left, whichever hour was materialised last. Those of an hour are in
`hour_checks.py`.
"""

from collections.abc import Mapping

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.remaining import remaining_by_hour
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import Hour, open_hour, utc_now
from batch_assets.orchestration.failures import as_dagster_failure
from batch_assets.orchestration.hour_checks import evaluation_of
from batch_assets.orchestration.names import asset_keys
from batch_assets.pipeline import Declaration, Pipeline
from batch_assets.reporting.newest_hour import newest_hour
from batch_assets.reporting.tables import markdown_table
from batch_assets.reporting.verdicts import NEWEST_HOUR_WAS_SCORED_IN_TIME
from batch_assets.retrying.decision import Remaining

HOURS_SHOWN = 24


def build_checks(declaration: Declaration) -> list[dg.AssetChecksDefinition]:
    """Returns the checks of the summary of a pipeline."""
    run_summary = asset_keys(declaration).run_summary

    @dg.asset_check(asset=run_summary)
    @as_dagster_failure
    def no_failed_items() -> dg.AssetCheckResult:
        """No item of any hour stands in `failed_items`.

        Red: see there what is wrong. An item whose values are corrected is tried again by itself; after fixing the
        model, put the items back with `batch-assets retry`.
        """
        return _failed_items(_left(declaration.load()))

    @dg.asset_check(asset=run_summary)
    @as_dagster_failure
    def no_pending_items() -> dg.AssetCheckResult:
        """No closed hour has items with neither a prediction nor a reason why not, late ones included.

        Red: the sensor requests these hours, unless it has given them up, which `batch-assets status` says; or
        materialise them.
        """
        return _pending_items(_left(declaration.load()))

    @dg.asset_check(asset=run_summary)
    @as_dagster_failure
    def newest_hour_was_scored_in_time() -> dg.AssetCheckResult:
        """The newest hour whose deadline has passed was summed up: BATCH_DEADLINE_MINUTES after its end.

        Red: see whether the schedule, the daemon and the database are up. The sensor looks every minute, also where
        nothing runs.
        """
        return _newest_hour(declaration)

    return [no_failed_items, no_pending_items, newest_hour_was_scored_in_time]


def evaluations(declaration: Declaration) -> list[dg.AssetCheckEvaluation]:
    """Returns what the checks say, for a run in which Dagster skips their steps."""
    left = _left(declaration.load())
    results = {
        "no_failed_items": _failed_items(left),
        "no_pending_items": _pending_items(left),
        NEWEST_HOUR_WAS_SCORED_IN_TIME: _newest_hour(declaration),
    }
    return [
        dg.AssetCheckEvaluation(
            asset_key=asset_keys(declaration).run_summary,
            check_name=name,
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
            description=result.description,
        )
        for name, result in results.items()
    ]


def _newest_hour(declaration: Declaration) -> dg.AssetCheckResult:
    evaluation = evaluation_of(declaration, newest_hour(declaration.load(), utc_now()))
    return dg.AssetCheckResult(
        passed=evaluation.passed,
        severity=evaluation.severity,
        description=evaluation.description,
        metadata=evaluation.metadata,
    )


def _failed_items(left: Mapping[Hour, Remaining]) -> dg.AssetCheckResult:
    return _result({hour: of_hour.failed + of_hour.given_up for hour, of_hour in left.items()}, "failed")


def _pending_items(left: Mapping[Hour, Remaining]) -> dg.AssetCheckResult:
    return _result({hour: of_hour.pending for hour, of_hour in left.items()}, "pending")


def _left(pipeline: Pipeline) -> dict[Hour, Remaining]:
    """Returns what is left of all closed hours, the latest first."""
    engine, attempts = engine_for(pipeline.database), pipeline.retry.max_attempts
    left = remaining_by_hour(engine, pipeline_tables(pipeline), pipeline.first_hour, open_hour().start, attempts)
    return dict(sorted(left.items(), key=lambda hour_left: hour_left[0].start, reverse=True))


def _result(left: Mapping[Hour, int], outcome: str) -> dg.AssetCheckResult:
    hours = {hour.key: items for hour, items in left.items() if items}
    shown = markdown_table(["hour", outcome], list(hours.items())[:HOURS_SHOWN])
    return dg.AssetCheckResult(
        passed=not hours,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{sum(hours.values()):,} items {outcome} in {len(hours):,} hours; expected none",
        metadata={
            outcome: sum(hours.values()),
            "hours": len(hours),
            **({"latest hours": dg.MetadataValue.md(shown)} if hours else {}),
        },
    )
