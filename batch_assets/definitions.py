"""The one place where everything is put together."""

import dagster as dg

from batch_assets.assets.iris_model import iris_model
from batch_assets.assets.predictions import predictions
from batch_assets.assets.raw_items import raw_items
from batch_assets.assets.run_summary import run_summary
from batch_assets.automation import batch_inference, hourly_batch_inference, retry_hours
from batch_assets.checks import no_failed_items, no_pending_items
from batch_assets.io_manager import MySQLIOManager
from batch_assets.resources import Database, Model

defs = dg.Definitions(
    assets=[iris_model, raw_items, predictions, run_summary],
    asset_checks=[no_failed_items, no_pending_items],
    jobs=[batch_inference],
    schedules=[hourly_batch_inference],
    sensors=[retry_hours],
    resources={"database": Database(), "model": Model(), "mysql_io_manager": MySQLIOManager()},
    # A process for each step would cost more than an hour of items; backfills take the executor from here.
    executor=dg.in_process_executor,
)
