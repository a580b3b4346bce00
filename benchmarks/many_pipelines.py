"""What the ticks of all sensors take where many pipelines are declared.

    python -m benchmarks.many_pipelines [--server mariadb|mysql] [--pipelines 20] [--items 20000] [--ticks 10]

Makes a private server with a table of items for each pipeline: nine of ten items have a prediction, the others lie in
the last hours. Dagster's own tables are in the same server, with a run of each pipeline for each of the hours. Prints
the median and the worst time of a round of ticks, of every sensor one after the other, in milliseconds.
"""

import argparse
import datetime
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.test_utils import create_run_for_test

from batch_assets.component import pipeline_definitions
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.orchestration.names import job_name
from batch_assets.pipeline import ITEM_TABLE, Declaration, ItemTable
from batch_assets.settings.database import database_settings
from batch_assets.settings.folders import root_folder
from benchmarks.servers import server_of_kind

HOURS = 24


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", choices=["mariadb", "mysql"])
    arguments.add_argument("--pipelines", type=int, default=20)
    arguments.add_argument("--items", type=int, default=20_000)
    arguments.add_argument("--ticks", type=int, default=10)
    options = arguments.parse_args()
    with (
        server_of_kind(options.server) as private,
        private.server.database() as shop,
        private.server.database() as dagster,
        tempfile.TemporaryDirectory() as home,
    ):
        os.environ.update(private.server.environment(shop) | {"MYSQL_DAGSTER_DATABASE": dagster, "DAGSTER_HOME": home})
        shutil.copy(root_folder() / "dagster.yaml", Path(home) / "dagster.yaml")
        declared = [
            Declaration(name=f"pipeline_{number}", items=ItemTable(name=f"items_{number}"))
            for number in range(options.pipelines)
        ]
        fill(engine_for(database_settings(os.environ)), declared, options.items)
        with dg.DagsterInstance.get() as instance:
            seconds = rounds(instance, declared, options.ticks)
        times = f"median {statistics.median(seconds) * 1000:.0f} ms, worst {max(seconds) * 1000:.0f} ms"
        print(f"{private.server.version}, {options.pipelines} pipelines of {options.items:,} items: {times} a round")


def fill(engine: sa.Engine, declared: list[Declaration], items: int) -> None:
    """Makes a table for each pipeline."""
    initialize_database(engine, item_table(ITEM_TABLE))
    now = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0, tzinfo=None)
    first = now - datetime.timedelta(hours=HOURS)
    with engine.begin() as connection:
        connection.execute(sa.insert(item_table(ITEM_TABLE)), _rows(first, items))
        for declaration in declared:
            connection.exec_driver_sql(f"CREATE TABLE {declaration.items.name} LIKE items")
            columns = "id, `values`, prediction, created_datetime, updated_datetime"
            connection.exec_driver_sql(f"INSERT INTO {declaration.items.name} ({columns}) SELECT {columns} FROM items")
    initialize_database(engine, *(item_table(declaration.items) for declaration in declared))


def _rows(first: datetime.datetime, items: int) -> list[dict[str, object]]:
    return [
        {
            "values": "[5.1,3.5,1.4,0.2]",
            "prediction": "[0.9,0.1,0.0]" if number < items * 9 // 10 else None,
            "created_datetime": first + datetime.timedelta(seconds=number * HOURS * 3600 // items),
            "updated_datetime": first,
        }
        for number in range(items)
    ]


def rounds(instance: dg.DagsterInstance, declared: list[Declaration], count: int) -> list[float]:
    """Returns the seconds of each round."""
    repository = dg.Definitions.merge(*map(pipeline_definitions, declared)).get_repository_def()
    now = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    for declaration in declared:
        for back in range(1, HOURS):
            hour = f"{now - datetime.timedelta(hours=back):%Y-%m-%d-%H:%M}"
            tags = {"dagster/partition": hour}
            create_run_for_test(instance, job_name(declaration), status=dg.DagsterRunStatus.SUCCESS, tags=tags)
    seconds = []
    for _ in range(count + 1):
        start = time.perf_counter()
        for declaration in declared:
            sensor = repository.get_sensor_def(declaration.prefixed("retry_hours"))
            sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    main()
