"""Items whose values stand in columns: how those that cannot be scored are tried again, given up and taken up."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.database.connection.statements import checksum_sql
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.pipeline import Declaration
from batch_assets.scoring import workers
from batch_assets.scoring.outcomes import Outcome, outcome_of
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment
from batch_assets_tests.support.pipeline import HALF_PAST, HOUR
from batch_assets_tests.support.project import declared, run_of

FEATURES = ["length", "width", "petal_length", "petal_width"]
FAILURES = "SELECT item_id, code, attempts FROM failed_items ORDER BY item_id"


@pytest.fixture
def flowers(tables: dict[str, str], sql: Sql, tmp_path: Path) -> Declaration:
    columns = ", ".join(f"{name} DOUBLE" for name in FEATURES)
    sql(f"CREATE TABLE flowers (id INTEGER PRIMARY KEY, {columns}, born TIMESTAMP NOT NULL, answer TEXT)")
    for key, length in enumerate((5.1, None, 1e300, 6.3), 1):
        sql("INSERT INTO flowers VALUES (%s, %s, 3.5, 1.4, 0.2, %s, NULL)", key, length, HALF_PAST)
    models = root_folder() / "models"
    flowers = declared(
        tmp_path,
        name="flowers",
        table={"name": "flowers", "key": "id", "created": "born", "features": FEATURES, "output": "answer"},
        model={"file": str(models / "iris_svc.onnx"), "labels": str(models / "label.json")},
        retry={"max_attempts": 2},
    )
    initialize_database(engine_from_environment(), item_table(flowers.items))
    return flowers


def test_a_row_of_columns_is_given_up_and_taken_up_when_it_has_changed(
    instance: dg.DagsterInstance, sql: Sql, flowers: Declaration
) -> None:
    for attempts in (1, 2, 2):
        assert run_of(instance, flowers, hour=HOUR).success
        assert sql(FAILURES) == [(2, "null_value", attempts), (3, "too_large", attempts)]
    sql("UPDATE flowers SET length = 2e300 WHERE id = 3")
    sql("UPDATE flowers SET length = 5 WHERE id = 2")
    assert run_of(instance, flowers, hour=HOUR).success
    assert sql(FAILURES) == [(3, "too_large", 1)]
    assert sql("SELECT id FROM flowers WHERE answer IS NULL") == [(3,)]


@pytest.mark.parametrize("database_environment", ["server"], indirect=True)
def test_the_failures_of_columns_are_recorded_as_they_were_before_columns_were_packed(
    instance: dg.DagsterInstance, sql: Sql, flowers: Declaration
) -> None:
    assert run_of(instance, flowers, hour=HOUR).success
    engine = engine_from_environment()
    as_json = checksum_sql(engine, "JSON_ARRAY(length, width, petal_length, petal_width)")
    recorded = sql("SELECT item_id, values_checksum FROM failed_items ORDER BY item_id")
    assert recorded == sql(f"SELECT id, {as_json} FROM flowers WHERE id IN (2, 3) ORDER BY id")


@pytest.mark.parametrize("retry", ["partial", "whole_batch"])
def test_a_row_of_columns_that_changes_while_it_is_scored_is_left(
    instance: dg.DagsterInstance, sql: Sql, flowers: Declaration, monkeypatch: pytest.MonkeyPatch, retry: str
) -> None:
    def changed_meanwhile(*arguments: Any) -> Outcome:
        sql("UPDATE flowers SET length = 5.5 WHERE id IN (1, 2)")
        return outcome_of(*arguments)

    monkeypatch.setenv("BATCH_RETRY", retry)
    with monkeypatch.context() as while_it_is_scored:
        while_it_is_scored.setattr(workers, "outcome_of", changed_meanwhile)
        assert run_of(instance, flowers, hour=HOUR).success
    assert sql("SELECT id FROM flowers WHERE answer IS NULL ORDER BY id") == [(1,), (2,), (3,)]
    assert sql(FAILURES) == [(3, "too_large", 1)]
    assert run_of(instance, flowers, hour=HOUR).success
    assert sql("SELECT id FROM flowers WHERE answer IS NULL") == [(3,)]
