"""The benchmark of many clients of the API: what it reports has happened, and what was lost it sees."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.servers import Server

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.timeout(1200)]

SHORT = ["--clients", "8", "--seconds", "2", "--items", "300", "--hours", "1"]


def test_a_short_run_counts_what_was_acknowledged_and_what_is_there(server: Server, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.clients", *SHORT, "--json", str(figures)],
        cwd=root_folder(),
        env={**os.environ, **server.environment("of its own")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert (found["server"], found["errors"], found["what went wrong"]) == (server.version, 0, [])
    assert found["items in the table"] == found["items acknowledged"] >= 8
    assert found["items registered twice"] == 0
    for kind in ("register", "read a page", "read an item"):
        assert found[kind]["requests"] >= 8
        assert 0 < found[kind]["ms, p50"] <= found[kind]["ms, p99"] <= found[kind]["ms at the most"]
    assert len(found["batches, rows a second"]) == 1
