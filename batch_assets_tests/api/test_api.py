"""The web API as its clients meet it: over a socket, judged by its answers and by the rows."""

import contextlib
import datetime
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import hypothesis
import numpy as np
import pytest
import yaml
from hypothesis import strategies as st
from pydantic import ValidationError

from batch_assets.api import pipeline_routes
from batch_assets.api.item_bodies import item_bodies
from batch_assets.database.records.items import ItemFilter, read_page
from batch_assets.database.schema.setup import initialize_database
from batch_assets.errors import ModelError
from batch_assets.inference.item_format import check_values
from batch_assets.inference.model_inputs import ModelInputs
from batch_assets.pipeline import pipeline_from_environment
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.api import KEY, WRITING, process, refused, registered, served
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.pipeline import END, GOOD, HALF_PAST, HOUR, START, insert_items
from batch_assets_tests.support.registry import Registry, sha256_of
from batch_assets_tests.support.servers import Server, private_server

pytestmark = pytest.mark.above_sql

VALUES = [5.1, 3.5, 1.4, 0.2]

Start = Callable[..., httpx.Client]


@pytest.fixture
def start(empty_tables: dict[str, str]) -> Iterator[Start]:
    """Starts the application on a socket of its own, and returns a client that may write."""
    with contextlib.ExitStack() as stack:
        yield lambda **environment: stack.enter_context(served({**os.environ, "API_KEY": KEY, **environment}))


@pytest.fixture
def api(start: Start) -> httpx.Client:
    return start()


def values_of(sql: Sql) -> list[tuple[int, list[float]]]:
    return [(key, json.loads(text)) for key, text in sql("SELECT id, `values` FROM items ORDER BY id")]


# Registering


def test_an_item_or_a_list_of_items_is_registered_in_the_open_hour(api: httpx.Client, sql: Sql) -> None:
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    (first,) = registered(api.post("/data", json={"values": VALUES}))
    rest = registered(api.post("/data", json=[{"values": [n, 2, 3, 4.5]} for n in range(3)]))
    assert values_of(sql) == [(first, VALUES), *((key, [n, 2, 3, 4.5]) for n, key in enumerate(rest))]
    for prediction, created, updated in sql("SELECT prediction, created_datetime, updated_datetime FROM items"):
        assert prediction is None
        moment = datetime.datetime.fromisoformat(str(created))
        assert before <= moment <= datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        assert str(updated) == str(created)


def test_ten_thousand_items_come_with_their_ids_in_their_order(api: httpx.Client, sql: Sql) -> None:
    ids = registered(api.post("/data", json=[{"values": [n, 0, 0, 0]} for n in range(10_000)]))
    assert values_of(sql) == [(key, [n, 0, 0, 0]) for n, key in enumerate(ids)]
    problem = refused(api.post("/data", json=[{"values": VALUES}] * 10_001), 422)
    assert "at most 10000 items" in problem["faults"][0]["reason"]
    assert sql("SELECT COUNT(*) FROM items") == [(10_000,)]


def test_one_malformed_item_keeps_all_of_its_list_out_and_is_named(api: httpx.Client, sql: Sql) -> None:
    malformed: tuple[object, ...] = (
        {"values": [1, 2, 3]},
        {"values": [1, "2", True, None]},
        {"values": [1, 2, 3, 1e39]},
        {},
        7,
    )
    problem = refused(api.post("/data", json=[{"values": VALUES}, *malformed, {"values": VALUES, "id": 3}]), 422)
    assert [(fault["index"], fault["reason"]) for fault in problem["faults"]] == [
        (1, "values: List should have at least 4 items after validation, not 3"),
        (2, "values[1]: Input should be a valid number"),
        (2, "values[2]: Input should be a valid number"),
        (2, "values[3]: Input should be a valid number"),
        (3, "values[3]: Input should be less than or equal to 340282356779733620000000000000000000000"),
        (4, "values: Field required"),
        (5, "Input should be a valid dictionary or object to extract fields from"),
        (6, "id: Extra inputs are not permitted"),
    ]
    assert refused(api.post("/data", json={"values": [1, 2, 3, "x"]}), 422)["faults"][0]["index"] is None
    assert refused(
        api.post("/data", content=b'{"values": [1, 2, 3, NaN]}', headers={"content-type": "application/json"}), 422
    )
    assert refused(api.post("/data", json=[]), 422)
    assert refused(api.post("/data", content=b"[" * 200_000, headers={"content-type": "application/json"}), 400)
    assert sql("SELECT COUNT(*) FROM items") == [(0,)]


