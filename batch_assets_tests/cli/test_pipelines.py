"""Pipelines that a project declares, on the command line: a typo is named, and every command finds its pipeline."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import yaml
from dagster.components.scaffold.scaffold import NoParams, get_scaffolder
from sklearn.linear_model import Ridge

from batch_assets import BatchInferenceComponent
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.command_line import COMMAND, batch_assets, succeeded, table_rows
from batch_assets_tests.support.customers import customers, fitted, write_customer_model
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import HOUR
from batch_assets_tests.support.project import CHURN, create_customers, declared, importable, scores, write_project

pytestmark = pytest.mark.above_sql

CUSTOMERS = customers(300)
SECOND = """---
type: batch_assets.BatchInferenceComponent
attributes:
  name: upsell
  table: {name: customers, created: created_at, features: [age, plan, spent, active], output: upsell_score}
  model: {file: models/churn.onnx, task: regression}
"""
OF_ENVIRONMENT = "---\ntype: batch_assets.BatchInferenceComponent\nattributes: {}\n"


@pytest.fixture(scope="session")
def regression() -> Any:
    return fitted(Ridge(), lambda rows: rows["spent"] * 2 + rows["age"])


@pytest.fixture
def project(
    database_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, regression: Any
) -> Iterator[Path]:
    """A project that declares one pipeline, as the working folder; returns its defs.yaml."""
    folder = tmp_path / "project"
    file = write_project(folder, CHURN)
    (folder / "models").mkdir()
    write_customer_model(folder / "models", regression).model_filepath.rename(folder / "models" / "churn.onnx")
    monkeypatch.chdir(folder)
    with importable(folder):
        yield file


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("Error: ").rstrip()


WRONG = {
    "a key that there is not": ("  first_hour:", "  first_hours:", ["first_hours at", "defs.yaml:6", "Extra inputs"]),
    "one within another": ("key: id", "keys: id", ["keys at", "defs.yaml:4", "Extra"]),
    "no hour": ("2026-11-01-00:00", "yesterday", ["component pipelines", "first_hour", "2026-11-01-05:00"]),
    "a minute that is none": ("minute: 35", "minute: 75", ["minute", "defs.yaml:7", "must be from 0 to 59"]),
    "a word for a number": ("max_attempts: 3", "max_attempts: many", ["defs.yaml:8", "max_attempts", "valid integer"]),
    "a share above all": ("0.05", "5", ["max_failed_share", "defs.yaml:8", "must be from 0 to 1"]),
    "a policy there is not": ("policy: partial", "policy: sometimes", ["defs.yaml:8", "policy", "'partial', "]),
    "a task there is not": ("task: regression", "task: ranking", ["attributes.files", "task", "'classification' or"]),
    "no version of a registered model": (
        "models/churn.onnx", "models:/churn", ["file", "defs.yaml:5", "models:/NAME@ALIAS or models:/NAME/VERSION"],
    ),
    "a challenger with a key there is not": (
        "  first_hour:", "  challenger: {files: new.onnx}\n  first_hour:", ["files at", "defs.yaml:6", "Extra inputs"],
    ),
    "a challenger of no item": (
        "  first_hour:", "  challenger: {file: new.onnx, items: 0}\n  first_hour:",
        ["items", "defs.yaml:6", "must be 1 or more"],
    ),
    "a challenger that is no version of a model": (
        "  first_hour:", "  challenger: {file: 'models:/new'}\n  first_hour:", ["defs.yaml:6", "models:/NAME@ALIAS or"],
    ),
    "a name with a space": ("name: churn\n", "name: Churn Rate\n", ["attributes.name at", "defs.yaml:3"]),
    "a feature twice": ("[age, plan,", "[age, age, plan,", ["feature age is named 2 times"]),
    "a form that there is not": ("output: churn_score", "outputs: {churn_score: mean}", ["outputs", "defs.yaml:4"]),
    "two kinds of output": (
        "output: churn_score", "output: churn_score, outputs: {risk: label}", ["both `output` and `outputs`"],
    ),
    "null for what is no feature": ("output:", "nullable: [height], output:", ["`nullable`", "height"]),
}  # fmt: skip


def test_what_dg_scaffolds_is_a_declaration_to_fill_in(tmp_path: Path) -> None:
    scaffolder = get_scaffolder(BatchInferenceComponent)
    assert isinstance(scaffolder, dg.Scaffolder)
    (tmp_path / "churn").mkdir()
    request = dg.ScaffoldRequest(
        "batch_assets.BatchInferenceComponent", tmp_path / "churn", "yaml", tmp_path, NoParams()
    )
    scaffolder.scaffold(request)
    written = yaml.safe_load((tmp_path / "churn" / "defs.yaml").read_text())
    assert written["type"] == "batch_assets.BatchInferenceComponent"
    declaration = declared(tmp_path, **written["attributes"])
    assert (declaration.name, declaration.items.name) == ("churn", "churn")
    assert declaration.items.from_columns
    assert isinstance(declaration.model, ModelFiles)
    assert declaration.model.model_filepath == tmp_path / "models" / "churn.onnx"


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_what_is_wrong_in_a_declaration_is_named(project: Path, wrong: str) -> None:
    right, instead, parts = WRONG[wrong]
    assert right in CHURN
    project.write_text(CHURN.replace(right, instead))
    refused = sentence(batch_assets("init-db"))
    assert [part for part in parts if part not in refused] == [], refused


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_two_pipelines_of_one_name_or_one_column_are_refused(project: Path) -> None:
    project.write_text(CHURN + "---\n" + CHURN)
    assert "2 pipelines are called 'churn': give each a name of its own." in sentence(batch_assets("init-db"))
    project.write_text(CHURN + SECOND.replace("upsell_score", "churn_score"))
    assert sentence(batch_assets("init-db")).endswith(
        "The pipelines 'churn' and 'upsell' both write customers.churn_score: give each a column of its own."
    )


def test_a_table_that_does_not_fit_its_declaration_is_left_as_it_is(project: Path, sql: Sql) -> None:
    assert "There is no table customers in " in sentence(batch_assets("init-db"))
    create_customers(sql, CUSTOMERS, "churn_score DATETIME NOT NULL DEFAULT '2026-01-01'")
    refused = sentence(batch_assets("init-db"))
    assert "the column churn_score is DATETIME, and must be DOUBLE or JSON" in refused
    assert "the column churn_score must allow NULL" in refused
    sql("DROP TABLE customers")
    create_customers(sql, CUSTOMERS, "score DOUBLE")
    project.write_text(CHURN.replace("[age,", "[height,"))
    refused = sentence(batch_assets("init-db"))
    assert "the column height (a feature) is missing" in refused
    assert "the column churn_score (DOUBLE or JSON) is missing" in refused


def test_a_time_of_creation_that_the_server_moves_is_refused(
    project: Path, sql: Sql, database_environment: dict[str, str]
) -> None:
    if "MYSQL_SERVER" not in database_environment:
        pytest.skip("SQLite has no ON UPDATE")
    create_customers(sql, CUSTOMERS)
    now = "CURRENT_TIMESTAMP"
    sql(f"ALTER TABLE customers MODIFY created_at TIMESTAMP NOT NULL DEFAULT {now} ON UPDATE {now}")
    assert "the column created_at has ON UPDATE" in sentence(batch_assets("init-db"))


def test_init_db_prepares_the_tables_that_are_declared_and_no_other(project: Path, sql: Sql) -> None:
    project.write_text(CHURN + SECOND)
    create_customers(sql, CUSTOMERS, "churn_score DOUBLE, upsell_score DOUBLE")
    done = succeeded(batch_assets("init-db"))
    assert "created table failed_items" in done
    assert "added an index on customers.created_at" in done
    assert "created table items" not in done
    assert batch_assets("init-db").stdout == "nothing to do\n"
    project.write_text(CHURN + OF_ENVIRONMENT)
    assert succeeded(batch_assets("init-db")).splitlines()[0] == "created table items"


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_commands_find_their_pipeline(project: Path, sql: Sql) -> None:
    project.write_text(CHURN + SECOND)
    create_customers(sql, CUSTOMERS, "churn_score DOUBLE, upsell_score DOUBLE")
    succeeded(batch_assets("init-db"))
    sql("UPDATE customers SET churn_score = 1 WHERE id <= 100")
    both = succeeded(batch_assets("status", "--hours", "1000"))
    assert [line for line in both.splitlines() if line.endswith("_score")] == [
        "churn: customers.churn_score",
        "upsell: customers.upsell_score",
    ]
    assert [row[1:5] for row in table_rows(both) if row[0] == "sum"] == [
        ["300", "100", "0", "200"],
        ["300", "0", "0", "300"],
    ]
    assert "customers.churn_score" not in succeeded(batch_assets("status", "--hours", "1000", "--pipeline", "upsell"))
    assert sentence(batch_assets("retry", HOUR)) == (
        "There are several pipelines: name one with --pipeline: churn, upsell."
    )
    assert sentence(batch_assets("status", "--pipeline", "items")) == (
        "There is no pipeline 'items': there are churn, upsell."
    )
    assert "The sensor upsell_retry_hours requests" in succeeded(batch_assets("retry", HOUR, "--pipeline", "upsell"))
    assert sql("SELECT pipeline FROM hour_requests") == [("upsell",)]
    assert succeeded(batch_assets("grants", "upsell")).splitlines() == [
        "GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON `customers` TO batch_assets_migrations;",
        "GRANT SELECT, UPDATE (`upsell_score`) ON `customers` TO batch_assets_batch;",
        "GRANT SELECT, DELETE ON `customers` TO batch_assets_prune;",
        (
            "GRANT SELECT, INSERT (`age`, `plan`, `spent`, `active`, `created_at`), UPDATE (`age`, `plan`, `spent`, "
            "`active`, `upsell_score`) ON `customers` TO batch_assets_api;"
        ),
    ]


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_without_a_declaration_it_is_the_pipeline_of_the_environment_unless_a_project_is_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project.parent)
    (project.parents[1] / "others.py").touch()
    # Whose Python may have the pipeline of the environment.
    assert "created table items" in succeeded(batch_assets("init-db"))
    monkeypatch.setenv("BATCH_PROJECT", str(tmp_path / "project"))
    assert "which declares no pipeline" in sentence(batch_assets("status"))
    monkeypatch.setenv("BATCH_PROJECT", str(tmp_path))
    assert sentence(batch_assets("status")).startswith(f"BATCH_PROJECT is '{tmp_path}', which has no pyproject.toml")


BY_NAME = """---
type: batch_assets.BatchInferenceComponent
attributes:
  name: visits
  table: {name: visits, created: came_at, values: seen, features: [age, plan, spent, active], output: answer}
  model: {file: models/churn.onnx, task: regression}
