"""The checks look at the tables as they are now, over all closed hours."""

import datetime

import dagster as dg
import pytest

from batch_assets.orchestration.checks import no_failed_items, no_pending_items
from batch_assets.orchestration.resources import CurrentPipeline
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import END, GOOD, HALF_PAST, START, insert_items

pytestmark = pytest.mark.usefixtures("tables")


def evaluated(check: dg.AssetChecksDefinition) -> dg.AssetCheckResult:
    result = check(CurrentPipeline())
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
