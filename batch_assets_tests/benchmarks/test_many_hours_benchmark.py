"""The benchmark of many hours, on a few: what it reports has happened."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.servers import Server

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.timeout(1200)]


def figures(server: Server, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Runs the benchmark and returns its figures."""
    environment = os.environ | server.environment("of its own")
    command = [sys.executable, "-m", "benchmarks.many_hours", *arguments, "--json", str(tmp_path / "figures")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "figures").read_text())
    return found


def test_a_backfill_is_measured_until_every_hour_is_green(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_BACKFILL_HOURS", "2")
    found = figures(server, tmp_path, "backfill", "--hours", "3", "--items", "7")
    assert (found["runs"], found["runs green"], found["hours green"], found["all predicted"]) == (2, 2, 3, True)
    assert found["server"] == server.version
    assert all(seconds > 0 for seconds in found["median seconds of a run"].values())


def test_everything_else_is_measured_beside_so_many_hours(server: Server, tmp_path: Path) -> None:
    found = figures(server, tmp_path, "year", "--hours", "5", "--items", "3", "--ticks", "1")["5 hours"]
    measured = [value for value in found.values() if isinstance(value, float)]
    assert len(measured) >= 14
    assert min(measured) > 0