"""
WELL_FORMED = '{"age": 42, "plan": "gold", "spent": 12.5, "active": true}\n'
# Each file with what is said of it.
MALFORMED = {
    "42,gold,12.5,true\n": "is not JSON: write each item as an object by the names of its features",
    "[42, 1, 12.5, 1]\n": "line 1: is not an object by the names of its features: [42, 1, 12.5, 1]",
    WELL_FORMED + '{"age": 42, "plan": "gold", "active": true}\n': "line 2: has no spent",
    WELL_FORMED + '{"values": {"age": 42}, "id": 7}\n': "line 2: the object has keys other than \"values\": ['id']",
    WELL_FORMED
    + '{"age": 42, "plan": "gold", "spent": 1, "active": true, "id": 7}\n': "keys that are no features: ['id']",
    WELL_FORMED
    + '{"age": [42], "plan": "gold", "spent": 1, "active": true}\n': "age is not a number, a text, true, false or null",
    WELL_FORMED + '{"age": 42, "plan": "gold", "spent": NaN, "active": true}\n': "spent is not a finite number",
    WELL_FORMED + '{"age": 42, "plan": "\\ud800", "spent": 1, "active": true}\n': "plan is not valid Unicode",
    "\n": "the file holds no items",
}


def test_a_file_is_registered_by_the_names_of_the_features(
    project: Path, sql: Sql, database_environment: dict[str, str], tmp_path: Path
) -> None:
    project.write_text(CHURN + BY_NAME)
    create_customers(sql, CUSTOMERS[:1])
    key = "INTEGER PRIMARY KEY"
    if "MYSQL_SERVER" in database_environment:
        key += " AUTO_INCREMENT"
        sql("ALTER TABLE customers MODIFY id INTEGER AUTO_INCREMENT")
    sql(f"CREATE TABLE visits (id {key}, seen JSON, came_at DATETIME, answer DOUBLE)")
    succeeded(batch_assets("init-db"))
    first = {"age": 42, "plan": "gold", "spent": 12.5, "active": True}
    second = {"active": False, "plan": "7", "age": None, "spent": 80}
    file = tmp_path / "items.jsonl"
    file.write_text(f"{json.dumps(first)}\n{json.dumps({'values': second})}\n")
    at = ("--created-at", "2026-11-02T05:30")
    for name in ("churn", "visits"):
        assert succeeded(batch_assets("register", str(file), *at, "--pipeline", name)) == "2 items registered\n"
    rows = sql("SELECT age, plan, spent, active, created_at FROM customers WHERE id > 1 ORDER BY id")
    assert [(*row[:4], str(row[4])) for row in rows] == [
        (42, "gold", 12.5, 1, "2026-11-02 05:30:00"),
        (None, "7", 80, 0, "2026-11-02 05:30:00"),
    ]
    assert [json.loads(text) for (text,) in sql("SELECT seen FROM visits ORDER BY id")] == [first, second]
    # What its table does not date is dated all the same.
    file.write_text(json.dumps([first]))
    succeeded(batch_assets("register", str(file), "--pipeline", "visits"))
    assert sql("SELECT COUNT(*) FROM visits WHERE came_at IS NULL") == [(0,)]


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_a_file_with_a_malformed_item_is_named_and_nothing_of_it_registered(
    project: Path, sql: Sql, tmp_path: Path
) -> None:
    create_customers(sql, CUSTOMERS[:1])
    succeeded(batch_assets("init-db"))
    for text, reason in MALFORMED.items():
        file = tmp_path / "items.jsonl"
        file.write_text(text)
        assert reason in sentence(batch_assets("register", str(file))), text
    file.write_text(WELL_FORMED.replace("42", "42.5"))
    assert "The column age of customers was given 42.5" in sentence(batch_assets("register", str(file)))
    file.write_text(WELL_FORMED.replace("42", str(10**30)))
    assert "does not take a whole number of more than 64 bits" in sentence(batch_assets("register", str(file)))
    assert sql("SELECT COUNT(*) FROM customers") == [(1,)]


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_rows_that_the_table_does_not_number_are_refused(project: Path, sql: Sql, tmp_path: Path) -> None:
    features = "age INT, plan TEXT, spent DOUBLE, active BOOLEAN"
    sql(f"CREATE TABLE customers (id INT PRIMARY KEY, {features}, created_at TIMESTAMP, churn_score DOUBLE)")
    succeeded(batch_assets("init-db"))
    (tmp_path / "items.jsonl").write_text(WELL_FORMED)
    refused = sentence(batch_assets("register", str(tmp_path / "items.jsonl")))
    assert refused.startswith("The key id of customers does not number rows by itself: make it AUTO_INCREMENT")
    assert sql("SELECT COUNT(*) FROM customers") == [(0,)]


@pytest.mark.slow
def test_a_folder_with_ten_lines_of_yaml_scores_a_table(
    project: Path, sql: Sql, database_environment: dict[str, str], regression: Any
) -> None:
    """As somebody does it who has a table and a model: in processes of their own, in the folder of the project."""

    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    home = Path(database_environment["BATCH_ASSETS_HOME"])
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").touch()
    create_customers(sql, CUSTOMERS)
    run(COMMAND, "init-db")
    dagster = (sys.executable, "-m", "dagster", "job", "execute", "-m", "shop.definitions")
    run(*dagster, "-j", "churn_batch_inference", "--tags", json.dumps({"dagster/partition": HOUR}))
    np.testing.assert_allclose(scores(sql), regression.predict(CUSTOMERS).ravel(), rtol=1e-5)
    assert [row[1:5] for row in table_rows(run(COMMAND, "status", "--hours", "1000"))][1] == ["300", "300", "0", "0"]
