"""The speed benchmark measures every side on a real server, and none that has not done its work."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.servers import Server
from benchmarks import speed
from benchmarks.rivals.items_table import ItemsTable
from benchmarks.rivals.programs import Measurement, Programs

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.timeout(1200)]

SHORT = ["--rounds", "1", "--settle", "1", "--ray-items", "--pandas-items"]


def test_a_short_run_measures_and_verifies_every_side(server: Server, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    sizes = [
        "--items",
        "300",
        "--pandas-items",
        "300",
        "--textbook-items",
        "300",
        "--memory",
        "200",
        "--table",
        "200",
        "600",
    ]
    command = [sys.executable, "-m", "benchmarks.speed", *SHORT, *sizes, "--json", str(figures)]
    done = subprocess.run(
        command, cwd=root_folder(), env=environment(server), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(figures.read_text())
    assert document["about"]["server"] == server.version
    assert document["about"]["server_settings"]["innodb_flush_log_at_trx_commit"]
    measured = [(figure["part"], figure["rows"], figure["side"]) for figure in document["figures"]]
    sides = ("predictions", "job", "no_op", "floor", "whole_batch", "pandas", "textbook")
    assert measured == [
        *(("speed", 300, side) for side in sides),
        ("memory", 200, "predictions"),
        *(("table", rows, "predictions") for rows in (200, 600)),
    ]
    for figure in document["figures"]:
        assert 0 < figure["seconds"] <= figure["process_seconds"]
        assert figure["peak_mebibytes"] > 10
    assert {figure["items"] for figure in document["figures"] if figure["part"] == "table"} == {200}
    predictions = document["figures"][0]
    assert predictions["phases"].keys() >= {"read_seconds", "check_seconds", "score_seconds", "write_seconds"}
    assert predictions["phases"]["raw_items_step_seconds"] > 0
    compared = {row["side"]: row["compared_with"] for row in document["summary"] if row["part"] == "speed"}
    assert compared == {side: speed.COMPARED_WITH.get(side) for side in sides}
    assert document["memory_ratio"] is None
    assert document["table_ratio"] > 0


def test_a_side_that_leaves_an_item_without_a_prediction_fails_the_benchmark(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lazy(_programs: Programs, table: ItemsTable) -> Measurement:
        table.sql("UPDATE items SET prediction = '[0.1, 0.2, 0.7]' WHERE id <> 7")
        return Measurement(0.001, 0.001, 1)

    assert failure_with(lazy, server, monkeypatch, capsys) == (
        "speed: predictions has left 1 of 300 items without a prediction."
    )


def test_a_side_that_writes_something_else_than_the_model_says_fails_the_benchmark(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(_programs: Programs, table: ItemsTable) -> Measurement:
        table.sql("UPDATE items SET prediction = '[0.1, 0.2, 0.7]'")
        return Measurement(0.001, 0.001, 1)

    assert failure_with(wrong, server, monkeypatch, capsys) == (
        "speed: predictions has written predictions that are not those of the model."
    )


def failure_with(
    broken: Callable[[Programs, ItemsTable], Measurement],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Runs the benchmark with a broken side in the place of the pipeline, and returns the last thing that it says."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(speed.SIDES, "predictions", broken)
    assert speed.main([*SHORT, "--items", "300", "--textbook-items"]) == 1
    return capsys.readouterr().err.splitlines()[-1]


def environment(server: Server) -> dict[str, str]:
    """A machine's environment, with what a developer may have set: none of it may change what is measured."""
    return {**os.environ, **server.environment("nothing"), "BATCH_RETRY": "leave", "MODEL_FILEPATH": "no/model.onnx"}
