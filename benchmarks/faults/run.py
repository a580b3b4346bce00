"""A run of the job in a process of its own, which can be killed."""

import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# What forked workers have already. Not onnxruntime: its threads do not survive a fork. The definitions come first:
# importing the tests' helpers clears the environment.
PRELOADED = ["batch_assets.definitions", "batch_assets_tests.support.pipeline", "alembic", "pymysql", "orjson"]
# The module of a project whose `defs` are what the project declares, loaded.
PRELOADED_PROJECT = "shop.loaded"
RUN_SECONDS = 180
# The steps of a declared pipeline have its name in front of theirs.
_NAME = r"(?:\w+__)?(raw_items|predictions|run_summary)"
_STEP = re.compile(rf" - {_NAME} - STEP_START - ")
TOOK = re.compile(rf' - STEP_SUCCESS - Finished execution of step "{_NAME}" in ([\d.]+)(ms|s)\.')
_RUN_ID = re.compile(r" - \w*batch_inference - ([0-9a-f-]{36}) - ")


# Workers


@dataclass(frozen=True)
class Job:
    """A job, the module by which the command line finds it, and the one that has it loaded as `defs`."""

    name: str
    module: str = "batch_assets.definitions"
    loaded: str = "batch_assets.definitions"


def work(job: Job, key: str, mode: str, log: str, environment: dict[str, str]) -> None:
    """Runs a job in this process, which was forked with all imports done, as the command line does."""
    os.environ.update(environment)
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import dagster as dg  # noqa: PLC0415 - there already

    definitions = importlib.import_module(job.loaded).defs
    with dg.DagsterInstance.get() as instance:
        result = definitions.resolve_job_def(job.name).execute_in_process(
            instance=instance, partition_key=key, tags={"batch_assets/retry": mode}, raise_on_error=False
        )
    sys.exit(0 if result.success else 1)


class Run:
    """A run of a job in a process of its own.

    Args:
        job: The job.
        environment: What the worker's environment has besides.
        hour: The partition.
        mode: The retry mode.
        log: Gets what the worker prints, by which it is watched.
        command_line: Whether it is the real command, or a process forked with all imports done.
    """

    def __init__(  # noqa: PLR0913 - what a command is told
        self, job: Job, environment: dict[str, str], hour: str, mode: str, log: Path, *, command_line: bool
    ) -> None:
        self.log = log
        self.hits: list[str] = []
        self.noted = False
        self._read, self._step = 0, "start"
        self._forked = self._command = None
        log.touch()
        if command_line:
            tags = json.dumps({"dagster/partition": hour, "batch_assets/retry": mode})
            command = [sys.executable, "-m", "dagster", "job", "execute", "-m", job.module]
            with log.open("wb") as output:
                self._command = subprocess.Popen(
                    [*command, "-j", job.name, "--tags", tags],
                    cwd=environment["DAGSTER_HOME"],
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        else:
            workers = multiprocessing.get_context("forkserver")
            self._forked = workers.Process(target=work, args=(job, hour, mode, str(log), environment), daemon=True)
            self._forked.start()

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal, None while it runs."""
        if self._forked is not None:
            return self._forked.exitcode
        assert self._command is not None
        return self._command.poll()

    @property
    def outcome(self) -> str:
        """How it ended."""
        return {0: "green", -9: "killed"}.get(-1 if self.status is None else self.status, "red")

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text("utf-8", "replace")

    @property
    def run_id(self) -> str | None:
        """Its id, None before it has one."""
        found = _RUN_ID.search(self.output)
        return found[1] if found else None

    @property
    def step(self) -> str:
        """The step that it began last."""
        # Asked hundreds of times a second: only what is new is read, of which a line may be half there.
        with self.log.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self._step = [self._step, *_STEP.findall(whole.decode("utf-8", "replace"))][-1]
        return self._step

    def kill(self) -> None:
        """Ends it at once."""
        process = self._forked or self._command
        assert process is not None
        process.kill()

    def wait(self, seconds: float = RUN_SECONDS) -> bool:
        """Waits for its end; whether it came in time."""
        end = time.monotonic() + seconds
        while self.status is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.status is not None
