"""The answers of a model in columns of every type, on every database: what scikit-learn says stands in them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.linear_model import LinearRegression, LogisticRegression

from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.reading import read_batches
from batch_assets.database.slices.reflection import json_columns
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.database.slices.update_statements import ColumnUpdate
from batch_assets.database.slices.updating import Updated, update_rows
from batch_assets.hours import hour_of_key
from batch_assets.inference.model_files import load_model
from batch_assets.pipeline import Pipeline, pipeline_from_environment
from batch_assets.scoring.hourly import HourlyScoring
from batch_assets.settings.items import Feature, Output
from batch_assets.settings.model import ModelFiles
from batch_assets.settings.retry import PARTIAL, WHOLE_BATCH
from batch_assets_tests.support.customers import (
    FEATURES,
    as_lists,
    as_objects,
    customers,
    fitted,
    risks,
    write_customer_model,
    write_exported,
)
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment
from batch_assets_tests.support.pipeline import HOUR, insert_items

# Enough of them to be read packed, and of labels with quotes and letters of other scripts.
CUSTOMERS = customers(1200)
NAMES = {"high": 'hoch "!"', "low": "鸢尾", "middle": "mittel"}

AddColumns = Callable[[str], None]


@pytest.fixture
def add_columns(tables: dict[str, str], sql: Sql) -> AddColumns:
    """Adds columns to the items: "name TYPE, other TYPE"."""

    def add(columns: str) -> None:
        for column in columns.split(", "):
            sql(f"ALTER TABLE items ADD COLUMN {column} NULL")

    return add


def named_risks(rows: pd.DataFrame) -> Any:
    return np.array([NAMES[risk] for risk in risks(rows)])


def score_hour(
    files: ModelFiles, mode: str, *outputs: Output, by_name: bool = True, features: Any = FEATURES
) -> Updated:
    """Scores the items of the hour and stores what comes of it."""
    settings = pipeline_from_environment()
    items = replace(settings.items, features=tuple(features), by_name=by_name, outputs=outputs)
    pipeline: Pipeline = replace(settings, items=items, model=files)
    engine, hour = engine_from_environment(), hour_of_key(HOUR)
    assert hour is not None

    def read(condition: str | None = None) -> Batches:
        chosen = TableSlice("items", columns=("id", "values"), where=condition)
        return Batches(lambda: read_batches(engine, chosen), select=lambda _, where: read(where))

    throttle = Throttle(engine, pipeline.throttle, print)
    scoring = HourlyScoring(engine, pipeline, load_model(files, items), mode, "a run", throttle, print)
    scored = scoring.predictions(hour, read())
    update = ColumnUpdate("id", tuple(output.column for output in outputs), ("values",))
    with scored.scope():
        return update_rows(engine, TableSlice("items"), update, scored)


@pytest.mark.parametrize("by_name", [True, False])
def test_each_column_gets_its_form_of_the_answer(
    add_columns: AddColumns, sql: Sql, tmp_path: Path, by_name: bool
) -> None:
    classifier = fitted(LogisticRegression(), named_risks)
    add_columns("label VARCHAR(20), label_json JSON, chance DOUBLE, chance_json JSON, both_of_them JSON, note TEXT")
    ids = insert_items(sql, as_objects(CUSTOMERS) if by_name else as_lists(CUSTOMERS))
    (bad,) = insert_items(sql, ['{"age": "old"}'])
    outputs = [
        Output("label", "label"),
        Output("prediction", "probabilities"),
        Output("label_json", "label"),
        Output("chance", "probability"),
        Output("chance_json", "probability"),
        Output("both_of_them", "label_and_probabilities"),
        Output("note", "all"),
    ]
    files = write_customer_model(tmp_path, classifier, zipmap=False)
    done = score_hour(files, WHOLE_BATCH, *outputs, by_name=by_name)
    assert done.rows + done.skipped == len(ids) + 1
    columns = ", ".join(output.column for output in outputs)
    rows = sql(f"SELECT {columns} FROM items WHERE id <> %s ORDER BY id", bad)
    labels, tables = classifier.predict(CUSTOMERS).tolist(), classifier.predict_proba(CUSTOMERS)
    found = [[row[0], *(json.loads(value) if isinstance(value, str) else value for value in row[1:])] for row in rows]
    label, probabilities, label_json, chance, chance_json, both, note = zip(*found, strict=True)
    assert (
        list(label)
        == list(label_json)
        == [each["label"] for each in both]
        == [each["label"] for each in note]
        == labels
    )
    for numbers in (probabilities, [each["probabilities"] for each in both], [each["probabilities"] for each in note]):
        np.testing.assert_allclose(numbers, tables, atol=1e-6)
    for numbers in (chance, chance_json):
        np.testing.assert_allclose(numbers, tables.max(axis=1), atol=1e-6)
    assert sql(f"SELECT {columns} FROM items WHERE id = %s", bad) == [(None,) * len(outputs)]
    assert len(sql("SELECT * FROM failed_items")) == 1


@pytest.mark.parametrize(("kind", "in_json"), [("DOUBLE", False), ("JSON", True)])
def test_the_value_of_a_model_of_doubles_is_stored_to_the_last_digit(
    add_columns: AddColumns, sql: Sql, tmp_path: Path, kind: str, in_json: bool
) -> None:
    numbers = CUSTOMERS[["age", "spent"]].to_numpy()
    model = LinearRegression().fit(numbers, numbers @ [1 / 3, -1e-3])
    files = write_exported(tmp_path, model, [("x", DoubleTensorType([None, 2]))])
    add_columns(f"amount {kind}")
    insert_items(sql, list(map(json.dumps, numbers.tolist())))
    session_says = load_model(files, replace(pipeline_from_environment().items, outputs=(Output("amount", "value"),)))
    score_hour(
        files,
        PARTIAL,
        Output("prediction", "all"),
        Output("amount", "value"),
        features=map(Feature, "ab"),
        by_name=False,
    )
    stored = [
        json.loads(str(amount)) if in_json else amount for (amount,) in sql("SELECT amount FROM items ORDER BY id")
    ]
    assert stored == session_says.answers(numbers)["variable"].tolist()
    np.testing.assert_allclose(stored, model.predict(numbers), rtol=1e-14)


def test_a_label_in_the_column_of_predictions_is_json_where_that_column_is(
    tables: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    classifier = fitted(LogisticRegression(), named_risks)
    insert_items(sql, as_objects(CUSTOMERS))
    score_hour(write_customer_model(tmp_path, classifier, zipmap=True), PARTIAL, Output("prediction", "label"))
    stored = [text for (text,) in sql("SELECT prediction FROM items ORDER BY id")]
    if "MYSQL_SERVER" in tables:  # with SQLite it is a text
        stored = list(map(json.loads, stored))
    assert stored == classifier.predict(CUSTOMERS).tolist()


def test_columns_of_json_are_known_on_every_database(database_environment: dict[str, str], sql: Sql) -> None:
    sql(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, a JSON NULL, b TEXT, c VARCHAR(9), `d d` JSON NOT NULL, e DOUBLE)"
    )
    assert json_columns(engine_from_environment(), TableSlice("things")) == {"a", "d d"}
