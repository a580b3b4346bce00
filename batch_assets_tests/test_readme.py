"""What the README shows is so: its commands run, its examples work, its names exist."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.instance import running_process
from batch_assets_tests.support.servers import free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SOURCES = "\n".join(
    path.read_text() for pattern in ("batch_assets/**/*.py", "dagster.yaml") for path in ROOT.glob(pattern)
)
VARIABLE = r"(?:MYSQL|BATCH|MODEL|LABEL|SAMPLE|API)_[A-Z_]+"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_its_commands_run_one_after_the_other(server_environment: dict[str, str], tmp_path: Path, sql: Sql) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    lines = [line for block in _blocks("bash") for line in block.splitlines()]
    # Where the server is, and where the API, the test's environment says; make's targets have tests of their own.
    script = [line for line in lines if not line.startswith(("export MYSQL_SERVER", "export API_PORT", "make "))]
    assert len(script) >= 5
    api = {"API_PORT": str(free_port()), "API_KEY": "a key"}
    environment = {**os.environ, **api, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input="\n".join(script),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "2026-11-01-05:00" in done.stdout

    items, summary, failed = [statement for statement in "".join(_blocks("sql")).split(";") if statement.strip()]
    assert '{"health":"ok"}' in done.stdout
    assert '"values":[5.1,3.5,1.4,0.2],"prediction":null' in done.stdout
    assert [row[0] for row in sql(items)] == [1, 2]
    assert all(prediction for _, prediction in sql(items))
    assert [row[:4] for row in sql(summary)] == [(2, 2, 0, 0)]
    assert sql(failed) == []


@pytest.mark.slow
def test_its_example_of_the_io_manager_runs(database_environment: dict[str, str], tmp_path: Path, sql: Sql) -> None:
    [example] = _blocks("python")
    (tmp_path / "example.py").write_text(example)
    materialize = [sys.executable, "-m", "dagster", "asset", "materialize", "-f", "example.py", "--select"]
    days = ["2026-11-01", "2026-11-02", "2026-11-01"]
    # Dagster's log of the output is mirrored by a `tail` that it may end too early: without it, the output is itself.
    (tmp_path / "dagster.yaml").write_text(
        "compute_logs: {module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}"
    )
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    for selection in [*(["sales", "--partition", day] for day in days), ["sold_in_all"]]:
        done = subprocess.run(
            [*materialize, *selection],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "16"
    rows = sql("SELECT day, sold FROM sales ORDER BY day, sold")
    assert [(str(day), sold) for day, sold in rows] == [
        ("2026-11-01", 3),
        ("2026-11-01", 5),
        ("2026-11-02", 3),
        ("2026-11-02", 5),
    ]


def test_its_variables_are_those_that_the_code_reads() -> None:
    table = README.split("## Configure")[1].split("## Operate")[0]
    documented = set(re.findall(rf"^\| `({VARIABLE})` \|", table, re.MULTILINE))
    assert documented == set(re.findall(rf'(?:"|env: )({VARIABLE})(?:"|$)', SOURCES, re.MULTILINE))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)\b(?=`|$)", README, re.MULTILINE))))
def test_its_make_targets_exist(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_its_codes_of_failed_items_are_those_of_the_code() -> None:
    listed = README.split("Its codes: ")[1].split(". Correct")[0]
    codes = set(re.findall(r"`(\w+)`", listed))
    in_code = set(re.findall(r'_RefusedError\(\s*"(\w+)"', SOURCES)) | {"model_not_finite", "model_error"}
    assert codes == in_code


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.slow
@pytest.mark.daemon
def test_make_ui_opens_the_ui(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    environment = {**os.environ, "BATCH_ASSETS_HOME": str(tmp_path / "home")}
    with running_process(["make", "ui", f"UI_PORT={port}"], environment, log):
        assert "dagster" in _first_page(port, log).lower()


def _first_page(port: int, log: Path) -> str:
    end = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise TimeoutError(log.read_text()) from None
            time.sleep(0.5)
