"""From the values of an item to its class probabilities: check, score, train. No Dagster, no SQL in here."""

import os

# From 1.29 on, ONNX Runtime tells its makers of every model that it loads, unless this is set when it is imported: the
# switch that it has in Python comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
