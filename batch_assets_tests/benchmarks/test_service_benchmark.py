"""The benchmark of what a run costs the service measures both of them at work, on a real server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.servers import Server

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.timeout(1200)]

SHORT = ["--items", "3000", "--rounds", "1", "--rate", "400", "--seconds", "1", "--settle", "0"]


def test_a_short_run_measures_the_service_and_the_run_beside_each_other_and_alone(
    server: Server, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    environment = {**os.environ, **server.environment("mysql"), "BATCH_MAX_ROWS_PER_SECOND": "1000000"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.service", *SHORT, "--json", str(figures)],
        cwd=root_folder(),
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(figures.read_text())
    assert document["server"] == server.version
    assert document["settings"] == {"BATCH_MAX_ROWS_PER_SECOND": "1000000"}
    [measured] = document["rounds"]
    for phase in ("before", "during", "after", "computing"):
        for kind in ("insert", "read"):
            assert measured[phase][kind]["requests"] > 0
            assert measured[phase][kind]["errors"] == 0
            assert 0 < measured[phase][kind]["p50"] <= measured[phase][kind]["p99"] <= measured[phase][kind]["max"]
    # A second at 400 requests: an open loop asks as often whatever the answers take.
    assert abs(measured["before"]["insert"]["requests"] - 200) <= 1
    assert measured["rows_per_second_alone"] > 0
    alone = (measured["before"]["insert"]["p99"] + measured["after"]["insert"]["p99"]) / 2
    medians = document["medians"]["insert"]["p99"]
    assert medians["ratio"] == pytest.approx(measured["during"]["insert"]["p99"] / alone)
    assert medians["computing_ratio"] == pytest.approx(measured["computing"]["insert"]["p99"] / alone)
    assert "rows a second:" in done.stdout
