"""Workers and a server die while hours are scored, a few times each: nothing is lost, wrong or half visible."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.accounts import private_server_like
from batch_assets_tests.support.servers import Server
from benchmarks.faults.plan import KINDS, OF_ALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def counts(server: Server, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Runs the campaign and returns what has happened."""
    kind = "mariadb" if server.is_mariadb else "mysql"
    # It kills servers of its own, which MYSQL_SERVER cannot stand for.
    with private_server_like(server):
        pass
    command = [sys.executable, "-m", "benchmarks.faults", *arguments, "--server", kind]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "counts.json")],
        cwd=root_folder(),
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads((tmp_path / "counts.json").read_text())
    return document


def test_a_small_fault_campaign_finds_no_violation(server: Server, tmp_path: Path) -> None:
    document = counts(server, tmp_path, "--faults", "12", "--seed", "3")
    assert document["violations"] == []
    assert document["faults"].keys() == set(KINDS)
    assert document["faults_in_all"] >= 12
    assert document["looks"] > 0


# It takes minutes of two cores. On MySQL: python -m benchmarks.faults --pipelines 2 --server mysql, before a release.
@pytest.mark.one_server
def test_a_small_fault_campaign_on_two_pipelines_of_a_table_finds_no_violation(server: Server, tmp_path: Path) -> None:
    document = counts(server, tmp_path, "--faults", "9", "--seed", "10", "--pipelines", "2")
    assert document["violations"] == []
    by_pipeline = document["faults_by_pipeline"]
    assert by_pipeline.keys() == {"items", "second", "all"}
    assert by_pipeline["all"].keys() == OF_ALL
    assert by_pipeline["items"].keys() | by_pipeline["second"].keys() == set(KINDS) - OF_ALL
    # Both have scored, and a run of one was alive while the other's was hit.
    assert all(document["runs_by_pipeline"][name]["green"] > 0 for name in ("items", "second"))
    assert sum(document["beside"].values()) > 0
