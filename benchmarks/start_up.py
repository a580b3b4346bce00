"""The whole process of `dagster job execute` for an hour, in turn with a job of three assets that do nothing.

    python -m benchmarks.start_up [--runs 7] [--items 0]

The database is a new SQLite file, or the one of MYSQL_SERVER, whose items table must be empty. Prints the median of
each, and the median of the ratios pair by pair: machines are noisy, and a pair sees the same noise.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from batch_assets.database.records.hour_counts import first_created
from batch_assets.database.records.register import register_items
from batch_assets.database.schema.setup import initialize_database
from batch_assets_tests.support.engines import ITEMS, engine_from_environment

HOUR = datetime.datetime(2026, 11, 1, 5)  # noqa: DTZ001 - UTC without a zone, as in the database


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=7, help="counted pairs of runs")
    arguments.add_argument("--items", type=int, default=0, help="items in the hour, scored in the first run")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(BATCH_ASSETS_HOME=home, DAGSTER_HOME=home, DAGSTER_DISABLE_TELEMETRY="yes")
        # Byte code is written, as it is wherever the package is installed.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        fill(options.items)
        pairs = [(run("batch_assets.definitions", "batch_inference"), run("benchmarks.no_op", "no_op"))]
        pairs = [
            (run("batch_assets.definitions", "batch_inference"), run("benchmarks.no_op", "no_op"))
            for _ in range(options.runs)
        ]
    ratios = sorted(job / no_op for job, no_op in pairs)
    print(f"batch_inference  {statistics.median(job for job, _ in pairs):.2f} s")
    print(f"no_op            {statistics.median(no_op for _, no_op in pairs):.2f} s")
    print(f"ratio            {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})")


def fill(count: int) -> None:
    """Makes the tables and registers items of one hour."""
    engine = engine_from_environment()
    initialize_database(engine, ITEMS)
    if first_created(engine, ITEMS) is not None:
        sys.exit("The items table is not empty: name another database in MYSQL_DATABASE.")
    register_items(engine, ITEMS, ["[5.1,3.5,1.4,0.2]"] * count, HOUR + datetime.timedelta(minutes=30))


def run(module: str, job: str) -> float:
    """Returns the seconds of one run."""
    tags = json.dumps({"dagster/partition": HOUR.strftime("%Y-%m-%d-%H:%M")})
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", module, "-j", job, "--tags", tags],
        check=True,
        capture_output=True,
        timeout=600,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
