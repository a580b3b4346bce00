"""The model: its files, its fit, and what it takes and answers. No Dagster, no SQL in here."""

from batch_assets.settings.environment import set_default

# From 1.29 on, ONNX Runtime tells its makers of every model that it loads, unless this is set when it is imported: the
# switch that it has in Python comes too late.
set_default("ORT_DISABLE_TELEMETRY", "1")
# MLflow tells its makers of what it does, unless this is set when it is imported.
set_default("MLFLOW_DISABLE_TELEMETRY", "true")
