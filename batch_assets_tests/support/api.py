"""The web API on a socket, in a thread or in a process of its own, and what it answers."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from batch_assets.api.application import application
from batch_assets.pipeline import OF_ENVIRONMENT, Declaration
from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.servers import free_port

KEY = "a key that nobody else has"
WRITING = {"X-API-Key": KEY}


@contextlib.contextmanager
def served(
    environment: Mapping[str, str], declarations: Sequence[Declaration] = (OF_ENVIRONMENT,)
) -> Iterator[httpx.Client]:
    """The application in a thread, and a client that may write."""
    port = free_port()
    config = uvicorn.Config(
        application(environment, declarations), port=port, log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    # In a thread, where uvicorn leaves signals alone.
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=WRITING, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def registered(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 201, answer.text
    ids: list[int] = answer.json()["ids"]
    return ids


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    problem: dict[str, Any] = answer.json()
    assert problem.keys() == {"detail", "faults"}
    return problem


@contextlib.contextmanager
def process(
    environment: dict[str, str], log: Path, folder: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`batch-assets serve` in a process of its own, in this folder or another one, and where it answers."""
    port = str(free_port())
    environment = {**os.environ, **environment, "API_KEY": KEY, "API_PORT": port, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "batch_assets.cli", "serve"]
    with log.open("wb") as output, subprocess.Popen(command, cwd=folder, env=environment, stderr=output) as started:
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
