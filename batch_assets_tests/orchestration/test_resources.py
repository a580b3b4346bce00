"""What the assets are handed."""

import subprocess
import sys


def test_the_runtime_of_the_model_is_imported_beside_the_beginning_of_the_run() -> None:
    program = """
import sys, threading
import dagster as dg
from batch_assets.orchestration.resources import Model

@dg.asset
def scored(model: Model) -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    print("onnxruntime" in sys.modules)

print("onnxruntime" in sys.modules, end=" ")
with dg.DagsterInstance.ephemeral() as instance:
    dg.materialize([scored], resources={"model": Model()}, instance=instance)
"""
    printed = subprocess.check_output([sys.executable, "-c", program], encoding="utf-8", timeout=120)
    assert printed.split() == ["False", "True"]