def test_nobody_writes_without_the_key(start: Start, sql: Sql) -> None:
    api = start()
    (key,) = registered(api.post("/data", json={"values": VALUES}))
    for given in ({"X-API-Key": "another"}, {"X-API-Key": ""}):
        assert "X-API-Key" in refused(api.post("/data", json={"values": VALUES}, headers=given), 401)["detail"]
        refused(api.patch(f"/data/{key}", json={"values": [1, 2, 3, 4]}, headers=given), 401)
    del api.headers["X-API-Key"]
    refused(api.post("/data", json={"values": VALUES}), 401)
    assert api.get(f"/data/{key}").json()["values"] == VALUES
    closed = start(API_KEY="")
    assert "API_KEY" in refused(closed.post("/data", json={"values": VALUES}), 401)["detail"]
    assert len(values_of(sql)) == 1


def test_a_body_that_is_too_large_is_refused_before_it_is_read(start: Start, sql: Sql) -> None:
    api = start(API_MAX_BODY_BYTES="1000")
    items = json.dumps([{"values": VALUES}] * 100).encode()
    kind = {"content-type": "application/json"}
    assert "1,000 bytes" in refused(api.post("/data", content=items, headers=kind), 413)["detail"]
    parts = (items[start : start + 100] for start in range(0, len(items), 100))
    assert "1,000 bytes" in refused(api.post("/data", content=parts, headers=kind), 413)["detail"]
    assert sql("SELECT COUNT(*) FROM items") == [(0,)]
    registered(api.post("/data", json={"values": VALUES}))


# Repeating


def test_a_request_that_is_sent_again_with_its_key_registers_nothing_more(api: httpx.Client, sql: Sql) -> None:
    items, again = [{"values": [n, 0, 0, 0]} for n in range(3)], {"Idempotency-Key": "a"}
    ids = registered(api.post("/data", json=items, headers=again))
    assert registered(api.post("/data", json=items, headers=again)) == ids
    # Case counts, whatever the server compares by.
    assert registered(api.post("/data", json=items, headers={"Idempotency-Key": "A"})) == [key + 3 for key in ids]
    assert len(values_of(sql)) == 6


def test_a_key_serves_no_other_items(api: httpx.Client, sql: Sql) -> None:
    again = {"Idempotency-Key": "a"}
    registered(api.post("/data", json={"values": VALUES}, headers=again))
    problem = refused(api.post("/data", json={"values": [1, 2, 3, 4]}, headers=again), 409)
    assert "Nothing was registered" in problem["detail"]
    assert len(values_of(sql)) == 1


def test_of_requests_with_one_key_at_the_same_time_one_registers(api: httpx.Client, sql: Sql) -> None:
    items = [{"values": [n, 0, 0, 0]} for n in range(100)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: registered(api.post("/data", json=items, headers={"Idempotency-Key": "a"})), range(16))
        )
    assert [key for key, _ in values_of(sql)] == answers[0]
    assert answers == [answers[0]] * 16


# Correcting


def test_a_corrected_item_is_pending_again(api: httpx.Client, sql: Sql) -> None:
    key, other = insert_items(sql, GOOD[:2])
    sql("UPDATE items SET prediction = '[1.0, 0.0, 0.0]'")
    item = api.patch(f"/data/{key}", json={"values": [1, 2, 3, 4]}).json()
    assert (item["id"], item["values"], item["prediction"]) == (key, [1, 2, 3, 4], None)
    rows = sql("SELECT id, `values`, prediction FROM items ORDER BY id")
    assert [(row[0], json.loads(row[1]), row[2] and json.loads(row[2])) for row in rows] == [
        (key, [1, 2, 3, 4], None),
        (other, json.loads(GOOD[1]), [1, 0, 0]),
    ]
    assert [item["id"] for item in api.get("/data/unpredicted").json()] == [key]
    assert refused(api.patch("/data/999", json={"values": VALUES}), 404)["detail"] == "There is no item 999."
    refused(api.patch(f"/data/{other}", json={"values": [1]}), 422)


# Showing


