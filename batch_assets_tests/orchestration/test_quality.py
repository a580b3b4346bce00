"""What came true is stored, and each hour is measured by it: again when more of it is known."""

import datetime
import json
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.definitions import defs
from batch_assets_tests.support.command_line import batch_assets, refused, succeeded
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import GOOD, HALF_PAST, HOUR, START, insert_items, run_in

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.dagster, pytest.mark.above_sql]

QUALITY = dg.AssetKey("hour_quality")


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[list[dg.AssetMaterialization], str | None]:
    """What a tick of the sensor records, and its cursor."""
    repository = defs.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor) as context:
        data = repository.get_sensor_def("measure_quality").evaluate_tick(context)
    events = [event for event in data.asset_events if isinstance(event, dg.AssetMaterialization)]
    return events, data.cursor


def known(tmp_path: Path, *rows: tuple[int, str]) -> str:
    file = tmp_path / "actuals.csv"
    file.write_text("item_id,label\n" + "".join(f"{key},{label}\n" for key, label in rows))
    return succeeded(batch_assets("actuals", str(file)))


def numbers(event: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in event.metadata.items()}


def test_an_hour_is_measured_when_it_is_known_what_came_true_and_again_when_more_is(
    instance: dg.DagsterInstance, sql: Sql, tmp_path: Path
) -> None:
    keys = insert_items(sql, GOOD, HALF_PAST)
    run_in(instance)
    assert tick(instance)[0] == []
    labels = ["setosa", "versicolor", "virginica"]
    said = [
        labels[max(range(3), key=json.loads(text).__getitem__)]
        for (text,) in sql("SELECT prediction FROM items ORDER BY id")
    ]
    other = next(label for label in labels if label != said[1])
    assert known(tmp_path, (keys[0], said[0]), (keys[1], other)) == "stored what came true of 2 items\n"
    [event], cursor = tick(instance)
    assert (event.asset_key, event.partition) == (QUALITY, HOUR)
    found = numbers(event)
    assert (found["predicted"], found["known"], found["accuracy"]) == (3, 2, 0.5)
    assert found["coverage"] == pytest.approx(2 / 3, abs=1e-6)
    assert 0 < found["expected_accuracy"] <= 1
    assert sql("SELECT predicted, known, accuracy FROM hour_quality WHERE hour = %s", START) == [(3, 2, 0.5)]

    known(tmp_path, (keys[1], said[1]), (keys[2], said[2]))
    [event], _ = tick(instance, cursor)
    assert (numbers(event)["known"], numbers(event)["accuracy"]) == (3, 1.0)
    assert sql("SELECT predicted, known, accuracy FROM hour_quality WHERE hour = %s", START) == [(3, 3, 1.0)]


def test_an_hour_that_is_scored_again_is_measured_again(instance: dg.DagsterInstance, sql: Sql, tmp_path: Path) -> None:
    keys = insert_items(sql, GOOD, HALF_PAST)
    run_in(instance)
    known(tmp_path, (keys[0], "setosa"))
    sql("UPDATE actuals SET known_at = %s", "2026-11-03 00:00:00.000000")
    # In seconds, in which both are stored, an hour is measured after it was scored.
    time.sleep(1.1)
    _, cursor = tick(instance)
    sql("UPDATE items SET prediction = NULL WHERE id = %s", keys[1])
    assert tick(instance, cursor)[0] == []
    run_in(instance)
    time.sleep(1.1)
    [event], cursor = tick(instance, cursor)
    assert (event.partition, numbers(event)["predicted"]) == (HOUR, len(GOOD))
    assert tick(instance, cursor)[0] == []


def test_an_hour_of_which_nothing_new_is_known_is_not_measured_again(
    instance: dg.DagsterInstance, sql: Sql, tmp_path: Path
) -> None:
    keys = insert_items(sql, GOOD, HALF_PAST)
    run_in(instance)
    known(tmp_path, (keys[0], "setosa"))
    long_ago = datetime.datetime(2026, 11, 3)  # noqa: DTZ001 - UTC without a zone, as in the database
    sql("UPDATE actuals SET known_at = %s", f"{long_ago:%Y-%m-%d %H:%M:%S}.000000")
    time.sleep(1.1)  # as above
    assert len(tick(instance)[0]) == 1
    assert tick(instance)[0] == []


def test_what_a_file_says_is_stored_as_a_whole_or_not_at_all(sql: Sql, tmp_path: Path) -> None:
    keys = insert_items(sql, GOOD, HALF_PAST)
    file = tmp_path / "actuals.jsonl"
    file.write_text(f'{{"item_id": {keys[0]}, "label": "setosa"}}\n{{"item_id": {keys[1]}, "label": ""}}\n')
    assert "actuals.jsonl, line 2 does not have item_id and label, or item_id and value" in refused(
        batch_assets("actuals", str(file))
    )
    file.write_text(f'{{"item_id": {keys[0]}, "label": "setosa"}}\n{{"item_id": 12345, "label": "setosa"}}\n')
    assert "There are no items 12345 in items" in refused(batch_assets("actuals", str(file)))
    file.write_text(f"item_id,value\n{keys[0]},nan\n")
    assert "value a finite one" in refused(batch_assets("actuals", str(file)))
    assert sql("SELECT COUNT(*) FROM actuals") == [(0,)]
    file.write_text(f"item_id,value\n{keys[0]},1.5\n{keys[1]},2\n")
    assert succeeded(batch_assets("actuals", str(file))) == "stored what came true of 2 items\n"
    assert sql("SELECT item_id, label, value FROM actuals ORDER BY item_id") == [
        (keys[0], None, 1.5),
        (keys[1], None, 2.0),
    ]
