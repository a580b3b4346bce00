"""What the end-to-end tests share: items of an hour, the real command, and the sums that must come out."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
import dagster as dg
import numpy as np
import pytest

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.database import Sql

HOUR = "2026-11-02-05:00"
START, HALF_PAST, LAST, END = (
    "2026-11-02 05:00:00",
    "2026-11-02 05:30:00",
    "2026-11-02 05:59:59",
    "2026-11-02 06:00:00",
)
TABLES = ("items", "failed_items", "run_summary")

GOOD = ["[5.1, 3.5, 1.4, 0.2]", "[6.3, 3.3, 6.0, 2.5]", "[5.7, 2.8, 4.1, 1.3]"]
LABELS = ("setosa", "versicolor", "virginica")
JOB_SECONDS = 120

_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^Stack Trace:", re.MULTILINE)


class Counts(NamedTuple):
    """What became of the items of an hour."""

    items: int
    predicted: int
    failed: int
    pending: int


@dataclass(frozen=True)
class Job:
    """A run of the job that has ended.

    Args:
        status: 0 for a success.
        output: What it had to say: of a run in this process the sentences with which it failed, of a command all that
            it printed.
        run_id: The run, None where none began.
    """

    status: int
    output: str
    run_id: str | None

    def assert_succeeded(self) -> None:
        assert self.status == 0, self.output

    def assert_failed_with(self, *parts: str) -> None:
        """It failed, and one line that has all these parts stands before any traceback."""
        assert self.status != 0, self.output
        traceback = _TRACEBACK.search(self.output)
        lines = self.output[: traceback.start() if traceback else None].splitlines()
        assert any(all(part in line for part in parts) for line in lines), f"{parts} not at the head of {self.output}"


def run_job(hour: str | None = HOUR, **environment: str | None) -> Job:
    """Runs the job in this process, on the instance in DAGSTER_HOME, with the tags that the command would give it.

    Args:
        hour: The partition; None for a run without one.
        environment: What is set (or with None unset) for this run only.
    """
    from batch_assets.definitions import defs

    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.get() as instance:
        for name, value in environment.items():
            patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
        try:
            result = defs.resolve_job_def("batch_inference").execute_in_process(
                instance=instance,
                tags={"dagster/partition": hour} if hour is not None else None,
                raise_on_error=False,
            )
        except click.ClickException as refusal:  # which the command prints
            return Job(1, refusal.format_message(), None)
    return Job(int(not result.success), "\n".join(_sentences(result)), result.run_id)


def run_in(instance: dg.DagsterInstance, first: str = HOUR, last: str | None = None, **config: Any) -> str:
    """The job for an hour, or for a range of them; returns the run, whatever became of it."""
    from batch_assets.definitions import defs

    range_tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
    return (
        defs.resolve_job_def("batch_inference")
        .execute_in_process(
            tags=range_tags if last else {"dagster/partition": first},
            run_config=config,
            instance=instance,
            raise_on_error=False,
        )
        .run_id
    )


def _sentences(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """The faults of the steps: of a `Failure` its sentence, which is what the run shows first."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            yield str(data.user_failure_data.description if data.user_failure_data else data.error)


