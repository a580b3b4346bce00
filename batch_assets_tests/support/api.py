"""The web API in a process of its own."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.servers import free_port

KEY = "a key that nobody else has"


@contextlib.contextmanager
def process(environment: dict[str, str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`batch-assets serve` in a process of its own, and where it answers."""
    port = str(free_port())
    environment = {**os.environ, **environment, "API_KEY": KEY, "API_PORT": port, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "batch_assets.cli", "serve"]
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stderr=output) as started:
        try:
            url, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health").status_code == 200:
                        break
                assert started.poll() is None, log.read_text()
                assert time.monotonic() < end
                time.sleep(0.1)
            yield started, url
        finally:
            started.kill()
