"""`make ui`, as the README shows it."""

import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from batch_assets_tests.support.instance import running_process
from batch_assets_tests.support.servers import free_port

SECONDS = 120


@pytest.mark.slow
@pytest.mark.daemon
def test_make_ui_opens_the_ui(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    environment = {**os.environ, "BATCH_ASSETS_HOME": str(tmp_path / "home")}
    with running_process(["make", "ui", f"UI_PORT={port}"], environment, log):
        assert "dagster" in _first_page(port, log).lower()


def _first_page(port: int, log: Path) -> str:
    end = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise TimeoutError(log.read_text()) from None
            time.sleep(0.5)
