"""Workers and a server die while hours are scored, a few times each: nothing is lost, wrong or half visible."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.accounts import private_server_like
from batch_assets_tests.support.servers import Server
from benchmarks.faults.plan import KINDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_small_fault_campaign_finds_no_violation(server: Server, tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    kind = "mariadb" if server.is_mariadb else "mysql"
    # It kills servers of its own, which MYSQL_SERVER cannot stand for.
    with private_server_like(server):
        pass
    command = [sys.executable, "-m", "benchmarks.faults", "--faults", "12", "--seed", "3", "--server", kind]
    done = subprocess.run(
        [*command, "--json", str(counts)], cwd=root_folder(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(counts.read_text())
    assert document["violations"] == []
    assert document["faults"].keys() == set(KINDS)
    assert document["faults_in_all"] >= 12
    assert document["looks"] > 0
