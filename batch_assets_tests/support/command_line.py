"""The command `batch-assets`, and the three ways in which it ends."""

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

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