def test_an_item_is_shown_as_it_stands(api: httpx.Client, sql: Sql) -> None:
    (key,) = insert_items(sql, GOOD[:1])
    sql("UPDATE items SET prediction = '[0.9, 0.1, 0.0]', updated_datetime = %s", END)
    assert api.get(f"/data/{key}").json() == {
        "id": key,
        "values": json.loads(GOOD[0]),
        "prediction": [0.9, 0.1, 0.0],
        "created_datetime": "2026-11-02T05:30:00Z",
        "updated_datetime": "2026-11-02T06:00:00Z",
    }
    for path in ("/data/999", f"/data/{10**18 - 1}", "/data/x", f"/data/{10**18}", "/data/-1", f"/data/{'9' * 5000}"):
        refused(api.get(path), 404)
    refused(api.get("/data/0"), 422)
    refused(api.patch("/data/all", json={"values": VALUES}), 405)
    assert api.delete(f"/data/{key}").headers["allow"] == "GET, PATCH"


def test_whatever_the_service_has_written_is_shown(api: httpx.Client, sql: Sql) -> None:
    texts = ['"bad"', "{}", "null", "[1, null]", "[[1e300]]", "[123456789012345678901234567890]"]
    insert_items(sql, texts)
    shown = [item["values"] for item in api.get("/data/all").json()]
    assert shown == [pytest.approx(json.loads(text)) if "9" in text else json.loads(text) for text in texts[::-1]]


@pytest.mark.parametrize("database_environment", ["server"], indirect=True)
def test_an_item_that_was_updated_at_no_time_is_shown(api: httpx.Client, sql: Sql) -> None:
    (key,) = insert_items(sql, GOOD[:1])
    sql("ALTER TABLE items MODIFY updated_datetime TIMESTAMP NULL")
    sql("UPDATE items SET updated_datetime = NULL")
    assert api.get(f"/data/{key}").json()["updated_datetime"] is None


@pytest.mark.parametrize("which", ["all", "predicted", "unpredicted"])
def test_pages_show_every_item_once_the_newest_first(api: httpx.Client, sql: Sql, which: str) -> None:
    ids = [*insert_items(sql, GOOD * 4, START), *insert_items(sql, GOOD * 4, HALF_PAST)]
    late = insert_items(sql, GOOD, START)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id % 2 = 0")
    expected = [*ids[:11:-1], *late[::-1], *ids[11::-1]]
    if which != "all":
        expected = [key for key in expected if key % 2 == (which == "unpredicted")]
    found: list[int] = []
    page = api.get(f"/data/{which}", params={"limit": 5})
    while True:
        found += [item["id"] for item in page.json()]
        assert len(page.json()) <= 5
        # What comes in between is newer, and on no later page.
        insert_items(sql, GOOD[:1], END)
        if "next" not in page.links:
            break
        page = api.get(page.links["next"]["url"])
    assert found == expected


def test_a_page_is_bounded(api: httpx.Client, sql: Sql) -> None:
    insert_items(sql, GOOD * 400)
    assert len(api.get("/data/all").json()) == 100
    assert len(api.get("/data/all", params={"limit": 1000}).json()) == 1000
    for parameters in ({"limit": 1001}, {"limit": 0}, {"cursor": "x"}, {"cursor": "9" * 18 + "-1"}):
        refused(api.get("/data/all", params=parameters), 422)


def test_a_page_reads_what_it_shows(server: Server, server_environment: dict[str, str], sql: Sql) -> None:
    initialize_database(engine_from_environment(), ITEMS)
    insert_items(sql, GOOD * 3000)
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id > 4500")
    sql("ANALYZE TABLE items")
    newest = read_page(engine_from_environment(), ITEMS, ItemFilter.unpredicted, None, 11)
    last = pipeline_routes._position(pipeline_routes._cursor(newest[-1]))
    for which in ItemFilter:
        for before in (None, last):
            assert rows_read(lambda: read_page(engine_from_environment(), ITEMS, which, before, 11)) < 200  # noqa: B023


def rows_read(action: Callable[[], object]) -> int:
    """How many rows the engine's connection has read for something."""
    with engine_from_environment().connect() as connection:
        session = connection.connection.dbapi_connection
    assert session

    def handled() -> int:
        with session.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(value) for _, value in cursor.fetchall())

    before = handled()
    action()
    return handled() - before


