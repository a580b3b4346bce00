"""The command `batch-assets`, and the three ways in which it ends."""

import re
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.instance import ASSETS

# For tests of the process itself: signals, terminals, pipes, several at once.
COMMAND = str(Path(sys.executable).with_name("batch-assets"))
SECONDS = 120


def batch_assets(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in this process, as if with its output in files."""
    from batch_assets.cli.main import main

    done = CliRunner().invoke(main, arguments, input=stdin, env=environment, prog_name="batch-assets")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence in which a command said why it did not do it."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("Error: ").rstrip()


def misused(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def table_rows(output: str) -> list[list[str]]:
    """The cells of a table, its header and its footer among them."""
    return [
        [cell.strip() for cell in line.strip("│┃|").replace("┃", "│").replace("|", "│").split("│")]
        for line in output.splitlines()
        if line.startswith(("│", "┃", "| "))
    ]


def assert_demonstrated(output: str, sql: Sql, home: Path) -> None:
    """The demonstration has scored its six hours, said so, and left their run in the instance of a folder."""
    import dagster as dg

    assert sql("SELECT COUNT(*), COUNT(prediction) FROM items") == [(65_322, 65_322)]
    assert sql("SELECT COUNT(*) FROM failed_items") == [(0,)]
    assert sql("SELECT COUNT(*), SUM(predicted) FROM run_summary") == [(6, 65_322)]
    lines = output.splitlines()
    assert lines[0].startswith("65,322 items registered in the 6 hours before ")
    table = table_rows(output)
    assert [row[1:5] for row in table[1:]] == [["10,887", "10,887", "0", "0"]] * 6 + [["65,322", "65,322", "0", "0"]]
    assert all(re.fullmatch("[0-9a-f]{12}", row[5]) for row in table[1:-1])
    hours = sorted(row[0] for row in table[1:-1])
    assert lines[1] == f"dagster job execute for {hours[0]} to {hours[-1]}: 65,322 items"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        [run] = instance.get_runs()
        scored = {name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in ASSETS}
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert scored == {name: set(hours) for name in ASSETS}