@contextlib.contextmanager
def started_command(hour: str | None = HOUR, **environment: str | None) -> Iterator[subprocess.Popen[str]]:
    """`dagster job execute` on its way.

    Args:
        hour: The partition; None for a command without one.
        environment: What is set (or with None unset) for this run only.
    """
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "batch_assets.definitions"]
    command += ["-j", "batch_inference"]
    if hour is not None:
        command += ["--tags", json.dumps({"dagster/partition": hour})]
    changed = {**os.environ, "PYTHONPATH": str(root_folder()), **environment}
    with subprocess.Popen(
        command,
        # Not in the checkout: Dagster would read a developer's .env there.
        cwd=os.environ["DAGSTER_HOME"],
        env={name: value for name, value in changed.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_command(hour: str | None = HOUR, **environment: str | None) -> Job:
    """Runs `dagster job execute` to its end; see `started_command`."""
    with started_command(hour, **environment) as process:
        return ended(process)


def ended(process: subprocess.Popen[str]) -> Job:
    """Waits for the end of the command."""
    output, _ = process.communicate(timeout=JOB_SECONDS)
    found = re.search(r" - batch_inference - ([0-9a-f-]{36}) - ", output)
    return Job(process.returncode, output, found and found[1])


def insert_items(sql: Sql, texts: Sequence[str], created: str = HALF_PAST) -> list[int]:
    """Writes items as the service does, and returns their ids."""
    ids: list[int] = []
    for start in range(0, len(texts), 5000):
        part = texts[start : start + 5000]
        (last,) = sql("SELECT COALESCE(MAX(id), 0) FROM items")[0]
        rows = ", ".join(["(%s, %s, %s, %s)"] * len(part))
        parameters = [value for key, text in enumerate(part, last + 1) for value in (key, text, created, created)]
        sql(f"INSERT INTO items (id, `values`, created_datetime, updated_datetime) VALUES {rows}", *parameters)
        ids += range(last + 1, last + 1 + len(part))
    return ids


def correct(sql: Sql, key: int, text: str = GOOD[0]) -> None:
    """Gives an item other values, as whoever fixes the data does."""
    sql("UPDATE items SET `values` = %s WHERE id = %s", text, key)


def rows_of(sql: Sql, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    """All that stands in the tables, times as they are stored."""
    return {table: sorted(sql(f"SELECT * FROM {table}"), key=str) for table in tables or TABLES}


def predictions_of(sql: Sql, start: str = START, end: str = END) -> dict[int, list[float] | None]:
    """The predictions of an hour by id, None for an item without one."""
    rows = sql(
        "SELECT id, prediction FROM items WHERE created_datetime >= %s AND created_datetime < %s ORDER BY id",
        start,
        end,
    )
    return {key: None if text is None else json.loads(text) for key, text in rows}


def failed_of(sql: Sql) -> dict[int, tuple[str, str, int]]:
    """Code, message and attempts of each failed item."""
    rows = sql("SELECT item_id, code, message, attempts FROM failed_items ORDER BY item_id")
    return {key: tuple(rest) for key, *rest in rows}


def summary_of(sql: Sql) -> dict[str, Any]:
    """The row of the hour in `run_summary`; times as texts."""
    names = "hour items predicted failed pending label_counts model_version retry run_id started_at finished_at scored"
    rows = sql(f"SELECT {names.replace(' ', ', ')} FROM run_summary WHERE hour = %s", START)
    assert len(rows) == 1
    row = dict(zip(names.split(), rows[0], strict=True))
    for name in ("hour", "started_at", "finished_at"):
        row[name] = None if row[name] is None else str(row[name])
    return {**row, "label_counts": json.loads(row["label_counts"])}


def assert_hour_adds_up(
    sql: Sql, start: str = START, end: str = END, pipeline: str = "items", column: str = "prediction"
) -> Counts:
    """Every item of the hour is predicted, failed or pending, and in none of these twice.

    By one statement that shares nothing with the package.
    """
    within = "created_datetime >= %s AND created_datetime < %s"
    of_item = "FROM items WHERE items.id = failed_items.item_id"
    of_pipeline = f"FROM failed_items WHERE pipeline = '{pipeline}'"
    (row,) = sql(
        f"SELECT (SELECT COUNT(*) FROM items WHERE {within}),"
        f" (SELECT COUNT(*) FROM items WHERE {within} AND {column} IS NOT NULL),"
        f" (SELECT COUNT(*) {of_pipeline} AND hour = %s),"
        f" (SELECT COUNT(*) FROM items WHERE {within} AND {column} IS NULL"
        f"   AND NOT EXISTS (SELECT * {of_pipeline} AND failed_items.item_id = items.id)),"
        f" (SELECT COUNT(*) {of_pipeline} AND NOT EXISTS (SELECT * {of_item})),"
        f" (SELECT COUNT(*) {of_pipeline} AND EXISTS (SELECT * {of_item} AND {column} IS NOT NULL)),"
        f" (SELECT COUNT(*) {of_pipeline} AND hour = %s AND NOT EXISTS (SELECT * {of_item} AND {within})),"
        f" (SELECT COUNT(*) FROM items WHERE {within} AND {column} IS NOT NULL AND {column} NOT LIKE %s)",
        *(start, end, start, end, start, start, end, start, start, end, start, end, "[%]"),
    )
    items, predicted, failed, pending, orphans, failed_and_predicted, in_another_hour, not_a_list = row
    assert items == predicted + failed + pending
    assert orphans == 0
    assert failed_and_predicted == 0
    assert in_another_hour == 0
    assert not_a_list == 0
    return Counts(items, predicted, failed, pending)


def meddling(meddle: Callable[[], object]) -> Any:
    """The resource of the model, with something that happens in the database between reading a batch and writing it."""
    from batch_assets.inference.onnx_model import OnnxModel
    from batch_assets.orchestration.resources import Model
    from batch_assets.settings.inference import InferenceSettings
    from batch_assets.settings.items import ItemFormat
    from batch_assets.settings.model import ModelSource

    class Meddling(OnnxModel):
        def probabilities(self, features: np.ndarray) -> np.ndarray:
            meddle()
            return super().probabilities(features)

    class MeddlingModel(Model):
        def load(self, source: ModelSource, items: ItemFormat, inference: InferenceSettings) -> OnnxModel:
            model = super().load(source, items, inference)
            model.__class__ = Meddling
            return model

    return MeddlingModel()


def wait_for_the_first_prediction(sql: Sql, start: str = START) -> None:
    scored = "SELECT id FROM items WHERE created_datetime >= %s AND prediction IS NOT NULL LIMIT 1"
    end = time.monotonic() + JOB_SECONDS
    while not sql(scored, start):
        assert time.monotonic() < end, "nothing is scored"
        time.sleep(0.01)


def iris_probabilities(texts: Sequence[str]) -> np.ndarray:
    """What scikit-learn itself says of iris items."""
    from batch_assets.iris.training import iris_classifier

    probabilities: np.ndarray = iris_classifier().predict_proba(np.array([json.loads(text) for text in texts]))
    return probabilities


def assert_predicted(sql: Sql, expected: dict[int, Sequence[float]]) -> None:
    """These items, and no others of the hour, have these predictions."""
    found = {key: prediction for key, prediction in predictions_of(sql).items() if prediction is not None}
    assert found.keys() == expected.keys()
    if expected:
        difference = np.abs(np.array([found[key] for key in expected]) - np.array(list(expected.values())))
        assert difference.max() <= 1e-5
