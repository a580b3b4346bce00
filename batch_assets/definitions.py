"""The one place where everything is put together."""

import dagster as dg

from batch_assets.component import pipeline_definitions
from batch_assets.orchestration.assets.iris_model import iris_model
from batch_assets.pipeline import OF_ENVIRONMENT

defs = dg.Definitions.merge(dg.Definitions(assets=[iris_model]), pipeline_definitions(OF_ENVIRONMENT))
