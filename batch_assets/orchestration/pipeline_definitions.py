"""What Dagster is given of a pipeline: its assets, their checks, its job, its schedule and its sensors."""

import dagster as dg

from batch_assets.orchestration.alerts import build_alerts
from batch_assets.orchestration.assets.predictions import build_predictions
from batch_assets.orchestration.assets.raw_items import build_raw_items
from batch_assets.orchestration.assets.run_summary import build_run_summary
from batch_assets.orchestration.automation import build_job, build_schedule, build_sensor
from batch_assets.orchestration.canary import build_canary
from batch_assets.orchestration.challenger import build_challenger
from batch_assets.orchestration.checks import build_checks
from batch_assets.orchestration.quality import build_quality
from batch_assets.pipeline import Declaration


def build_pipeline(declaration: Declaration) -> dg.Definitions:
    """Returns the definitions of a pipeline, without resources."""
    job = build_job(declaration)
    scoring = dg.Definitions(
        assets=[build_raw_items(declaration), build_predictions(declaration), build_run_summary(declaration)],
        asset_checks=build_checks(declaration),
        jobs=[job],
        schedules=[build_schedule(declaration, job)],
        sensors=[build_sensor(declaration, job), build_alerts(declaration)],
    )
    beside = build_canary(declaration), build_quality(declaration), build_challenger(declaration)
    return dg.Definitions.merge(scoring, *beside)