def test_hours_are_shown_as_they_were_summed_up(api: httpx.Client, sql: Sql) -> None:
    for number in range(3):
        sql(
            "INSERT INTO run_summary (hour, items, predicted, failed, pending, label_counts, run_id, finished_at,"
            " retry, model_version, started_at) VALUES (%s, 4, 3, 1, 0, %s, 'r', %s, 'partial', 'abc', %s)",
            f"2026-11-02 0{5 + number}:00:00",
            '{"setosa": 3}',
            END,
            END,
        )
    page = api.get("/hours", params={"limit": 2})
    assert [hour["hour"] for hour in page.json()] == ["2026-11-02-07:00", "2026-11-02-06:00"]
    rest = api.get(page.links["next"]["url"])
    assert (rest.json(), rest.links) == ([api.get(f"/hours/{HOUR}").json()], {})
    assert rest.json()[0] == {
        "hour": HOUR,
        "items": 4,
        "predicted": 3,
        "failed": 1,
        "pending": 0,
        "label_counts": {"setosa": 3},
        "model_version": "abc",
        "retry": "partial",
        "run_id": "r",
        "started_at": "2026-11-02T06:00:00Z",
        "finished_at": "2026-11-02T06:00:00Z",
        "scored": None,
        "ignored_keys": 0,
        "predicted_by_other_models": 0,
        "rows_per_second": None,
    }
    for key in ("2026-11-02-09:00", "2026-11-31-09:00"):
        refused(api.get(f"/hours/{key}"), 404)
    assert len(api.get("/hours", params={"before": "2026-11-31-00:00"}).json()) == 3
    for key in ("2026-11-02-09:30", "2026-13-02-09:00", "2026-11-02-24:00", "yesterday"):
        refused(api.get(f"/hours/{key}"), 422)
        refused(api.get("/hours", params={"before": key}), 422)


ACTUALS = "SELECT item_id, label, value FROM actuals WHERE pipeline = 'items' ORDER BY item_id"


def test_what_came_true_is_stored_of_all_items_or_of_none(api: httpx.Client, sql: Sql) -> None:
    first, second, third = insert_items(sql, GOOD)
    answer = api.post("/actuals", json=[{"item_id": first, "label": "setosa"}, {"item_id": second, "value": 1.5}])
    assert (answer.status_code, answer.json()) == (201, {"stored": 2})
    stored = [(first, "setosa", None), (second, None, 1.5)]
    assert sql(ACTUALS) == stored
    missing = [{"item_id": third, "label": "setosa"}, {"item_id": 4711, "label": "setosa"}]
    assert "There are no items 4711 in items" in refused(api.post("/actuals", json=missing), 409)["detail"]
    twice = [{"item_id": third, "label": "setosa"}, {"item_id": third, "label": "virginica"}]
    assert f"Item {third} is named twice" in refused(api.post("/actuals", json=twice), 409)["detail"]
    for wrong in ({}, {"label": ""}, {"label": "a", "value": 1}, {"value": "NaN"}, {"lable": "a"}):
        problem = refused(
            api.post("/actuals", json=[{"item_id": first, "label": "a"}, {"item_id": third} | wrong]), 422
        )
        assert {fault["index"] for fault in problem["faults"]} == {1}
    text = json.dumps([{"item_id": third, "label": "\ud800"}])
    unpaired = api.post("/actuals", content=text, headers={"Content-Type": "application/json"})
    assert "label.label: Input should be a valid string" in refused(unpaired, 422)["faults"][0]["reason"]
    refused(api.post("/actuals", json=[]), 422)
    refused(api.post("/actuals", json=missing, headers={"X-API-Key": "another"}), 401)
    assert sql(ACTUALS) == stored
    assert api.post("/actuals", json=[{"item_id": first, "label": "virginica"}]).json() == {"stored": 1}
    assert sql(ACTUALS) == [(first, "virginica", None), stored[1]]


def test_requests_that_say_at_once_what_came_true_of_the_same_items_all_store_it(api: httpx.Client, sql: Sql) -> None:
    keys = insert_items(sql, GOOD * 100)

    def say(label: str) -> int:
        rows = [{"item_id": key, "label": label} for key in keys]
        while (answer := api.post("/actuals", json=rows)).status_code == 503:
            continue
        return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(say, "abcdefgh" * 3)) == {201}
    assert len(sql(ACTUALS)) == len(keys)


