"""The API keeps to its OpenAPI document, whatever it is sent: thousands of requests made from the document."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from batch_assets.database.schema.setup import initialize_database
from batch_assets_tests.support.api import KEY, process
from batch_assets_tests.support.command_line import COMMAND
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.pipeline import GOOD, insert_items
from batch_assets_tests.support.programs import ROOT
from batch_assets_tests.support.servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
# For each operation, within each of the phases in which Schemathesis makes requests.
EXAMPLES = 60
EXAMPLES_OF_MANY = 20


def conforms(url: str, examples: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Schemathesis with all of its checks."""
    command = [SCHEMATHESIS, "run", f"{url}/openapi.json", "--header", f"X-API-Key: {KEY}", "--checks", "all"]
    command += ["--max-examples", str(examples), "--seed", "1", "--continue-on-failure"]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False, timeout=900)


def test_no_request_brings_it_to_break_its_word(
    server: Server, server_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    initialize_database(engine_from_environment(), ITEMS)
    insert_items(sql, GOOD)
    with process(server_environment, tmp_path / "log") as (_, url):
        done = conforms(url, EXAMPLES, tmp_path)
        counted = re.findall(r"request_seconds_count\{.*\} (\d+)", httpx.get(f"{url}/metrics").text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(map(int, counted)) > 1000
    # What was accepted among all that is there, as a whole.
    assert sql("SELECT COUNT(*) FROM items WHERE JSON_LENGTH(`values`) <> 4") == [(0,)]


@pytest.mark.one_server  # takes a minute, with the statements of the test above
def test_nor_does_one_about_a_pipeline_that_a_project_declares(
    server: Server, server_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    clinic = tmp_path / "clinic"
    shutil.copytree(ROOT / "examples" / "clinic", clinic, ignore=shutil.ignore_patterns("models", ".batch_assets"))
    for command in ([sys.executable, "prepare.py", "--hours", "1"], [COMMAND, "init-db"]):
        subprocess.run(command, cwd=clinic, check=True, timeout=180, capture_output=True)
    # Of which its service numbers the rows itself.
    for table in ("patients", "biopsies"):
        sql(f"ALTER TABLE {table} MODIFY id INTEGER AUTO_INCREMENT")
    with process(server_environment, tmp_path / "log", clinic) as (_, url):
        assert [each["name"] for each in httpx.get(f"{url}/pipelines").json()] == ["breast_cancer", "diabetes", "items"]
        done = conforms(url, EXAMPLES_OF_MANY, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ((patients,),) = sql("SELECT COUNT(*) FROM patients")
    ((biopsies,),) = sql("SELECT COUNT(*) FROM biopsies")
    assert (patients > 442, biopsies > 569) == (True, True)
    assert sql("SELECT COUNT(*) FROM patients WHERE JSON_LENGTH(measurements) <> 4") == [(0,)]
