"""What a model costs that takes a core about a millisecond an item: on one core, on all of them, and on a Ray cluster.

    python -m benchmarks.heavy_models [--items 65322] [--memory 16000] [--rounds 1] [--layers 36]
        [--sides 'one core' ...] [--server mariadb|mysql] [--json FILE]

Makes a private server, or an SQLite file without `--server`. Each side scores the same hour anew, in a process of its
own, by the step `predictions`; the sides take turns:

- `one core`: as `batches at once`, in a process that may use one core;
- `threads of ONNX Runtime`: one batch at a time on all cores, which is the default;
- `batches at once`: as many as there are cores (`BATCH_SCORING_THREADS`);
- `ray`: a cluster of two nodes on this machine, each with one processor (`BATCH_RAY_ADDRESS`);
- `ray, node killed`: the same, and a node is killed when a third of the items have been written.

After each side every item must have the prediction of the model, and the step must have scored each of them once.
Prints the seconds of the step and the peak of the process's memory. The threads and the cluster also score an hour of
`--memory` items: the peak must not depend on their number. Ray is measured where it is installed:
`pip install 'ray[client]'`.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import sqlalchemy as sa

from batch_assets.component import pipeline_definitions
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.inference.model_files import load_model
from batch_assets.iris.training import iris_items
from batch_assets.orchestration.names import asset_keys
from batch_assets.pipeline import ITEM_TABLE, Declaration, ItemTable
from batch_assets.settings.database import database_settings
from batch_assets.settings.inference import cores
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.onnx_models import write_heavy_classifier
from batch_assets_tests.support.ray_cluster import RayCluster, ray_cluster
from benchmarks.named_features import DISTINCT_ITEMS, HOUR, database, fill

TOLERANCE = 1e-4
ONE_CORE, THREADS, AT_ONCE, RAY, RAY_KILLED = (
    "one core",
    "threads of ONNX Runtime",
    "batches at once",
    "ray",
    "ray, node killed",
)
SIDES = (ONE_CORE, THREADS, AT_ONCE, RAY, RAY_KILLED)
SIDE_SECONDS = 3600


@dataclass(frozen=True)
class Figure:
    """What a side took.

    Args:
        side: Its name.
        items: How many items it scored.
        seconds: Of the step.
        peak_mebibytes: The most memory that the process of the step had at a time.
    """

    side: str
    items: int
    seconds: float
    peak_mebibytes: float


@dataclass(frozen=True)
class Hour:
    """Items in a table, and what a model answers to them.

    Args:
        engine: The database.
        declaration: The pipeline that scores them.
        items: How many there are.
        wanted: What the model answers to each of the first of them; from there on they are the same again.
    """

    engine: sa.Engine
    declaration: Declaration
    items: int
    wanted: Any

    @property
    def scored(self) -> int:
        """How many items have a prediction."""
        with self.engine.connect() as connection:
            statement = f"SELECT COUNT(prediction) FROM {self.declaration.items.name}"
            return int(connection.exec_driver_sql(statement).scalar() or 0)

    def clear(self) -> None:
        """Takes the predictions away."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {self.declaration.items.name} SET prediction = NULL")

    def verify(self, side: str) -> None:
        """Ends the benchmark unless each item has the prediction of the model."""
        with self.engine.connect() as connection:
            statement = f"SELECT id, prediction FROM {self.declaration.items.name} ORDER BY id"
            rows = connection.exec_driver_sql(statement).fetchall()
        if [row[0] for row in rows] != list(range(1, self.items + 1)) or any(row[1] is None for row in rows):
            sys.exit(f"{side}: an item is gone, or has no prediction.")
        found = np.array([json.loads(row[1]) for row in rows])
        of_items = self.wanted[np.arange(self.items) % DISTINCT_ITEMS]
        if np.abs(found - of_items).max() > TOLERANCE:
            sys.exit(f"{side}: an item has a prediction that is not that of the model.")