def test_the_quality_of_hours_is_shown_as_it_was_measured(api: httpx.Client, sql: Sql) -> None:
    for number in range(3):
        sql(
            "INSERT INTO hour_quality (pipeline, hour, measured_at, predicted, known, coverage, accuracy, calibration) "
            "VALUES ('items', %s, %s, 4, 2, 0.5, 1, '[]')",
            f"2026-11-02 0{5 + number}:00:00",
            END,
        )
    page = api.get("/quality", params={"limit": 2})
    assert [hour["hour"] for hour in page.json()] == ["2026-11-02-07:00", "2026-11-02-06:00"]
    assert api.get(page.links["next"]["url"]).json() == [
        {
            "hour": HOUR,
            "model_version": None,
            "measured_at": "2026-11-02T06:00:00Z",
            "predicted": 4,
            "known": 2,
            "coverage": 0.5,
            "accuracy": 1.0,
            "mean_absolute_error": None,
            "brier_score": None,
            "expected_accuracy": None,
        }
    ]


def test_metadata_say_what_an_item_must_be(api: httpx.Client) -> None:
    metadata = api.get("/metadata").json()
    assert metadata.pop("model_version") == "dd55621127ea4c12ca1ac315b1b52e990b625218be74633f8d19d1610029830f"
    assert metadata == {"labels": ["setosa", "versicolor", "virginica"], "number_of_values": 4, "type": "float32"}


def test_the_model_of_a_registry_is_that_which_its_alias_names_when_the_api_starts(
    start: Start, registry: Registry
) -> None:
    registry.set_alias(2)
    labels = str(root_folder() / "models" / "label.json")
    api = start(MODEL_FILEPATH="models:/iris@champion", LABEL_FILEPATH=labels)
    assert api.get("/metadata").json()["model_version"] == sha256_of(2)
    with pytest.raises(ModelError, match="has no alias challenger of the model iris"):
        start(MODEL_FILEPATH="models:/iris@challenger")


# Operating


def metrics_of(api: httpx.Client) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in api.get("/metrics").text.splitlines() if line[:1] != "#"]
    return {name: float(value) for name, value in lines if name.startswith("batch_assets_")}


def rules_of(text: str) -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def test_metrics_say_what_is_left_and_how_old_the_last_hour_is(api: httpx.Client, sql: Sql) -> None:
    assert "batch_assets_last_scored_hour_age_seconds" not in metrics_of(api)
    ids = insert_items(sql, GOOD)
    insert_items(sql, GOOD[:1], str(datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)))
    sql("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = %s", ids[0])
    sql(
        "INSERT INTO failed_items (item_id, hour, code, message, attempts, first_failed_at, last_failed_at,"
        " model_version, run_id, values_checksum) VALUES (%s, %s, 'not_json', '', 9, %s, %s, '', '', 0)",
        *(ids[1], START, END, END),
    )
    sql(
        "INSERT INTO run_summary (hour, items, predicted, failed, pending, label_counts, run_id, finished_at)"
        " VALUES (%s, 3, 1, 1, 1, '{}', 'r', %s)",
        *(START, END),
    )
    for path in ("/data/1", "/data/2", "/nowhere"):
        api.get(path)
    found = metrics_of(api)
    assert found["batch_assets_database_up"] == 1
    assert (found["batch_assets_items_pending"], found["batch_assets_items_failed"]) == (2, 1)
    start = datetime.datetime.fromisoformat(f"{START}+00:00").timestamp()
    assert found["batch_assets_last_scored_hour_timestamp_seconds"] == start
    age = time.time() - start - 3600
    assert age - 60 < found["batch_assets_last_scored_hour_age_seconds"] <= age
    counted = 'batch_assets_api_request_seconds_count{{method="GET",path="{}",status="{}"}}'
    assert found[counted.format("/data/{item_id}", 200)] == 2
    assert found[counted.format("(none)", 404)] == 1
    # What the rules for Prometheus ask for is there.
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text("utf-8")
    asked = set(re.findall(r"\bbatch_assets_\w+", "".join(rule["expr"] for rule in rules_of(rules))))
    assert len(asked) == 4
    assert asked <= {name.partition("{")[0] for name in found}


@pytest.mark.server
def test_while_the_database_is_away_the_api_says_so_and_is_back_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with private_server() as private, private.server.database() as name:
        environment = {**os.environ, **private.server.environment(name), "API_KEY": KEY}
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        initialize_database(engine_from_environment(), ITEMS)
        with served(environment) as api:
            registered(api.post("/data", json={"values": VALUES}))
            assert (api.get("/health").status_code, api.get("/health").json()) == (200, {"health": "ok"})
            private.stop(kill=True)
            sick = api.get("/health")
            assert (sick.status_code, str(private.server.port) in sick.json()["health"]) == (503, True)
            for answer in (api.get("/data/all"), api.post("/data", json={"values": VALUES}), api.get("/hours")):
                assert refused(answer, 503)["detail"] == "The database is away or busy: try again."
                assert answer.headers["retry-after"] == "1"
            assert metrics_of(api)["batch_assets_database_up"] == 0
            private.start()
            assert api.get("/health").json() == {"health": "ok"}
            assert len(api.get("/data/all").json()) == 1


