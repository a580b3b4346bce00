"""How right the predictions were: an asset of each hour, recorded by a sensor when it becomes known."""

import datetime

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.actuals import COMMIT_SECONDS, hours_to_measure
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import utc_now
from batch_assets.orchestration.names import HOUR_QUALITY, asset_key, asset_keys, group_name
from batch_assets.orchestration.partitions import hourly_partitions
from batch_assets.pipeline import Declaration
from batch_assets.reporting.quality import measure_hour
from batch_assets.wording import counted

# Of a tick: what is left comes with the next one.
HOURS_AT_ONCE = 10


def build_quality(declaration: Declaration) -> dg.Definitions:
    """Returns the asset `hour_quality` of a pipeline, and the sensor that records it."""
    key = asset_key(declaration, HOUR_QUALITY)
    asset = dg.AssetSpec(
        key,
        deps=[asset_keys(declaration).predictions],
        partitions_def=hourly_partitions(declaration),
        group_name=group_name(declaration),
        kinds={"mysql"},
        description="How right the predictions of the hour were, as far as the table `actuals` has what came true.",
    )

    @dg.sensor(
        name=declaration.prefixed("measure_quality"),
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def measure_quality(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Measures the hours of which more is known than when they were measured last."""
        pipeline, now = declaration.load(), utc_now()
        since = datetime.datetime.fromisoformat(context.cursor) if context.cursor else pipeline.first_hour.start
        engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
        hours = hours_to_measure(engine, tables, since, HOURS_AT_ONCE)
        events: list[dg.AssetMaterialization] = []
        for hour in hours:
            numbers = measure_hour(pipeline, hour, now).numbers()
            events.append(dg.AssetMaterialization(key, partition=hour.key, metadata=dict(numbers)))
        # Only when nothing is left: what was known at this moment has been looked at.
        done = len(hours) < HOURS_AT_ONCE
        seen = now - datetime.timedelta(seconds=2 * COMMIT_SECONDS)
        return dg.SensorResult(
            skip_reason=f"{counted(len(hours), 'hour')} measured.",
            asset_events=events,
            cursor=seen.isoformat(timespec="seconds") if done else context.cursor,
        )

    return dg.Definitions(assets=[asset], sensors=[measure_quality])
