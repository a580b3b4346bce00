"""Run a command with Oracle's MySQL to itself, where only Debian's packages are at hand.

    python .ci/oracle_mysql.py .venv/bin/python -m pytest

Debian packages MariaDB, not MySQL, except in its unstable suite. That suite's programs must not be mixed into
this machine, so they live in a folder of their own, made once and kept in the user's cache. Each run has a data
folder, a port and an account of its own; the command finds them in MYSQL_SERVER, MYSQL_PORT, MYSQL_USER and
MYSQL_PASSWORD. Its exit status is ours. Without a command only the folder is made. The packages come from the mirror
of Debian that this machine's apt uses; where it uses none, as on Ubuntu, DEBIAN_MIRROR names one.

Needs root (chroot, mount). No package of Python is needed to make the folder, PyMySQL to run a command.
"""
# ruff: noqa: S603 - the command is the one that the caller gave

import contextlib
import fcntl
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batch_assets_tests.support.servers import OPTIONS_OF_TESTS, PrivateServer, apt_install, run_to_end

SUITE = "sid"


def main(command: list[str]) -> int:
    """Makes the folder if it is missing, and runs the command with a server of its own."""
    if os.geteuid() != 0:
        print("oracle_mysql.py must run as root: it makes a root folder for the server.", file=sys.stderr)  # noqa: T201
        return 2
    # A signal must leave through the contexts that stop what they have started.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    root = mysql_root()
    if not command:
        return 0
    with PrivateServer(*OPTIONS_OF_TESTS, binary="/usr/sbin/mysqld", root=root) as private:
        environment = private.server.environment("")
        del environment["MYSQL_DATABASE"]
        with running(command, os.environ | environment) as process:
            return process.wait()


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process that does not outlive the context."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def mysql_root() -> Path:
    """The folder of a root with Oracle's MySQL in it."""
    return prepared_root("mysql", make_mysql)


def prepared_root(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of a root in the cache: made under another name first, so a broken one is never used."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "batch-assets"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            partial = cache / f"{name}.partial"
            try:
                make(partial)
            except RuntimeError:
                # A mirror in the middle of an update, or a network that is away for a moment.
                make(partial)
            partial.rename(root)
    return root


def make_mysql(folder: Path) -> None:
    """Installs MySQL's server and what it needs into an empty folder."""
    make_root(folder, SUITE, "--include=mysql-server-core")
    run_to_end(["chroot", str(folder), "useradd", "--system", "--user-group", "mysql"])


def make_root(folder: Path, suite: str, *options: str) -> None:
    """Installs the smallest Debian of a suite into an empty folder, and what debootstrap's options say besides."""
    if folder.exists():
        shutil.rmtree(folder)
    if not shutil.which("debootstrap"):
        apt_install("debootstrap", "debian-archive-keyring")
    # In a mount namespace of its own: what debootstrap mounts is gone with it, even when it is killed.
    command = ["unshare", "--mount", "--", "debootstrap", "--variant=minbase", *options]
    run_to_end([*command, suite, str(folder), debian_mirror()])
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()


def debian_mirror() -> str:
    """The mirror of Debian that DEBIAN_MIRROR names, or that apt uses on this machine.

    Raises:
        RuntimeError: There is neither.
    """
    if named := os.environ.get("DEBIAN_MIRROR"):
        return named
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(LABEL)", "Created-By: Packages"]
    for target in run_to_end(targets).splitlines():
        uri, release, label = (*target.split(maxsplit=2), "")[:3]
        # The label is known once apt has read the mirror's index, the release is what its settings say.
        if re.match(r"(https?|file):", uri) and (label == "Debian" or release == debian_release()):
            return uri
    raise RuntimeError(
        "apt's settings name no mirror of Debian, of which a root folder could be made: set DEBIAN_MIRROR to the"
        " address of one, which is the part before dists/."
    )


def debian_release() -> str | None:
    """The name of the release of Debian that this machine is, None if it is something else."""
    release = platform.freedesktop_os_release()
    return release.get("VERSION_CODENAME") if release["ID"] == "debian" else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
