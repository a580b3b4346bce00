"""On a machine without a server the tests that need one are skipped by name, and in CI they fail."""

import os
import subprocess
import sys

import pytest

from batch_assets_tests.support.instance import ROOT

pytestmark = pytest.mark.slow

SERVER = "needs a MySQL or MariaDB server"


def suite(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a few tests on both databases where no server is found or can be installed.

    Args:
        arguments: Further ones of pytest.
        environment: Variables beside those of this process.
    """
    # A server is looked for in /usr/sbin too, whatever PATH says, so an empty PATH would not hide it.
    code = (
        "import sys, pytest\n"
        "from batch_assets_tests.support import servers\n"
        "servers.find_server = lambda: None\n"
        "servers._like = lambda: []\n"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    chosen = ["batch_assets_tests/test_servers.py", "-k", "empty_database_of_its_own or keeps_its_data"]
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    return subprocess.run(
        [sys.executable, "-c", code, "-p", "no:cacheprovider", *chosen, *arguments],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_without_a_server_the_rest_is_tested_and_one_line_says_what_was_not() -> None:
    done = suite()
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("NOT TESTED")]
    assert line.startswith("NOT TESTED: 3 tests need a MySQL or MariaDB server (install one ")
    assert "set MYSQL_SERVER" in line


def test_without_a_server_ci_fails() -> None:
    done = suite(CI="true")
    assert done.returncode == 1, done.stdout
    assert "1 passed" in done.stdout
    assert "skipped" not in done.stdout
    assert f"MissingProgramError: this {SERVER}" in done.stdout


def test_a_server_that_is_named_and_does_not_answer_fails() -> None:
    done = suite(MYSQL_SERVER="127.0.0.1", MYSQL_PORT="1", MYSQL_USER="somebody")
    assert done.returncode == 1, done.stdout
    assert "MYSQL_SERVER names a server that the tests cannot use" in done.stdout
