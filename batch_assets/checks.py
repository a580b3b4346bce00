"""What must hold of the hours that were scored, looked up in the tables and not in the last run.

A check's result carries no hour (partitioned checks are a preview in Dagster 1.13), so these speak of all hours: green
means that none is left, whichever hour was materialised last.
"""

from collections.abc import Mapping

import dagster as dg

from batch_assets.assets.run_summary import run_summary
from batch_assets.database.hours import Hour, hours_left
from batch_assets.failures import explained
from batch_assets.reporting.tables import markdown_table
from batch_assets.resources import Database

HOURS_SHOWN = 24


@dg.asset_check(asset=run_summary)
@explained()
def no_failed_items(database: Database) -> dg.AssetCheckResult:
    """No item of any hour stands in `failed_items`.

    Red: see there what is wrong, mend the items' values or the model, and materialise the hour again.
    """
    return _result({left.hour: left.failed for left in hours_left(database.engine())}, "failed")


@dg.asset_check(asset=run_summary)
@explained()
def no_pending_items(database: Database) -> dg.AssetCheckResult:
    """No hour was left with items that have neither a prediction nor a reason why not.

    Red: materialise the hours it names again.
    """
    return _result({left.hour: left.pending for left in hours_left(database.engine())}, "pending")


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
