"""Runs the sides, each as a process of its own, and reads what they and Dagster say of their seconds."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

import batch_assets
from batch_assets.settings.folders import root_folder
from benchmarks.rivals.items_table import SideError
from benchmarks.rivals.shared import START

PARTITION = f"{START[:10]}-{START[11:16]}"
# For the textbook way, which needs the longest.
SIDE_SECONDS = 3600
RIVALS = {"floor": "floor", "pandas": "pandas_frame", "ray": "ray_data", "textbook": "textbook"}
# A program's peak of memory counts what the process had that it was forked from: here next to nothing.
_LAUNCHER = """
import json, os, resource, sys, time
start = time.perf_counter()
status = os.spawnv(os.P_WAIT, sys.argv[2], sys.argv[2:])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
with open(sys.argv[1], "w") as file:
    json.dump({"process_seconds": seconds, "peak_mebibytes": peak, "status": status}, file)
"""


@dataclass(frozen=True)
class Measurement:
    """A side that has been run once.

    Args:
        seconds: What counts: of a rival its work, of the pipeline the step `predictions`.
        process_seconds: From the start of the process to its end.
        peak_mebibytes: The most memory that the process, or one of its children, had at a time.
        phases: Seconds of the parts, which may go on at the same time.
    """

    seconds: float
    process_seconds: float
    peak_mebibytes: float
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Programs:
    """Where the sides are run.

    Args:
        home: A folder, which becomes that of the Dagster instance.
        environment: Of every process; names the database beside it.
        ray_python: The Python that has Ray.
    """

    home: Path
    environment: Mapping[str, str]
    ray_python: str

    def prepare(self) -> None:
        """Makes the Dagster instance with the settings of the embedded one."""
        settings = Path(batch_assets.__file__).parent / "embedded_dagster.yaml"
        (self.home / "dagster.yaml").write_text(settings.read_text("utf-8"), "utf-8")

    def has_ray(self) -> bool:
        """Whether there is a Ray to measure."""
        code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('ray') is None)"
        return subprocess.run([self.ray_python, "-c", code], check=False, timeout=600).returncode == 0

    def rival(self, side: str, database: Mapping[str, str]) -> Measurement:
        """Runs a rival.

        Raises:
            SideError: It has failed.
        """
        python = self.ray_python if side == "ray" else sys.executable
        output, process = self._run([python, "-m", f"benchmarks.rivals.{RIVALS[side]}"], database)
        told = json.loads(output.splitlines()[-1])
        return Measurement(told.pop("seconds"), **process, phases=told)

    def no_op(self, database: Mapping[str, str]) -> Measurement:
        """Runs a job of three assets that do nothing."""
        _, process = self._job("benchmarks.no_op", "no_op", {}, database)
        return Measurement(process["process_seconds"], **process)

    def pipeline(self, mode: str, database: Mapping[str, str]) -> Measurement:
        """Runs the pipeline's job, and looks up what Dagster has recorded of it.

        Args:
            mode: The retry mode.
            database: The variables that name the database.

        Raises:
            SideError: The run has failed.
        """
        tags = {"batch_assets/retry": mode}
        _, process = self._job("batch_assets.definitions", "batch_inference", tags, database)
        steps, phases = self._recorded()
        seconds = steps.pop("predictions")
        phases |= {f"{step}_step_seconds": took for step, took in steps.items()}
        phases["other_seconds"] = process["process_seconds"] - seconds - sum(steps.values())
        return Measurement(seconds, **process, phases=phases)

    def _recorded(self) -> tuple[dict[str, float], dict[str, float]]:
        """Returns the seconds of each step of the latest run, and of the phases of the step `predictions`."""
        types = dg.DagsterEventType
        begun: dict[str, float] = {}
        steps: dict[str, float] = {}
        phases: dict[str, float] = {}
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            (run,) = instance.get_runs(limit=1)
            for log in instance.all_logs(
                run.run_id, {types.STEP_START, types.STEP_SUCCESS, types.ASSET_MATERIALIZATION}
            ):
                event = log.get_dagster_event()
                assert event.step_key
                if event.event_type == types.STEP_START:
                    begun[event.step_key] = log.timestamp
                elif event.event_type == types.STEP_SUCCESS:
                    steps[event.step_key] = log.timestamp - begun[event.step_key]
                elif event.step_key == "predictions":
                    metadata = event.step_materialization_data.materialization.metadata
                    phases |= {
                        name: float(str(value.value)) for name, value in metadata.items() if name.endswith("_seconds")
                    }
        return steps, phases

    def _job(
        self, module: str, job: str, tags: Mapping[str, str], database: Mapping[str, str]
    ) -> tuple[str, dict[str, Any]]:
        tags = {"dagster/partition": PARTITION, **tags}
        command = [sys.executable, "-m", "dagster", "job", "execute", "-m", module, "-j", job]
        return self._run([*command, "--tags", json.dumps(tags)], database)

    def _run(self, command: Sequence[str], database: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """Runs a command to its end; returns what it has printed, and its seconds and memory."""
        with tempfile.NamedTemporaryFile("r", dir=self.home, suffix=".json") as measured:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, measured.name, *command],
                # Not in the checkout: Dagster would read a developer's .env there.
                cwd=self.home,
                env={**self.environment, **database, "DAGSTER_HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                start_new_session=True,
            )
            try:
                output, errors = process.communicate(timeout=SIDE_SECONDS)
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)
                raise
            result = json.load(measured)
        if result.pop("status") != 0:
            raise SideError(f"{' '.join(command)} has failed:\n{output[-2000:]}\n{errors[-4000:]}")
        return output, result


def clean_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment without what is set on a machine and would only change results."""
    own = ("MYSQL_", "BATCH_", "DAGSTER_")
    # Byte code is written, as it is wherever the package is installed.
    others = {"MODEL_FILEPATH", "LABEL_FILEPATH", "SAMPLE_DATA_PATH", "PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in given.items() if not name.startswith(own) and name not in others}
    models = root_folder() / "models"
    return {
        **kept,
        "MODEL_FILEPATH": str(models / "iris_svc.onnx"),
        "LABEL_FILEPATH": str(models / "label.json"),
        "SAMPLE_DATA_PATH": str(models / "sample.json"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(root_folder()),
    }
