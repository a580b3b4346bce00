"""What features by name or in columns cost beside lists: the step `predictions` of an hour, from read to written.

    python -m benchmarks.named_features [--server mariadb|mysql] [--items 100000] [--rounds 6]

Makes a private server, or an SQLite file without `--server`. Each pipeline scores the same items in another form:
lists, lists in the order of declared features, objects by name, and columns. Before each step the rows are inserted
anew, since the server has less to do where a row has had a prediction. The sides take turns, in every other round from
the last to the first, since the one after may have to wait for what the server still has to do for the one before.
Prints the median seconds of the step of each, and how many times those of the first side they are, the median of the
rounds: for a model with one matrix of four numbers, and for one with an input for each of four features, one of them a
text.
"""

import argparse
import contextlib
import datetime
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import truediv
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import sqlalchemy as sa
from sklearn.linear_model import LogisticRegression

from batch_assets.component import pipeline_definitions
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.iris.training import iris_items
from batch_assets.orchestration.names import asset_keys
from batch_assets.pipeline import ITEM_TABLE, Declaration, ItemTable
from batch_assets.settings.database import database_settings
from batch_assets.settings.items import Feature
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.customers import as_objects, customers, fitted, risks, write_customer_model
from benchmarks.servers import server_of_kind

HOUR = "2026-11-02-05:00"
IRIS_FEATURES = ("sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm")
CUSTOMER_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "age": sa.Integer(),
    "plan": sa.String(20),
    "spent": sa.Double(),
    "active": sa.Boolean(),
}
DISTINCT_ITEMS = 10_000
FORMS = ("lists", "lists, declared", "objects", "columns")
# Lists without declared features need a model that takes one matrix.
FORMS_OF_FEATURES = FORMS[1:]


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", choices=["mariadb", "mysql"])
    arguments.add_argument("--items", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=6)
    options = arguments.parse_args()
    for name in [name for name in os.environ if name.startswith(("MYSQL_", "BATCH_", "DAGSTER_"))]:
        del os.environ[name]  # tables are made on no other server, and no setting of the machine changes results
    with tempfile.TemporaryDirectory() as folder, database(options.server, folder) as name:
        print(name)
        engine = engine_for(database_settings(os.environ))
        initialize_database(engine, item_table(ITEM_TABLE))
        print(f"{'model':22} {'items':16} {'seconds':>9} {'times':>6}")
        compare(engine, "matrix", iris_sides(engine, options.items), options)
        compare(engine, "input for each feature", customer_sides(engine, Path(folder), options.items), options)


@contextlib.contextmanager
def database(server: str | None, folder: str) -> Iterator[str]:
    """Has the environment name an empty database, and returns what it is."""
    if server is None:
        os.environ["BATCH_ASSETS_HOME"] = folder
        yield "SQLite"
        return
    with server_of_kind(server) as private, private.server.database() as name:
        os.environ.update(private.server.environment(name))
        yield private.server.version


def iris_sides(engine: sa.Engine, count: int) -> dict[str, Declaration]:
    """Returns pipelines that score the same flowers by the iris model."""
    rows = pd.DataFrame(iris_items(DISTINCT_ITEMS, seed=1), columns=IRIS_FEATURES)
    files = replace(ModelFiles.from_environment({}), sample_data_path=None)
    columns: dict[str, sa.types.TypeEngine[Any]] = {name: sa.Double() for name in IRIS_FEATURES}
    return sides(engine, "irises", files, rows, columns, FORMS, count)


def customer_sides(engine: sa.Engine, folder: Path, count: int) -> dict[str, Declaration]:
    """Returns pipelines that score the same customers by a model with preprocessing."""
    files = write_customer_model(folder, fitted(LogisticRegression(), risks), zipmap=False)
    return sides(engine, "customers", files, customers(DISTINCT_ITEMS), CUSTOMER_COLUMNS, FORMS_OF_FEATURES, count)


