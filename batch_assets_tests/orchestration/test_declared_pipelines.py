"""Pipelines that a project declares: what they score, and that none sees another's rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.database.slices.reading import read_batches
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.errors import TableError
from batch_assets.hours import hour_of_key
from batch_assets.orchestration.run_history import RunHistory
from batch_assets.pipeline import Declaration
from batch_assets.retrying.decision import FAILED, SUCCEEDED
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.customers import customers, fitted, risks, write_customer_model
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment
from batch_assets_tests.support.pipeline import GOOD, HOUR, insert_items
from batch_assets_tests.support.project import create_customers, declared, run_of, scores

pytestmark = pytest.mark.above_sql

CUSTOMERS = customers(1200)
COLUMNS = {"key": "id", "created": "created_at", "features": ["age", "plan", "spent", "active"]}


@pytest.fixture(scope="session")
def regression() -> Any:
    return fitted(Ridge(), lambda rows: rows["spent"] * 2 + rows["age"])


@pytest.fixture(scope="session")
def classifier() -> Any:
    return fitted(LogisticRegression(max_iter=1000), risks)


@pytest.fixture
def models(regression: Any, classifier: Any) -> tuple[Any, Any]:
    return regression, classifier


@pytest.fixture
def churn(tables: dict[str, str], tmp_path: Path, regression: Any) -> Declaration:
    (tmp_path / "churn").mkdir()
    write_customer_model(tmp_path / "churn", regression)
    return declared(
        tmp_path,
        name="churn",
        table={"name": "customers", **COLUMNS, "output": "churn_score"},
        model={"file": "churn/model.onnx", "task": "regression"},
    )


@pytest.fixture
def risk(tables: dict[str, str], tmp_path: Path, classifier: Any) -> Declaration:
    (tmp_path / "risk").mkdir()
    write_customer_model(tmp_path / "risk", classifier)
    return declared(
        tmp_path,
        name="risk",
        table={"name": "customers", **COLUMNS, "outputs": {"risk": "label", "certainty": "probability"}},
        model={"file": "risk/model.onnx"},
    )


def prepare(*declarations: Declaration) -> None:
    initialize_database(engine_from_environment(), *(item_table(each.items) for each in declarations))


def test_columns_of_a_table_are_scored(
    instance: dg.DagsterInstance, sql: Sql, churn: Declaration, regression: Any
) -> None:
    create_customers(sql, CUSTOMERS)
    prepare(churn)
    assert run_of(instance, churn, hour=HOUR).success
    np.testing.assert_allclose(scores(sql), regression.predict(CUSTOMERS).ravel(), rtol=1e-5)
    assert sql("SELECT pipeline, items, predicted, failed, pending, label_counts FROM run_summary") == [
        ("churn", 1200, 1200, 0, 0, "{}")
    ]
    assert sql("SELECT COUNT(*) FROM items") == [(0,)]


def test_rows_that_do_not_fit_fail_by_themselves_with_the_name_of_the_feature(
    instance: dg.DagsterInstance, sql: Sql, churn: Declaration
) -> None:
    create_customers(sql, CUSTOMERS[:20])
    sql("UPDATE customers SET age = NULL WHERE id = 3")
    sql("UPDATE customers SET active = 7 WHERE id = 5")
    prepare(churn)
    assert run_of(instance, churn, hour=HOUR).success
    assert sql("SELECT id FROM customers WHERE churn_score IS NULL ORDER BY id") == [(3,), (5,)]
    assert sql("SELECT pipeline, item_id, code, message FROM failed_items ORDER BY item_id") == [
        ("churn", 3, "null_value", "feature age is null"),
        ("churn", 5, "not_a_boolean", "feature active is a number: 7"),
    ]
    sql("UPDATE customers SET age = 30, active = 1 WHERE id IN (3, 5)")
    assert run_of(instance, churn, hour=HOUR).success
    assert sql("SELECT COUNT(*) FROM failed_items") == [(0,)]
    assert sql("SELECT COUNT(*) FROM customers WHERE churn_score IS NULL") == [(0,)]


def test_two_pipelines_on_one_table_keep_apart_what_they_write_and_record(
    instance: dg.DagsterInstance, sql: Sql, churn: Declaration, risk: Declaration, models: tuple[Any, Any]
) -> None:
    regression, classifier = models
    create_customers(sql, CUSTOMERS, "churn_score DOUBLE, risk VARCHAR(20), certainty DOUBLE")
    prepare(churn, risk)
    assert run_of(instance, churn, hour=HOUR).success
    assert sql("SELECT COUNT(churn_score), COUNT(risk) FROM customers") == [(1200, 0)]
    assert run_of(instance, risk, churn, hour=HOUR).success
    np.testing.assert_allclose(scores(sql), regression.predict(CUSTOMERS).ravel(), rtol=1e-5)
    labels = classifier.predict(CUSTOMERS).tolist()
    assert [label for (label,) in sql("SELECT risk FROM customers ORDER BY id")] == labels
    np.testing.assert_allclose(scores(sql, "certainty"), classifier.predict_proba(CUSTOMERS).max(axis=1), rtol=1e-4)
    summaries = {name: json.loads(counts) for name, counts in sql("SELECT pipeline, label_counts FROM run_summary")}
    assert summaries == {"churn": {}, "risk": Counter(labels)}


def test_a_run_of_two_pipelines_that_fails_for_one_is_no_failure_of_the_other(
    instance: dg.DagsterInstance, sql: Sql, churn: Declaration, risk: Declaration, tmp_path: Path
) -> None:
    create_customers(sql, CUSTOMERS[:20], "churn_score DOUBLE, risk VARCHAR(20), certainty DOUBLE")
    prepare(churn, risk)
    (tmp_path / "churn" / "model.onnx").write_bytes(b"nothing")
    run = run_of(instance, churn, risk, hour=HOUR)
    assert not run.success
    assert sql("SELECT COUNT(churn_score), COUNT(risk) FROM customers") == [(0, 20)]
    hour = hour_of_key(HOUR)
    assert hour
    jobs = [run.dagster_run.job_name]
    ended = {each.name: RunHistory(instance, each).last_runs([hour], jobs)[hour].proper for each in (churn, risk)}
    assert {name: last and last.status for name, last in ended.items()} == {"churn": FAILED, "risk": SUCCEEDED}
    assert ended["churn"]
    assert "is not an ONNX model" in ended["churn"].fault
    assert ended["churn"].permanent


def test_the_pipeline_of_the_environment_goes_on_beside_another(
    instance: dg.DagsterInstance, sql: Sql, churn: Declaration
) -> None:
    create_customers(sql, CUSTOMERS[:20])
    prepare(churn, Declaration())
    insert_items(sql, GOOD)
    assert run_of(instance, churn, Declaration(), hour=HOUR).success
    assert sql("SELECT pipeline, items, predicted FROM run_summary ORDER BY pipeline") == [
        ("churn", 20, 20),
        ("items", 3, 3),
    ]


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_features_may_be_called_as_columns_are_elsewhere(
    instance: dg.DagsterInstance, sql: Sql, tables: dict[str, str], tmp_path: Path
) -> None:
    names = ["id", "values", "prediction", "created_datetime"]
    columns = ", ".join(f'"{name}" DOUBLE' for name in names)
    sql(f"CREATE TABLE flowers (number INTEGER PRIMARY KEY, {columns}, born TIMESTAMP NOT NULL, answer TEXT)")
    sql("INSERT INTO flowers VALUES (1, 5.1, 3.5, 1.4, 0.2, '2026-11-02 05:30:00.000000', NULL)")
    model = {
        "file": str(root_folder() / "models" / "iris_svc.onnx"),
        "labels": str(root_folder() / "models/label.json"),
    }
    table = {"name": "flowers", "key": "number", "created": "born", "features": names, "output": "answer"}
    flowers = declared(tmp_path, name="flowers", table=table, model=model)
    prepare(flowers)
    assert run_of(instance, flowers, hour=HOUR).success
    assert sql("SELECT items, predicted, label_counts FROM run_summary") == [
        (1, 1, '{"setosa": 1, "versicolor": 0, "virginica": 0}')
    ]


def test_a_column_is_handed_over_as_it_is(instance: dg.DagsterInstance, sql: Sql) -> None:
    texts = ["", 'a "quoted" \\ text', "Blütenblatt 花 🌸", "100 % ' ` ; --", "null", "[1, 2]"]
    numbers = [0.1 + 0.2, 1 / 3, -1e15, 1e-300, 1.7976931348623157e308, 123456789012345680.0]
    sql("CREATE TABLE kinds (id INTEGER PRIMARY KEY, whole BIGINT, number DOUBLE, words TEXT, price DECIMAL(12, 3))")
    for key, (text, number) in enumerate(zip(texts, numbers, strict=True), 1):
        sql("INSERT INTO kinds VALUES (%s, %s, %s, %s, %s)", key, 2**63 - key, number, text, "12.345")
    sql("INSERT INTO kinds (id) VALUES (7)")
    wanted = TableSlice("kinds", columns=("id", "all"), json_lists=(("all", ("whole", "number", "words", "price")),))
    rows = [
        json.loads(text) for batch in read_batches(engine_from_environment(), wanted) for text in batch.column("all")
    ]
    given = enumerate(zip(texts, numbers, strict=True), 1)
    assert rows == [*([2**63 - key, number, text, 12.345] for key, (text, number) in given), [None] * 4]


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ("picture", "picture is BLOB, which cannot be scored: name a column of numbers or of text."),
        ("other", "has no column other"),
    ],
)
def test_a_column_that_cannot_be_scored_is_named(tables: dict[str, str], sql: Sql, column: str, sentence: str) -> None:
    sql("CREATE TABLE kinds (id INTEGER PRIMARY KEY, picture BLOB)")
    wanted = TableSlice("kinds", json_lists=(("all", (column,)),))
    with pytest.raises(TableError, match=sentence):
        list(read_batches(engine_from_environment(), wanted))
