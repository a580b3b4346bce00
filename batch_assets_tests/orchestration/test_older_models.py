"""A model that changes: which hours have predictions of the older one, and how they get those of the newer."""

import hashlib
import json
import time
from pathlib import Path

import dagster as dg
import onnx
import pytest

from batch_assets_tests.support.command_line import batch_assets, misused, refused, succeeded, table_rows
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import GOOD, insert_items, run_in
from batch_assets_tests.support.registry import Registry, second_iris, sha256_of
from batch_assets_tests.support.sensor import MINUTE, Tick

pytestmark = pytest.mark.above_sql

HOURS = ["2026-11-02-05:00", "2026-11-02-06:00", "2026-11-02-07:00"]
# What the newer model says of every item.
FIRST_CLASS = [1.0, 0.0, 0.0]
NONE_LEFT = "No hour was scored last by another model."


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the iris model, for models that name none."""
    from batch_assets.settings.folders import root_folder

    monkeypatch.setenv("LABEL_FILEPATH", str(root_folder() / "models" / "label.json"))


@pytest.fixture
def newer(tmp_path: Path, labels: None) -> Path:
    """The file of another model."""
    file = tmp_path / "newer.onnx"
    onnx.save(second_iris(tmp_path), file)
    return file


def scored_hours(instance: dg.DagsterInstance, sql: Sql, keys: list[str]) -> None:
    for key in keys:
        insert_items(sql, GOOD, f"{key[:10]} {key[11:]}:00")
    run_in(instance, keys[0], keys[-1])


def sha_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def models_of(sql: Sql) -> dict[str, str]:
    rows = sql("SELECT hour, model_version FROM run_summary ORDER BY hour")
    return {f"{str(hour)[:10]}-{str(hour)[11:16]}": version for hour, version in rows}


def listed(*arguments: str) -> list[str]:
    """The hours that `status --older-model` lists."""
    return [row[0] for row in table_rows(succeeded(batch_assets("status", "--older-model", *arguments)))[1:]]


def run_requested(instance: dg.DagsterInstance, tick: Tick, *, success: bool = True) -> None:
    """The runs that a tick has requested, once the second has passed in which it did."""
    from batch_assets.definitions import defs

    time.sleep(1.1)
    for request in tick.requests:
        tags = {**request.tags, "dagster/partition": str(request.partition_key)}
        job = defs.resolve_job_def("batch_inference")
        assert job.execute_in_process(tags=tags, instance=instance, raise_on_error=False).success == success


def test_status_names_the_hours_of_the_older_model_and_one_command_has_them_scored_again(
    instance: dg.DagsterInstance, sql: Sql, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_hours(instance, sql, HOURS)
    (old,) = set(models_of(sql).values())
    assert "another model" not in succeeded(batch_assets("status"))
    assert succeeded(batch_assets("status", "--older-model")).splitlines()[-1] == NONE_LEFT

    monkeypatch.setenv("MODEL_FILEPATH", str(newer))
    remark = (
        f"3 hours (from {HOURS[0]} to {HOURS[2]}) were scored last by another model than the one in force, "
        f"{sha_of(newer)[:12]}."
    )
    assert succeeded(batch_assets("status")).splitlines()[-2:] == [
        remark,
        "To see which: batch-assets status --older-model",
    ]
    output = succeeded(batch_assets("status", "--older-model", "--limit", "2"))
    assert [row[:3] for row in table_rows(output)[1:]] == [[HOURS[2], "3", old[:12]], [HOURS[1], "3", old[:12]]]
    assert output.splitlines()[-2:] == [
        "There are more than these 2: --limit shows more.",
        "To have all of them scored again: batch-assets rescore --older-model",
    ]

    assert succeeded(batch_assets("rescore", "--older-model")) == (
        f"The sensor retry_hours requests 3 hours ({HOURS[0]} to {HOURS[2]}) as whole batches within a minute, if the "
        "daemon runs.\n"
    )
    assert succeeded(batch_assets("rescore", HOURS[1])) == "1 hour is on the way already.\n"
    tick = Tick(instance)
    assert tick.hours == HOURS
    expected = {"batch_assets/retry": "whole_batch", "batch_assets/reason": "rescore"}
    assert [{name: request.tags[name] for name in expected} for request in tick.requests] == [expected] * 3
    # The others wait for their turn, and are not requested twice.
    assert Tick(instance).hours == []
    run_requested(instance, tick)
    assert models_of(sql) == dict.fromkeys(HOURS, sha_of(newer))
    assert {tuple(json.loads(text)) for (text,) in sql("SELECT prediction FROM items")} == {tuple(FIRST_CLASS)}
    assert (listed(), "another model" in succeeded(batch_assets("status"))) == ([], False)
    assert Tick(instance, 10 * MINUTE).hours == []
    assert sql("SELECT COUNT(*) FROM hour_requests") == [(0,)]


def test_only_the_hours_that_are_named_are_scored_again(
    instance: dg.DagsterInstance, sql: Sql, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_hours(instance, sql, HOURS)
    monkeypatch.setenv("MODEL_FILEPATH", str(newer))
    succeeded(batch_assets("rescore", HOURS[1]))
    run_requested(instance, Tick(instance))
    assert listed() == [HOURS[2], HOURS[0]]


def test_an_hour_whose_rescoring_fails_is_requested_again_as_a_whole_batch_and_given_up_in_the_end(
    instance: dg.DagsterInstance, sql: Sql, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_hours(instance, sql, HOURS[:1])
    before = sql("SELECT id, prediction FROM items")
    monkeypatch.setenv("MODEL_FILEPATH", str(newer.with_name("missing.onnx")))
    succeeded(batch_assets("rescore", HOURS[0]))
    run_requested(instance, Tick(instance), success=False)
    assert Tick(instance, 10 * MINUTE).hours == []
    assert f"The hour {HOURS[0]} is given up: " in succeeded(batch_assets("status"))
    assert sql("SELECT id, prediction FROM items") == before
    # With the fault fixed, the same command has it tried again.
    monkeypatch.setenv("MODEL_FILEPATH", str(newer))
    assert "requests 1 hour" in succeeded(batch_assets("rescore", "--older-model"))
    run_requested(instance, Tick(instance))
    assert models_of(sql) == {HOURS[0]: sha_of(newer)}


def test_what_cannot_be_scored_again_is_one_sentence_and_changes_nothing(
    instance: dg.DagsterInstance, sql: Sql
) -> None:
    scored_hours(instance, sql, HOURS[:1])
    for what, reason in (
        (HOURS[1], f"The hour {HOURS[1]} was not scored yet, so that there is nothing to score again"),
        ("yesterday", "'yesterday' is no hour: write an hour of UTC as 2026-11-01-05:00. Nothing was changed."),
        ("2026-10-31-23:00", "lies before the first one, 2026-11-01-00:00"),
        ("2999-01-01-00:00", "has not ended"),
    ):
        assert reason in refused(batch_assets("rescore", HOURS[0], what))
    assert "BATCH_RETRY is 'leave'" in refused(batch_assets("rescore", HOURS[0], BATCH_RETRY="leave"))
    assert sql("SELECT COUNT(*) FROM hour_requests") == [(0,)]
    for arguments in ((), ("--older-model", HOURS[0])):
        assert "Name hours, or --older-model" in misused(batch_assets("rescore", *arguments))
    assert "--failed and --older-model" in misused(batch_assets("status", "--failed", "--older-model"))
    assert succeeded(batch_assets("rescore", "--older-model")) == f"{NONE_LEFT}\n"


def test_hours_without_predictions_and_those_before_the_first_have_no_older_model(
    instance: dg.DagsterInstance, sql: Sql, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_hours(instance, sql, HOURS[:2])
    insert_items(sql, ["[1]"], f"{HOURS[2][:10]} {HOURS[2][11:]}:00")
    run_in(instance, HOURS[2])
    monkeypatch.setenv("MODEL_FILEPATH", str(newer))
    monkeypatch.setenv("BATCH_FIRST_HOUR", HOURS[1])
    assert listed() == [HOURS[1]]
    said = f"1 hour ({HOURS[1]}) was scored last by another model than the one in force"
    assert said in succeeded(batch_assets("status"))


def test_status_says_so_if_the_model_is_missing(instance: dg.DagsterInstance, sql: Sql) -> None:
    scored_hours(instance, sql, HOURS[:1])
    lines = succeeded(batch_assets("status", MODEL_FILEPATH="nowhere.onnx")).splitlines()
    assert lines[-1].startswith("Which hours were scored last by another model cannot be told: ")
    assert "nowhere.onnx" in refused(batch_assets("status", "--older-model", MODEL_FILEPATH="nowhere.onnx"))


def test_of_a_registry_hours_are_compared_with_the_model_of_the_last_run(
    instance: dg.DagsterInstance,
    sql: Sql,
    registry: Registry,
    labels: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL_FILEPATH", "models:/iris@champion")
    assert succeeded(batch_assets("status", "--older-model")).splitlines()[-1] == NONE_LEFT
    scored_hours(instance, sql, HOURS[:2])
    registry.set_alias(2)
    # No run has scored with it yet, and the registry itself is not asked.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "another model" not in succeeded(batch_assets("status"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    time.sleep(1.1)  # The table knows no fractions of a second.
    scored_hours(instance, sql, HOURS[2:])
    said = (
        f"2 hours (from {HOURS[0]} to {HOURS[1]}) were scored last by another model than that of the last run, "
        f"{sha256_of(2)[:12]}."
    )
    assert said in succeeded(batch_assets("status"))
    succeeded(batch_assets("rescore", "--older-model"))
    run_requested(instance, Tick(instance))
    assert models_of(sql) == dict.fromkeys(HOURS, sha256_of(2))
