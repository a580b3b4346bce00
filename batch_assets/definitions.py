"""The one place where everything is put together."""

import dagster as dg

from batch_assets.io_manager import MySQLIOManager
from batch_assets.orchestration.assets.iris_model import iris_model
from batch_assets.orchestration.assets.predictions import predictions
from batch_assets.orchestration.assets.raw_items import raw_items
from batch_assets.orchestration.assets.run_summary import run_summary
from batch_assets.orchestration.automation import batch_inference, hourly_batch_inference, retry_hours
from batch_assets.orchestration.checks import no_failed_items, no_pending_items
from batch_assets.orchestration.resources import CurrentPipeline, Model

defs = dg.Definitions(
    assets=[iris_model, raw_items, predictions, run_summary],
    asset_checks=[no_failed_items, no_pending_items],
    jobs=[batch_inference],
    schedules=[hourly_batch_inference],
    sensors=[retry_hours],
    resources={"pipeline": CurrentPipeline(), "model": Model(), "mysql_io_manager": MySQLIOManager()},
    # A process for each step would cost more than an hour of items; backfills take the executor from here.
    executor=dg.in_process_executor,
)
