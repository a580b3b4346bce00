"""Which model made the prediction of an item, where an hour has seen two."""

import hashlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import onnx
import pytest

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.command_line import batch_assets, succeeded, table_rows
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import GOOD, HOUR, correct, insert_items, run_in, run_job, started_command
from batch_assets_tests.support.registry import second_iris

pytestmark = pytest.mark.above_sql

# As docs/guides/watch-the-model.md has it.
MODEL_OF_EACH_ITEM = """
SELECT items.id, COALESCE(item_models.model_version, hour_models.model_version)
FROM items
LEFT JOIN item_models ON item_models.pipeline = 'items' AND item_models.item_id = items.id
LEFT JOIN hour_models ON hour_models.pipeline = 'items' AND hour_models.hour = '2026-11-02 05:00:00'
WHERE items.created_datetime >= '2026-11-02 05:00:00' AND items.created_datetime < '2026-11-02 06:00:00'
  AND items.prediction IS NOT NULL
"""
BAD = "[5.1, 3.5, 1.4]"
# The newer model is sure of the first class of every item, the iris model of none.
FIRST_CLASS = [1.0, 0.0, 0.0]
WHOLE = {"ops": {"predictions": {"config": {"retry": "whole_batch"}}}}
MANY = 20_000
TAKE_AWAY = "UPDATE items SET prediction = NULL WHERE id = %s"


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The files of two models by their version; the second is the newer."""
    models = root_folder() / "models"
    monkeypatch.setenv("LABEL_FILEPATH", str(models / "label.json"))
    newer = tmp_path / "newer.onnx"
    onnx.save(second_iris(tmp_path), newer)
    return {hashlib.sha256(file.read_bytes()).hexdigest(): str(file) for file in (models / "iris_svc.onnx", newer)}


@pytest.fixture
def score(
    instance: dg.DagsterInstance, versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Scores the hour with the model of a version."""

    def score_with(version: str, *, whole: bool = False) -> None:
        monkeypatch.setenv("MODEL_FILEPATH", versions[version])
        run_id = run_in(instance, HOUR, None, **(WHOLE if whole else {}))
        run = instance.get_run_by_id(run_id)
        assert run
        assert run.is_success

    return score_with


def assert_each_item_names_its_model(sql: Sql, versions: dict[str, str]) -> dict[int, str]:
    """What is recorded of each item says which model its prediction stems from, and the summary counts them."""
    old, newer = versions
    recorded: dict[int, str] = dict(sql(MODEL_OF_EACH_ITEM))
    predictions = {key: json.loads(text) for key, text in sql("SELECT id, prediction FROM items") if text is not None}
    assert recorded == {key: newer if answer == FIRST_CLASS else old for key, answer in predictions.items()}
    return recorded


def assert_summary_counts(sql: Sql, recorded: dict[int, str]) -> None:
    ((last, others),) = sql("SELECT model_version, predicted_by_other_models FROM run_summary")
    assert others == sum(version != last for version in recorded.values())


def check_of_model(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(dg.AssetKey("run_summary"), "predictions_stem_from_current_model")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    event = record.event
    assert event
    assert event.dagster_event
    return event.dagster_event.asset_check_evaluation_data


def test_an_item_that_a_second_model_has_scored_is_told_from_the_rest_of_its_hour(
    instance: dg.DagsterInstance, sql: Sql, versions: dict[str, str], score: Callable[..., None]
) -> None:
    old, newer = versions
    *_, bad = insert_items(sql, [*GOOD, BAD])
    score(old)
    assert (sql("SELECT model_version FROM hour_models"), sql("SELECT * FROM item_models")) == ([(old,)], [])
    assert check_of_model(instance).passed

    correct(sql, bad)
    score(newer)
    recorded = assert_each_item_names_its_model(sql, versions)
    assert recorded[bad] == newer
    assert list(recorded.values()).count(old) == len(GOOD)
    assert_summary_counts(sql, recorded)
    check = check_of_model(instance)
    assert not check.passed
    assert "3 of 4 predictions stem from another model" in str(check.metadata["seen"].value)
    listed = table_rows(succeeded(batch_assets("status", "--older-model")))[1:]
    assert [row[0] for row in listed] == [HOUR]

    score(newer, whole=True)
    assert set(assert_each_item_names_its_model(sql, versions).values()) == {newer}
    assert sql("SELECT * FROM item_models") == []
    assert check_of_model(instance).passed
    assert table_rows(succeeded(batch_assets("status", "--older-model")))[1:] == []


def test_whatever_an_hour_has_seen_each_item_names_its_model(
    sql: Sql, versions: dict[str, str], score: Callable[..., None]
) -> None:
    random_source = random.Random(11)
    keys = insert_items(sql, [*GOOD, BAD] * 3)
    for _ in range(12):
        for key in random_source.sample(keys, random_source.choice((0, 2, len(keys)))):
            if random_source.random() < 0.5:
                sql(TAKE_AWAY, key)
            else:
                correct(sql, key, random_source.choice([*GOOD, BAD]))
                sql(TAKE_AWAY, key)
        score(random_source.choice(list(versions)), whole=random_source.random() < 0.2)
        assert_summary_counts(sql, assert_each_item_names_its_model(sql, versions))


def test_the_items_of_an_hour_that_was_scored_before_models_were_recorded_are_those_of_its_summary(
    sql: Sql, versions: dict[str, str], score: Callable[..., None]
) -> None:
    old, newer = versions
    *_, bad = insert_items(sql, [*GOOD, BAD])
    score(old)
    sql("DELETE FROM hour_models")
    correct(sql, bad)
    score(newer)
    assert assert_each_item_names_its_model(sql, versions)[bad] == newer


def test_a_run_that_is_killed_leaves_to_the_next_model_what_it_has_not_scored_and_each_item_names_its_model(
    sql: Sql, tables: dict[str, str], versions: dict[str, str]
) -> None:
    old, newer = versions
    insert_items(sql, [GOOD[1]] * MANY)
    slow = {"MODEL_FILEPATH": versions[old], "BATCH_MAX_ROWS_PER_SECOND": "4000"}
    deadline = time.monotonic() + 60
    with started_command(**slow) as process:
        while not sql("SELECT 1 FROM items WHERE prediction IS NOT NULL LIMIT 1"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
    left = sql("SELECT COUNT(*) FROM items WHERE prediction IS NULL")[0][0]
    assert 0 < left < MANY
    run_job(MODEL_FILEPATH=versions[newer]).assert_succeeded()
    recorded = assert_each_item_names_its_model(sql, versions)
    assert list(recorded.values()).count(newer) == left
    assert_summary_counts(sql, recorded)