def main() -> None:
    """Measures and prints, or scores once for a side."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--items", type=int, default=65_322)
    arguments.add_argument("--memory", type=int, default=16_000)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--layers", type=int, default=36)
    arguments.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    arguments.add_argument("--server", choices=["mariadb", "mysql"])
    arguments.add_argument("--json", type=Path, help="a file for every figure")
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.side:
        score_once(json.loads(options.side))
        return
    for name in [name for name in os.environ if name.startswith(("MYSQL_", "BATCH_", "DAGSTER_"))]:
        del os.environ[name]  # tables are made on no other server, and no setting of the machine changes results
    with tempfile.TemporaryDirectory() as folder, database(options.server, folder) as name:
        print(f"{name}, {cores()} cores")
        figures = measure(options, write_heavy_classifier(Path(folder), options.layers))
    if options.json:
        versions = {package: importlib.metadata.version(package) for package in ("onnxruntime", "numpy", "dagster")}
        document = {"database": name, "cores": cores(), "machine": platform.machine(), "versions": versions}
        options.json.write_text(json.dumps(document | {"figures": list(map(asdict, figures))}, indent=2) + "\n")


def measure(options: argparse.Namespace, files: ModelFiles) -> list[Figure]:
    """Has the sides take turns, and prints what they took."""
    engine = engine_for(database_settings(os.environ))
    initialize_database(engine, item_table(ITEM_TABLE))
    hours = [made_hour(engine, files, f"heavy_{count}", count) for count in (options.items, options.memory)]
    sides = list(options.sides)
    if {RAY, RAY_KILLED}.intersection(sides) and not importlib.util.find_spec("ray"):
        sides = [side for side in sides if side not in {RAY, RAY_KILLED}]
        print("Ray is not installed: `pip install 'ray[client]'` has it measured too.")
    figures = []
    print(f"{'side':24} {'items':>8} {'seconds':>9} {'ms an item':>11} {'peak MiB':>9}")
    for side in sides:
        figures += [measured(side, hours[0]) for _ in range(options.rounds)]
        figures += [measured(side, hours[1])] if side in {THREADS, RAY} else []
    for side in sides:
        seconds = [figure.seconds for figure in figures if (figure.side, figure.items) == (side, options.items)]
        print(f"median of {side}: {statistics.median(seconds):.1f} s")
    return figures


def made_hour(engine: sa.Engine, files: ModelFiles, table_name: str, count: int) -> Hour:
    """Fills a table with items."""
    values = iris_items(DISTINCT_ITEMS, seed=1)[:count]
    table = ItemTable(name=table_name, updated=None)
    fill(
        engine,
        table,
        {"values": sa.Text()},
        [{"values": json.dumps(row)} for row in np.asarray(values).tolist()],
        count,
    )
    model, features = load_model(files), np.asarray(values, np.float32)
    wanted = [model.probabilities(features[start : start + 500]) for start in range(0, len(features), 500)]
    return Hour(engine, Declaration(name=table_name, items=table, model=files), count, np.concatenate(wanted))


def measured(side: str, hour: Hour) -> Figure:
    """Runs a side once, and looks whether it has done its work."""
    hour.clear()
    with contextlib.ExitStack() as stack:
        # Where ONNX Runtime chooses how many threads it has, it gives each a core, whichever the process may use.
        settings = {"BATCH_SCORING_THREADS": str(max(2, cores()))} if side in {ONE_CORE, AT_ONCE} else {}
        if side in {RAY, RAY_KILLED}:
            cluster = stack.enter_context(ray_cluster())
            node = cluster.add_node()
            settings = {"BATCH_RAY_ADDRESS": cluster.address}
        process = stack.enter_context(started(side, hour, settings))
        if side == RAY_KILLED:
            kill_in_the_middle(cluster, node, hour, process)
        output, _ = process.communicate(timeout=SIDE_SECONDS)
    if process.returncode:
        sys.exit(f"{side} has failed:\n{output}")
    told = json.loads(output.splitlines()[-1])
    hour.verify(side)
    if (told["scored"], told["left"]) != (hour.items, 0):
        sys.exit(f"{side}: {told['scored']} items were scored and {told['left']} left, of {hour.items}.")
    figure = Figure(side, hour.items, told["seconds"], told["peak_mebibytes"])
    each = 1000 * figure.seconds / figure.items
    print(f"{side:24} {hour.items:8,} {figure.seconds:9.1f} {each:11.3f} {figure.peak_mebibytes:9.0f}", flush=True)
    return figure


@contextlib.contextmanager
def started(side: str, hour: Hour, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Starts the process of a side, and ends it."""
    declaration = hour.declaration
    assert isinstance(declaration.model, ModelFiles)  # made so above
    told = {
        "table": declaration.items.name,
        "settings": dict(settings),
        "cores": 1 if side == ONE_CORE else None,
        "files": [str(declaration.model.model_filepath), str(declaration.model.label_filepath)],
    }
    command: Sequence[str] = [sys.executable, "-m", "benchmarks.heavy_models", "--side", json.dumps(told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8") as process:
        try:
            yield process
        finally:
            process.kill()


def kill_in_the_middle(cluster: RayCluster, node: Any, hour: Hour, process: subprocess.Popen[str]) -> None:
    """Kills a node when a third of the items have been written."""
    while process.poll() is None and hour.scored < hour.items // 3:
        time.sleep(0.2)
    cluster.kill(node)


def score_once(side: Mapping[str, Any]) -> None:
    """Scores the hour by the step, and tells what it took."""
    if side["cores"] is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: side["cores"]])
    model, labels = map(Path, side["files"])
    table = ItemTable(name=side["table"], updated=None)
    files = ModelFiles(model, labels, None)
    declaration = Declaration(name=table.name, items=table, model=files, settings=side["settings"])
    key = asset_keys(declaration).predictions
    job = dg.define_asset_job("predict", selection=dg.AssetSelection.assets(key))
    definitions = dg.Definitions.merge(dg.Definitions(jobs=[job]), pipeline_definitions(declaration))
    with dg.DagsterInstance.ephemeral() as instance:
        run = definitions.resolve_job_def("predict").execute_in_process(instance=instance, partition_key=HOUR)
        (of_step,) = instance.get_run_step_stats(run.run_id)
        (stored,) = run.asset_materializations_for_node(key.to_python_identifier())
    metadata = {name: stored.metadata[name].value for name in ("scored", "left")}
    seconds = (of_step.end_time or 0) - (of_step.start_time or 0)
    print(json.dumps(metadata | {"seconds": seconds, "peak_mebibytes": peak_mebibytes()}))


def peak_mebibytes() -> float:
    """Returns the most memory that this program has had at a time; not what its parent had, as `getrusage` does."""
    status = Path("/proc/self/status").read_text("utf-8")
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peak) / 1024


if __name__ == "__main__":
    main()
