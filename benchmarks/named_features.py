"""What features by name cost beside lists: to read the items of an hour, check and score them.

    python -m benchmarks.named_features [--items 100000] [--rounds 5]

Makes a database of its own on the server of MYSQL_SERVER, or an SQLite file, and removes it. Each table holds the same
items in another form: lists without a declaration, lists in the order of declared features, and objects by name. The
sides take turns. Prints the median seconds of each, those for which the process was at work, and how many times those
of the first side they are: for a model with one matrix of four numbers, and for one with an input for each of four
features, one of them a text.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sklearn.linear_model import LogisticRegression

from batch_assets.database.slices.reading import read_batches
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.inference.model_files import load_model
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.iris.training import iris_items
from batch_assets.pipeline import ItemTable
from batch_assets.scoring.batches import Progress, score
from batch_assets.settings.items import Feature, ItemFormat
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.customers import (
    FEATURES,
    as_lists,
    as_objects,
    customers,
    fitted,
    risks,
    write_customer_model,
)
from benchmarks.sensor_tick import database

IRIS_FEATURES = ("sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm")
DISTINCT_ITEMS = 10_000


@dataclass(frozen=True)
class Side:
    """Items in one form.

    Args:
        name: What it is called.
        table: The table that holds them.
        items: Their form.
        model: The model that scores them.
    """

    name: str
    table: str
    items: ItemTable
    model: OnnxModel


class Seconds(NamedTuple):
    """How long something took, and for how much of that this process was at work."""

    elapsed: float
    of_processor: float


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--items", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    print(f"{'model':22} {'items':16} {'seconds':>9} {'of processor':>13} {'times':>6} {'of processor':>13}")
    with database() as engine, tempfile.TemporaryDirectory() as folder:
        for kind, sides in (("matrix", matrix_sides), ("input for each feature", feature_sides)):
            compare(engine, kind, sides(engine, Path(folder), options.items), options.rounds)


def matrix_sides(engine: sa.Engine, _folder: Path, count: int) -> list[Side]:
    """Returns the sides of the iris model."""
    items = iris_items(DISTINCT_ITEMS, seed=1)
    lists = list(map(json.dumps, items))
    objects = [json.dumps(dict(zip(IRIS_FEATURES, item, strict=True))) for item in items]
    files = replace(ModelFiles.from_environment(os.environ), sample_data_path=None)
    features = tuple(map(Feature, IRIS_FEATURES))
    make = side_of(engine, files, "irises", count)
    return [
        make("lists", lists, ItemFormat()),
        make("lists, declared", lists, ItemFormat(features=features)),
        make("objects", objects, ItemFormat(features=features, by_name=True)),
    ]


def feature_sides(engine: sa.Engine, folder: Path, count: int) -> list[Side]:
    """Returns the sides of a model with preprocessing."""
    rows = customers(DISTINCT_ITEMS)
    files = write_customer_model(folder, fitted(LogisticRegression(), risks), zipmap=False)
    make = side_of(engine, files, "customers", count)
    return [
        make("lists, declared", as_lists(rows), ItemFormat(features=FEATURES)),
        make("objects", as_objects(rows), ItemFormat(features=FEATURES, by_name=True)),
    ]


def side_of(
    engine: sa.Engine, files: ModelFiles, prefix: str, count: int
) -> Callable[[str, Sequence[str], ItemFormat], Side]:
    """Returns what fills a table for a side and loads the model for it."""

    def make(name: str, texts: Sequence[str], form: ItemFormat) -> Side:
        table = f"{prefix} {name}"
        metadata = sa.MetaData()
        made = sa.Table(
            table,
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("values", sa.Text, nullable=False),
        )
        with engine.begin() as connection:
            metadata.create_all(connection)
            for start in range(0, count, DISTINCT_ITEMS):
                part = [{"id": start + at + 1, "values": text} for at, text in enumerate(texts[: count - start])]
                connection.execute(sa.insert(made), part)
        items = ItemTable(name=table, features=form.features, by_name=form.by_name)
        return Side(name, table, items, load_model(files, form))

    return make


def compare(engine: sa.Engine, kind: str, sides: Sequence[Side], rounds: int) -> None:
    """Has the sides take turns and prints what they took."""
    measured: dict[str, list[Seconds]] = {side.name: [] for side in sides}
    for _ in range(rounds + 1):  # the first of which warms up
        for side in sides:
            measured[side.name].append(measure(engine, side))
    first = medians(measured[sides[0].name])
    for side in sides:
        found = medians(measured[side.name])
        ratios = f"{found.elapsed / first.elapsed:6.2f} {found.of_processor / first.of_processor:13.2f}"
        print(f"{kind:22} {side.name:16} {found.elapsed:9.3f} {found.of_processor:13.3f} {ratios}", flush=True)


def medians(rounds: Sequence[Seconds]) -> Seconds:
    """Returns the medians of all rounds but the first."""
    return Seconds(*(statistics.median(column) for column in zip(*rounds[1:], strict=True)))


def measure(engine: sa.Engine, side: Side) -> Seconds:
    """Reads, checks and scores all items once."""
    progress = Progress()
    start, of_processor = time.perf_counter(), time.process_time()
    batches = read_batches(engine, TableSlice(side.table, columns=(side.items.key, side.items.values)))
    scored = sum(len(batch) for batch in score(batches, side.items, side.model, progress, sample_known=False))
    seconds = Seconds(time.perf_counter() - start, time.process_time() - of_processor)
    if progress.failed or scored != progress.scored or not scored:
        raise SystemExit(f"{side.name}: {progress.scored} items were scored and {progress.failed} failed")
    return seconds


if __name__ == "__main__":
    main()