def answers(url: str) -> bool:
    """Whether connections are taken there."""
    try:
        httpx.get(f"{url}/health")
    except httpx.TransportError:
        return False
    return True


def test_the_log_has_a_line_of_json_for_each_request_and_no_secret(
    server: Server, server_environment: dict[str, str], tmp_path: Path
) -> None:
    initialize_database(engine_from_environment(), ITEMS)
    with process(server_environment, tmp_path / "log") as (api, url):
        named = {**WRITING, "X-Request-ID": "request 7"}
        answer = httpx.post(f"{url}/data", json={"values": [0.123456, 2, 3, 4]}, headers=named)
        assert answer.headers["x-request-id"] == "request 7"
        api.send_signal(signal.SIGTERM)
        assert api.wait(30) == -signal.SIGTERM
    output = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in output.splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "request 7"]
    assert (line["method"], line["path"], line["status"], line["client"]) == ("POST", "/data", 201, "127.0.0.1")
    assert (line["level"], line["milliseconds"] > 0) == ("INFO", True)
    assert KEY not in output
    assert not server.password or server.password not in output
    assert "\\u001b" not in output
    assert "0.123456" not in output


def test_told_to_end_it_answers_what_it_has_begun(
    server: Server, server_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    initialize_database(engine_from_environment(), ITEMS)
    (key,) = insert_items(sql, GOOD[:1])
    with process(server_environment, tmp_path / "log") as (api, url), ThreadPoolExecutor(1) as pool:
        holder = engine_from_environment().connect()
        holder.exec_driver_sql(f"SELECT * FROM items WHERE id = {key} FOR UPDATE")
        begun = pool.submit(httpx.patch, f"{url}/data/{key}", json={"values": VALUES}, headers=WRITING, timeout=60)
        writes = f"SELECT 1 FROM {server.processlist} WHERE info LIKE 'UPDATE%%' AND db = %s"
        while not sql(writes, server_environment["MYSQL_DATABASE"]):
            time.sleep(0.01)
        api.send_signal(signal.SIGTERM)
        while answers(url):
            time.sleep(0.01)
        holder.close()
        assert begun.result().status_code == 200
        assert api.wait(30) == -signal.SIGTERM
    assert values_of(sql) == [(key, VALUES)]


def test_a_kill_loses_no_item_that_was_acknowledged(
    server: Server, server_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    initialize_database(engine_from_environment(), ITEMS)
    acknowledged: list[int] = []
    with process(server_environment, tmp_path / "log") as (api, url), ThreadPoolExecutor(8) as pool:

        def register() -> None:
            with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=url, headers=WRITING) as client:
                while True:
                    acknowledged.extend(registered(client.post("/data", json=[{"values": VALUES}] * 50)))

        clients = [pool.submit(register) for _ in range(8)]
        while len(acknowledged) < 2000:
            time.sleep(0.01)
        api.kill()
        for client in clients:
            client.result(60)
    stored = {key for key, _ in values_of(sql)}
    assert set(acknowledged) <= stored
    assert len(acknowledged) == len(set(acknowledged))
    # Each list is there as a whole or not at all.
    assert len(stored) % 50 == 0


# What fits the model


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=500)
def test_what_is_registered_can_be_scored(dtype: type, data: st.DataObject) -> None:
    class Model:
        """Stands for a model of another type, of which the repository has none."""

        def __init__(self) -> None:
            self.dtype, self.width = np.dtype(dtype), 2
            self.inputs = ModelInputs((), self.dtype, self.width, {})

    edges = st.sampled_from([0, -0.0, 1e308, 3.4028235e38, 3.4028236e38, 2**63, 2**63 - 1, -(2**63) - 1, 10**400, 5.0])
    number = st.one_of(edges, st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3))
    values = data.draw(st.lists(number, min_size=1, max_size=3))
    bodies = item_bodies(pipeline_from_environment(), Model())  # type: ignore[arg-type]
    try:
        (text,) = bodies.row(bodies.new.model_validate({"values": values}))
    except ValidationError:
        return
    assert check_values([text], 2, np.dtype(dtype)).bad == []
