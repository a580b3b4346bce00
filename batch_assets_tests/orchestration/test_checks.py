"""The checks over all closed hours look at the tables as they are now."""

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.definitions import defs
from batch_assets.orchestration.checks import build_checks
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import END, GOOD, HALF_PAST, HOUR, START, insert_items
from batch_assets_tests.support.sensor import over

NEXT = "2026-11-02-06:00"

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.above_sql]

no_failed_items, no_pending_items, newest_hour_was_scored_in_time = build_checks(OF_ENVIRONMENT)

# Of a check, what the UI goes by where it counts those that have passed.
SHOWN = """query Shown($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks {
    name executionForLatestMaterialization { runId status evaluation { description } }
  } } }
} } }"""


def evaluated(check: dg.AssetChecksDefinition) -> dg.AssetCheckResult:
    result = check()
    assert isinstance(result, dg.AssetCheckResult)
    return result


def checked(check: dg.AssetChecksDefinition) -> tuple[bool, str | None]:
    result = evaluated(check)
    return result.passed, result.description


def test_pending_items_are_those_of_closed_hours_from_the_first_on(sql: Sql) -> None:
    open_hour = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    insert_items(sql, GOOD, f"{open_hour:%Y-%m-%d %H:%M:%S}")
    insert_items(sql, GOOD, "2026-10-31 23:59:59")
    assert checked(no_pending_items) == (True, "0 items pending in 0 hours; expected none")
    insert_items(sql, GOOD, END)
    insert_items(sql, GOOD)  # in hours that were never summed up
    assert checked(no_pending_items) == (False, "6 items pending in 2 hours; expected none")
    shown = str(evaluated(no_pending_items).metadata["latest hours"].value)
    assert shown.index("2026-11-02-06:00") < shown.index("2026-11-02-05:00")
    sql("UPDATE items SET prediction = '[1, 0, 0]'")
    assert checked(no_pending_items) == (True, "0 items pending in 0 hours; expected none")


def test_failed_items_are_those_that_may_be_tried_again_and_those_that_are_given_up(sql: Sql) -> None:
    keys = insert_items(sql, GOOD, HALF_PAST)
    for key, attempts in zip(keys, (1, 3, 9), strict=True):
        sql(
            "INSERT INTO failed_items (item_id, hour, code, message, attempts, first_failed_at, last_failed_at,"
            " model_version, run_id, values_checksum) VALUES (%s, %s, 'c', 'm', %s, %s, %s, 'v', 'r', 0)",
            *(key, START, attempts, END, END),
        )
    assert checked(no_failed_items) == (False, "3 items failed in 1 hours; expected none")
    assert checked(no_pending_items) == (True, "0 items pending in 0 hours; expected none")


def shown() -> dict[str, tuple[str, str, str | None]]:
    """Run, status and description of each check as the UI has them."""
    command = [str(Path(sys.executable).with_name("dagster-graphql")), "-m", "batch_assets.definitions"]
    command += ["-t", SHOWN, "-v", json.dumps({"key": {"path": ["run_summary"]}})]
    output = subprocess.check_output(command, encoding="utf-8", timeout=120)
    # Among the lines of the code server that it starts.
    answer = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    found: dict[str, Any] = {
        check["name"]: check["executionForLatestMaterialization"]
        for check in answer["data"]["assetNodeOrError"]["assetChecksOrError"]["checks"]
    }
    return {
        name: (execution["runId"], execution["status"], (execution["evaluation"] or {}).get("description"))
        for name, execution in found.items()
        if name in {"no_failed_items", "no_pending_items"}
    }


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
@pytest.mark.parametrize("tags", [over(HOUR, NEXT), {"dagster__partition": NEXT}], ids=["some hours", "its only hour"])
def test_the_checks_say_what_is_so_after_a_run_that_failed_for(
    sql: Sql, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]
) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, [*GOOD, '"bad"'], END)
    monkeypatch.setenv("BATCH_MAX_FAILED_ITEMS", "0")
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def("batch_inference").execute_in_process(
            tags={name.replace("__", "/"): key for name, key in tags.items()}, instance=instance, raise_on_error=False
        )
        assert not result.success
    pending = 0 if "dagster__partition" not in tags else 3
    assert shown() == {
        "no_failed_items": (result.run_id, "FAILED", "1 items failed in 1 hours; expected none"),
        "no_pending_items": (
            result.run_id,
            "FAILED" if pending else "SUCCEEDED",
            f"{pending} items pending in {min(pending, 1)} hours; expected none",
        ),
    }
