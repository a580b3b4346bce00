"""A real Dagster instance: webserver and daemon in processes of their own, asked over GraphQL."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from batch_assets_tests.support.servers import free_port, run_to_end

if TYPE_CHECKING:
    import dagster as dg
    from dagster._core.storage.runs import SqlRunStorage

ROOT = Path(__file__).parents[2]
# The dagster.yaml of an instance in which the tests record runs. What a step prints is nobody's to read, and to keep it
# takes four processes a step. Events are kept in one file, as they are in one table on MySQL: to make one for each run,
# and to write most events into two, takes longer than all else that Dagster does for a run.
INSTANCE_OF_TESTS = """telemetry: {enabled: false}
compute_logs: {module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config: {base_dir: {env: DAGSTER_HOME}}
"""
ASSETS = ("raw_items", "predictions", "run_summary")
LAUNCH_BACKFILL = """mutation Launch($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""


@dataclass(frozen=True)
class RunningInstance:
    """A running instance.

    Args:
        url: Where its webserver answers.
        logs: What webserver and daemon print.
    """

    url: str
    logs: tuple[Path, ...]

    def query(self, query: str, **variables: object) -> Any:
        """Returns the data of a GraphQL query, or raises with its errors."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answered = json.load(answer)
        if answered.get("errors"):
            raise RuntimeError(json.dumps(answered["errors"], indent=2))
        return answered["data"]

    def wait(self, question: str, done: Any, seconds: float, **variables: object) -> Any:
        """Asks again and again until `done` says of the answer that it is so; raises with the logs if it never is."""
        end = time.monotonic() + seconds
        while True:
            answer = self.query(question, **variables)
            if done(answer):
                return answer
            if time.monotonic() > end:
                raise TimeoutError(f"still {answer}\n{self.log()}")
            time.sleep(0.5)

    def launch_backfill(self, keys: Sequence[str], tags: Mapping[str, str] | None = None) -> str:
        """Launches a backfill of hours of the three assets, and returns its id."""
        parameters = {
            "assetSelection": [{"path": [name]} for name in ASSETS],
            "partitionNames": keys,
            "tags": [{"key": key, "value": value} for key, value in (tags or {}).items()],
        }
        launched = self.query(LAUNCH_BACKFILL, parameters=parameters)["launchPartitionBackfill"]
        if launched["__typename"] != "LaunchBackfillSuccess":
            raise RuntimeError(json.dumps(launched))
        backfill_id: str = launched["backfillId"]
        return backfill_id

    def log(self) -> str:
        """Returns the end of what the processes have printed."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-4000:]}" for path in self.logs)


@contextlib.contextmanager
def running_instance(
    home: Path,
    settings: Path,
    environment: Mapping[str, str],
    workspace: str = "workspace.yaml",
    own: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Iterator[RunningInstance]:
    """Starts webserver and daemon, and ends them.

    Args:
        home: Becomes DAGSTER_HOME.
        settings: The dagster.yaml to use.
        environment: What is to be set besides.
        workspace: The file that names the code, within the repository.
        own: What is to be set for `webserver` or for `daemon` alone.
    """
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(settings, home / "dagster.yaml")
    port = free_port()
    commands = {
        "webserver": ["dagster_webserver", "--host", "127.0.0.1", "--port", str(port)],
        "daemon": ["batch_assets_tests.support.daemon", "run"],
    }
    env = {**os.environ, **environment, "DAGSTER_HOME": str(home)}
    # Both would create the tables of an instance on SQLite at the same time, and one of them fail.
    run_to_end([sys.executable, "-c", "import dagster; dagster.DagsterInstance.get()"], env=env)
    with contextlib.ExitStack() as stack:
        logs = []
        for name, (module, *arguments) in commands.items():
            logs.append(home / f"{name}.log")
            command = [sys.executable, "-m", module, *arguments, "-w", workspace]
            stack.enter_context(running_process(command, {**env, **own.get(name, {})}, logs[-1]))
        instance = RunningInstance(f"http://127.0.0.1:{port}", tuple(logs))
        _await_answer(instance)
        yield instance


@contextlib.contextmanager
def running_process(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[None]:
    """Runs a command in the repository's folder, and ends it with all that it has started.

    Args:
        command: The command and its arguments.
        env: Its whole environment.
        log: Gets what it prints.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield
    finally:
        # As Ctrl-C in a terminal does, which reaches the code servers and runs that the process has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _await_answer(instance: RunningInstance) -> None:
    end = time.monotonic() + 90
    while True:
        try:
            instance.query("{ version }")
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise TimeoutError(f"the webserver does not answer\n{instance.log()}") from None
            time.sleep(0.5)
        else:
            return


def run_of(instance: "dg.DagsterInstance", run_id: str) -> "dg.DagsterRun":
    """A run that the instance must know."""
    run = instance.get_run_by_id(run_id)
    assert run is not None, run_id
    return run


def metadata_of(event: "dg.AssetMaterialization | dg.AssetCheckEvaluation | None") -> dict[str, Any]:
    """The metadata of an event that must be there, as plain values."""
    assert event is not None
    return {name: value.value for name, value in event.metadata.items()}


def run_storage_of(instance: "dg.DagsterInstance") -> "SqlRunStorage":
    """Where an instance has its runs, which is a database here."""
    from dagster._core.storage.runs import SqlRunStorage

    assert isinstance(instance.run_storage, SqlRunStorage)
    return instance.run_storage
