"""Many clients of the web API while a batch runs: no error, no lost item, and how long requests take.

    python -m benchmarks.clients [--clients 200] [--seconds 60] [--items 1000000] [--server mariadb|mysql] [--json FILE]

The API is `batch-assets serve` in a process of its own. Each client sends one request after the other: it registers a
list of one to ten items, reads the newest ones, and reads one that it has registered. Meanwhile `dagster job execute`
scores hours of items on the same table, one after the other. At the end the items in the table are counted: those that
were there and those that were acknowledged, and not one more or less, or the benchmark fails.

The server is that of MYSQL_SERVER (a database of its own on it), or a private one of the kind of --server.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.settings.database import database_settings
from batch_assets_tests.support.engines import ITEMS
from batch_assets_tests.support.servers import Server, free_port
from benchmarks.rivals.items_table import server_for_benchmark
from benchmarks.rivals.shared import START
from benchmarks.service import check, fill, percentile, scored

KEY = "the key of the benchmark"
VALUES = [5.1, 3.5, 1.4, 0.2]
KINDS = ("register", "read a page", "read an item")


@dataclass
class Outcome:
    """What the clients have seen.

    Attributes:
        acknowledged: The ids of the items that were registered.
        latencies: Seconds of each request that was answered well, by its kind.
        errors: What else there was.
    """

    acknowledged: list[int] = field(default_factory=list)
    latencies: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    errors: list[str] = field(default_factory=list)

    def described(self, seconds: float) -> dict[str, Any]:
        """Returns the figures: milliseconds of each kind, and requests a second in all."""
        requests = sum(map(len, self.latencies.values()))
        figures: dict[str, Any] = {"errors": len(self.errors), "requests a second": round(requests / seconds, 1)}
        for kind, latencies in self.latencies.items():
            milliseconds = sorted(1000 * latency for latency in latencies)
            figures[kind] = {"requests": len(milliseconds), "ms at the most": round(milliseconds[-1], 1)} | {
                f"ms, p{share}": round(percentile(milliseconds, share / 100), 1) for share in (50, 99)
            }
        return figures


async def be_clients(url: str, count: int, seconds: float) -> Outcome:
    """Is so many clients for so long."""
    outcome = Outcome()
    end = time.monotonic() + seconds
    await asyncio.gather(*(_be_client(url, end, outcome) for _ in range(count)))
    return outcome


async def _be_client(url: str, end: float, outcome: Outcome) -> None:
    # Without TLS, for which each of them would read the authorities of the system, while the others wait.
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": KEY}, timeout=60, verify=False) as client:
        mine = 0
        while time.monotonic() < end:
            items = [{"values": VALUES}] * random.randint(1, 10)
            key = {"Idempotency-Key": str(uuid.uuid4())}
            answer = await _ask(outcome, "register", client.post("/data", json=items, headers=key))
            if answer:
                outcome.acknowledged += answer["ids"]
                mine = answer["ids"][-1]
            await _ask(outcome, "read a page", client.get("/data/all?limit=20"))
            found = await _ask(outcome, "read an item", client.get(f"/data/{mine}"))
            if found and found["values"] != VALUES:
                outcome.errors.append(f"the item {mine} is shown as {found}")


async def _ask(outcome: Outcome, kind: str, request: Any) -> Any:
    start = time.perf_counter()
    try:
        answer = await request
        answer.raise_for_status()
    except httpx.HTTPError as error:
        outcome.errors.append(f"{kind}: {error!r}")
        return None
    outcome.latencies[kind].append(time.perf_counter() - start)
    return answer.json()


@contextlib.contextmanager
def served(environment: Mapping[str, str]) -> Iterator[str]:
    """Starts the API and returns where it answers."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "batch_assets.cli", "serve"],
            env={**environment, "API_KEY": KEY, "API_PORT": str(port)},
            stderr=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            while not _answers(url):
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read().decode())
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def score(environment: Mapping[str, str], hours: list[datetime.datetime], items: int) -> list[float]:
    """Scores hours one after the other, and returns the items a second of each."""
    return [scored(environment, hour, items, nice=0).rows_per_second for hour in hours]


def measure(server: Server, database: str, options: argparse.Namespace) -> dict[str, Any]:
    """Has the clients at work beside the batch, and looks at the table afterwards."""
    with tempfile.TemporaryDirectory() as home:
        own = {"BATCH_ASSETS_HOME": home, "DAGSTER_HOME": home, "DAGSTER_DISABLE_TELEMETRY": "yes"}
        environment = {**os.environ, **server.environment(database), **own}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        initialize_database(engine_for(database_settings(environment)), ITEMS)
        first = datetime.datetime.fromisoformat(START)
        hours = [first + number * datetime.timedelta(hours=1) for number in range(options.hours)]
        for hour in hours:
            fill(server, database, hour, options.items)
        with served(environment) as url, ThreadPoolExecutor(1) as pool:
            scoring = pool.submit(score, environment, hours, options.items)
            outcome = asyncio.run(be_clients(url, options.clients, options.seconds))
            speeds = scoring.result()
    for hour in hours:
        check(server, database, hour, options.items)
    ((count,),) = server.execute("SELECT COUNT(*) FROM items", database=database)
    return {
        "server": server.version,
        "clients": options.clients,
        "seconds": options.seconds,
        **outcome.described(options.seconds),
        "items acknowledged": len(outcome.acknowledged),
        "items registered twice": len(outcome.acknowledged) - len(set(outcome.acknowledged)),
        "items in the table": count - options.items * options.hours,
        "batches, rows a second": [round(speed) for speed in speeds],
        "what went wrong": outcome.errors[:5],
    }


def main() -> int:
    """Measures and prints; 1 if a request failed or an item was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60, help="how long they are at work")
    parser.add_argument("--items", type=int, default=1_000_000, help="items of each hour that is scored meanwhile")
    parser.add_argument("--hours", type=int, default=3, help="how many hours that are")
    parser.add_argument("--server", choices=["mariadb", "mysql"], help="a private server of this kind")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    with server_for_benchmark(options.server, os.environ) as server, server.database() as database:
        figures = measure(server, database, options)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2), "utf-8")
    lost = figures["items acknowledged"] != figures["items in the table"] or figures["items registered twice"]
    return int(bool(lost or figures["errors"]))


if __name__ == "__main__":
    sys.exit(main())
