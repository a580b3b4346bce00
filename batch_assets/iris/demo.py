"""The demonstration: real measurements in past hours, scored as a backfill of production scores them."""

import datetime
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_counts import count_by_hour, first_created
from batch_assets.database.records.register import register_items
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import BatchAssetsError, DatabaseError
from batch_assets.hours import Hour, open_hour
from batch_assets.pipeline import pipeline_from_environment
from batch_assets.settings.database import MySQLSettings
from batch_assets.settings.environment import environment
from batch_assets.settings.folders import home_folder

ITEMS = 65_322
HOURS = 6


def run_demo(on_progress: Callable[[str], None]) -> None:
    """Registers items of the last closed hours in an empty database and scores them in one run, as a backfill does.

    On the embedded database a second demonstration adds nothing and scores what is pending.

    Args:
        on_progress: Is called with each sentence of progress.

    Raises:
        DatabaseError: A server was named whose items table is not empty.
        BatchAssetsError: The hours could not be scored.
    """
    pipeline = pipeline_from_environment()
    database, tables = pipeline.database, pipeline_tables(pipeline)
    items = tables.items
    engine = engine_for(database)
    initialize_database(engine, items)
    end = open_hour().start
    if first_created(engine, items) is None:
        for number, texts in enumerate(_texts_by_hour()):
            start = end - datetime.timedelta(hours=HOURS - number)
            register_items(engine, items, texts, start + datetime.timedelta(minutes=30))
        on_progress(
            f"{ITEMS:,} items registered in the {HOURS} hours before {end:%Y-%m-%d %H:%M} UTC, in the {database}"
        )
    elif isinstance(database, MySQLSettings):
        raise DatabaseError(
            f"The table items in {database.database!r} is not empty: the demonstration adds items to an "
            "empty table only. Name another database in MYSQL_DATABASE, or unset MYSQL_SERVER."
        )
    day = datetime.timedelta(days=1)
    left = [counts for counts in count_by_hour(engine, tables, end - day, end) if counts.pending]
    if left:
        first, last = left[0].hour, left[-1].hour
        pending = sum(counts.pending for counts in left)
        on_progress(f"dagster job execute for {first.key} to {last.key}: {pending:,} items")
        _execute(first, last)


def _texts_by_hour() -> list[list[str]]:
    from batch_assets.iris.training import iris_items  # noqa: PLC0415 - imports scikit-learn

    texts = [json.dumps(values) for values in iris_items(ITEMS, seed=2026)]
    return [texts[number::HOURS] for number in range(HOURS)]


def _execute(first: Hour, last: Hour) -> None:
    # One run: to start a process for each hour takes several times as long as to score them all.
    hours = {"dagster/asset_partition_range_start": first.key, "dagster/asset_partition_range_end": last.key}
    home = Path(environment().get("DAGSTER_HOME") or home_folder(environment()))
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "batch_assets.definitions"]
    command += ["-j", "batch_inference", "--tags", json.dumps(hours)]
    done = subprocess.run(  # noqa: S603 - the command above, and nothing of anybody else's
        command, env={**environment(), "DAGSTER_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        # What Dagster prints is long: the sentence of the failure, if there is one, stands in front of a traceback.
        failure = re.search(r"^dagster\S+\.Failure: (.+)", done.stderr, re.MULTILINE)
        raise BatchAssetsError(
            f"The hours {first.key} to {last.key} could not be scored: {failure[1] if failure else done.stderr.strip()}"
        )
