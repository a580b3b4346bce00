"""What starts the hours: the job and its schedule."""

import dagster as dg

from batch_assets.assets.predictions import predictions
from batch_assets.assets.raw_items import raw_items
from batch_assets.assets.run_summary import run_summary

batch_inference = dg.define_asset_job(
    "batch_inference",
    selection=dg.AssetSelection.assets(raw_items, predictions, run_summary),
    description="Scores the items of an hour and sums it up.",
)

hourly_batch_inference = dg.build_schedule_from_partitioned_job(
    batch_inference,
    name="hourly_batch_inference",
    description="The hour that has just closed, at minute 19.",
    minute_of_hour=19,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
