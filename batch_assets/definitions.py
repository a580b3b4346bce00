"""The one place where everything is put together."""

import dagster as dg

from batch_assets.io_manager import MySQLIOManager
from batch_assets.orchestration.assets.iris_model import iris_model
from batch_assets.orchestration.names import IO_MANAGER
from batch_assets.orchestration.pipeline_definitions import build_pipeline
from batch_assets.orchestration.resources import Model
from batch_assets.pipeline import OF_ENVIRONMENT

defs = dg.Definitions.merge(
    dg.Definitions(
        assets=[iris_model],
        resources={"model": Model(), IO_MANAGER: MySQLIOManager()},
        # A process for each step would cost more than an hour of items; backfills take the executor from here.
        executor=dg.in_process_executor,
    ),
    build_pipeline(OF_ENVIRONMENT),
)
