"""The helpers of the tests end what a test has started, also what its parents have left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from batch_assets_tests.support.processes import MARK, kill_marked, new_mark

ROOT = Path(__file__).parents[1]
LEFT_ALONE = """
import subprocess
print(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, start_new_session=True).pid)
"""
WATCHED = f"""
import os, subprocess, time
from batch_assets_tests.support.processes import MARK, new_mark, watch_run
run = new_mark()
watch_run(run)
print(subprocess.Popen(["sleep", "600"], env=os.environ | {{MARK: new_mark(run)}}).pid, flush=True)
time.sleep({10 * 60})
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")


def started(mark: str) -> int:
    """A process whose parent has ended."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT_ALONE],
        env=os.environ | {MARK: mark},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return int(done.stdout)


def has_ended(pid: int) -> bool:
    """Whether a process ends within half a minute; it may wait to be noticed by its parent."""
    end = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_test_ends_what_it_started_and_no_other_does() -> None:
    run = new_mark()
    first, second = new_mark(run), new_mark(run)
    mine, other = started(first), started(second)
    assert kill_marked(first) == ["sleep 600"]
    assert has_ended(mine)
    assert psutil.Process(other).status() != psutil.STATUS_ZOMBIE
    assert kill_marked(run) == ["sleep 600"]
    assert has_ended(other)


def test_a_run_that_is_killed_leaves_no_process() -> None:
    with subprocess.Popen([sys.executable, "-c", WATCHED], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert has_ended(pid)
