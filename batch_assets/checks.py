"""What must hold of the hours that were scored, looked up in the tables and not in the last run.

A check's result carries no hour (partitioned checks are a preview in Dagster 1.13), so these speak of all hours: green
means that none is left, whichever hour was materialised last.
"""

import os
from collections.abc import Mapping

import dagster as dg

from batch_assets.assets.run_summary import run_summary
from batch_assets.database.hours import Hour, first_hour, open_hour
from batch_assets.database.requests import what_is_left
from batch_assets.decision import Left
from batch_assets.failures import explained
from batch_assets.reporting.tables import markdown_table
from batch_assets.resources import Database
from batch_assets.retries import RetrySettings

HOURS_SHOWN = 24


@dg.asset_check(asset=run_summary)
@explained
def no_failed_items(database: Database) -> dg.AssetCheckResult:
    """No item of any hour stands in `failed_items`.

    Red: see there what is wrong. An item whose values are corrected is tried again by itself; after mending the model,
    put the items back with `batch-assets retry`.
    """
    return _result({hour: left.failed + left.given_up for hour, left in _left(database).items()}, "failed")


@dg.asset_check(asset=run_summary)
@explained
def no_pending_items(database: Database) -> dg.AssetCheckResult:
    """No closed hour has items with neither a prediction nor a reason why not, late ones included.

    Red: the sensor requests these hours, unless it has given them up, which `batch-assets status` says; or materialise
    them.
    """
    return _result({hour: left.pending for hour, left in _left(database).items()}, "pending")


def _left(database: Database) -> dict[Hour, Left]:
    """Returns what is left of all closed hours, the latest first."""
    attempts = RetrySettings.from_environment(os.environ).max_attempts
    left = what_is_left(database.engine(), first_hour(os.environ), open_hour().start, attempts)
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
