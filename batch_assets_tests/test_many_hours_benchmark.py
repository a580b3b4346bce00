"""The benchmark of many hours, on a few: what it reports has happened."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets_tests.instance import ROOT
from batch_assets_tests.servers import Server


def figures(server: Server | None, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Runs the benchmark, on a server or on SQLite, and returns its figures."""
    environment, where = dict(os.environ), ["--server", "sqlite"]
    if server:
        where = []
        environment |= server.environment("of its own")
    command = [sys.executable, "-m", "benchmarks.many_hours", *arguments, *where, "--json", str(tmp_path / "figures")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "figures").read_text())
    return found


@pytest.mark.parametrize("embedded", [True, False], ids=["sqlite", "server"])
def test_a_backfill_is_measured_until_every_hour_is_green(request, tmp_path: Path, monkeypatch, *, embedded: bool):
    monkeypatch.setenv("BATCH_BACKFILL_HOURS", "2")
    server = None if embedded else request.getfixturevalue("server")
    found = figures(server, tmp_path, "backfill", "--hours", "3", "--items", "7")
    assert (found["runs"], found["runs green"], found["hours green"], found["all predicted"]) == (2, 2, 3, True)
    assert found["server"] == (server.version if server else "SQLite")
    assert all(seconds > 0 for seconds in found["median seconds of a run"].values())


def test_a_year_is_measured_beside_fewer_hours(server: Server, tmp_path: Path):
    found = figures(server, tmp_path, "year", "--hours", "2", "5", "--items", "3", "--ticks", "1")
    few, many = found["2 hours"], found["5 hours"]
    assert few.keys() == many.keys()
    assert all(value > 0 for value in many.values() if isinstance(value, float))
