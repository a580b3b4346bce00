"""Every process ends with the test that started it, however the test ends.

A process is known by a variable that it inherits, so that those are found too whose parents have ended.
"""

import os
import secrets
import signal
import subprocess
import sys

# The value of the variable begins with the name of the run and ends with that of the test.
MARK = "STARTED_BY_TEST"

# Reads the pipe that pytest holds open. Its end means that pytest has ended, and nobody else is left to end the rest.
_WATCHDOG = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.buffer.read()
sys.path.insert(0, sys.argv[1])
from processes import kill_marked
kill_marked(sys.argv[2])
"""


def new_mark(prefix: str = "") -> str:
    """Returns a mark that no other run or test has."""
    return f"{prefix}/{secrets.token_hex(8)}" if prefix else secrets.token_hex(8)


def kill_marked(mark: str) -> list[str]:
    """Kills the processes whose mark is this one or begins with it, and returns their commands.

    Nothing is found where there is no /proc.
    """
    start = f"{MARK}={mark}".encode()
    killed = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                marked = any(variable.startswith(start) for variable in file.read().split(b"\0"))
            if not marked:
                continue
            with open(f"/proc/{name}/cmdline", "rb") as file:
                killed.append(file.read().replace(b"\0", b" ").decode(errors="replace").strip())
            os.kill(int(name), signal.SIGKILL)
        except OSError:  # it has ended meanwhile, or is somebody else's
            continue
    return killed


def watch_run(mark: str) -> subprocess.Popen[bytes]:
    """Starts what kills all that the run has started if pytest is killed itself; ends when its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHDOG, os.path.dirname(__file__), mark],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