def sides(  # noqa: PLR0913, PLR0917 - what is the same for all of them
    engine: sa.Engine,
    prefix: str,
    model: ModelFiles,
    rows: pd.DataFrame,
    columns: Mapping[str, sa.types.TypeEngine[Any]],
    names: Sequence[str],
    count: int,
) -> dict[str, Declaration]:
    """Fills a table for each form that is named, and returns the pipelines that score them.

    All tables have the same columns: each one makes an update dearer, whether it is read or not.
    """
    features = tuple(map(Feature, columns))
    lists = [{"values": json.dumps(row)} for row in rows.astype(object).to_numpy().tolist()]
    objects = [{"values": text} for text in as_objects(rows)]
    dictionaries = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    forms: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
        "lists": ({}, lists),
        "lists, declared": ({"features": features}, lists),
        "objects": ({"features": features, "by_name": True}, objects),
        "columns": ({"features": features, "from_columns": True, "values": "all"}, lists),
    }
    found = {}
    for number, name in enumerate(names):
        form, items = forms[name]
        table = ItemTable(name=f"{prefix}_{number}", updated=None, **form)
        both = [{**of_columns, **of_text} for of_columns, of_text in zip(dictionaries, items, strict=True)]
        fill(engine, table, {"values": sa.Text(), **columns}, both, count)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE {table.name}_unscored AS SELECT * FROM {table.name}")
        found[name] = Declaration(name=table.name, items=table, model=model)
    return found


def fill(
    engine: sa.Engine,
    table: ItemTable,
    columns: Mapping[str, sa.types.TypeEngine[Any]],
    items: Sequence[dict[str, Any]],
    count: int,
) -> None:
    """Makes a table and fills it with items of one hour."""
    metadata = sa.MetaData()
    made = sa.Table(
        table.name,
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, kind, nullable=False) for name, kind in columns.items()),
        sa.Column("prediction", sa.Text()),
        sa.Column("created_datetime", sa.TIMESTAMP, nullable=False),
    )
    created = datetime.datetime.strptime(HOUR, "%Y-%m-%d-%H:%M")  # noqa: DTZ007 - UTC without a zone
    with engine.begin() as connection:
        metadata.create_all(connection)
        for start in range(0, count, DISTINCT_ITEMS):
            part = [
                {"id": start + at + 1, "created_datetime": created, **item}
                for at, item in enumerate(items[: count - start])
            ]
            connection.execute(sa.insert(made), part)
    initialize_database(engine, item_table(table))


def compare(engine: sa.Engine, model: str, declared: Mapping[str, Declaration], options: argparse.Namespace) -> None:
    """Has the sides take turns and prints what they took."""
    measured: dict[str, list[float]] = {name: [] for name in declared}
    for number in range(options.rounds + 1):
        for name in list(declared) if number % 2 else reversed(list(declared)):
            seconds = step(engine, declared[name], options.items)
            if number:  # the first one warms up
                measured[name].append(seconds)
    first = next(iter(measured.values()))
    for name, seconds_of_rounds in measured.items():
        times = statistics.median(map(truediv, seconds_of_rounds, first))
        print(f"{model:22} {name:16} {statistics.median(seconds_of_rounds):9.3f} {times:6.2f}", flush=True)


def step(engine: sa.Engine, declaration: Declaration, count: int) -> float:
    """Scores all items, and returns the seconds of the step."""
    table = declaration.items.name
    with engine.begin() as connection:
        connection.exec_driver_sql(f"{'DELETE FROM' if engine.dialect.name == 'sqlite' else 'TRUNCATE'} {table}")
        connection.exec_driver_sql(f"INSERT INTO {table} SELECT * FROM {table}_unscored")
    keys = asset_keys(declaration)
    job = dg.define_asset_job("predict", selection=dg.AssetSelection.assets(keys.predictions))
    definitions = dg.Definitions.merge(dg.Definitions(jobs=[job]), pipeline_definitions(declaration))
    with dg.DagsterInstance.ephemeral() as instance:
        run = definitions.resolve_job_def("predict").execute_in_process(instance=instance, partition_key=HOUR)
        (statistics_of_step,) = instance.get_run_step_stats(run.run_id)
    with engine.connect() as connection:
        scored = connection.exec_driver_sql(f"SELECT COUNT(prediction) FROM {table}").scalar()
    if scored != count:
        raise SystemExit(f"{declaration.name}: {scored} of {count} items were scored")
    return (statistics_of_step.end_time or 0) - (statistics_of_step.start_time or 0)


if __name__ == "__main__":
    main()
