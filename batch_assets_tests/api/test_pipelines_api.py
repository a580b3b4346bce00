"""Pipelines that a project declares, as their clients meet them over a socket: judged by answers and by rows."""

import contextlib
import datetime
import json
import os
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.pipeline import OF_ENVIRONMENT, Declaration
from batch_assets_tests.support.api import KEY, refused, registered, served
from batch_assets_tests.support.customers import fitted, risks, write_customer_model
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment
from batch_assets_tests.support.pipeline import END, HOUR, START, insert_items
from batch_assets_tests.support.project import declared
from batch_assets_tests.support.servers import free_port

pytestmark = pytest.mark.above_sql

FEATURES = ["age", "plan", "spent", "active"]
CUSTOMER = {"age": 42, "plan": "gold", "spent": 12.5, "active": True}
OTHER = {"age": 19, "plan": "basic", "spent": 80, "active": False}
AS_COLUMNS = "age BIGINT, plan VARCHAR(20), spent DOUBLE, active BOOLEAN"
CREATED = "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP"

Start = Callable[..., httpx.Client]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a regression and a classifier of customers."""
    folder = tmp_path_factory.mktemp("models")
    regression = fitted(Ridge(), lambda rows: rows["spent"] * 2 + rows["age"])
    for name, model in (("churn", regression), ("risk", fitted(LogisticRegression(max_iter=1000), risks))):
        write_customer_model(folder, model).model_filepath.rename(folder / f"{name}.onnx")
    return folder


@pytest.fixture
def churn(models: Path) -> Declaration:
    """A regression of columns."""
    return declared(
        models,
        name="churn",
        table={"name": "customers", "created": "created_at", "features": FEATURES, "output": "churn_score"},
        model={"file": "churn.onnx", "task": "regression"},
        schedule={"minute": 35},
    )


@pytest.fixture
def risk(models: Path) -> Declaration:
    """A classification of the same columns, written to two others."""
    outputs = {"risk": "label", "certainty": "probability"}
    return declared(
        models,
        name="risk",
        table={"name": "customers", "created": "created_at", "features": FEATURES, "outputs": outputs},
        model={"file": "risk.onnx"},
    )


@pytest.fixture
def visits(models: Path) -> Declaration:
    """A classification of JSON objects, of which one feature may be null, written to a column of JSON."""
    return declared(
        models,
        name="visits",
        table={
            "name": "visits",
            "key": "visit_id",
            "created": "came_at",
            "values": "seen",
            "features": FEATURES,
            "nullable": ["spent"],
            "outputs": {"answer": "label_and_probabilities", "kind": "label"},
        },
        model={"file": "risk.onnx"},
    )


@pytest.fixture
def key(database_environment: dict[str, str]) -> str:
    """A key that the database numbers."""
    return "INTEGER PRIMARY KEY" + (" AUTO_INCREMENT" if "MYSQL_SERVER" in database_environment else "")


@pytest.fixture
def start(database_environment: dict[str, str], sql: Sql, key: str) -> Iterator[Start]:
    """Starts the application with pipelines, whose tables are there."""
    sql(
        f"CREATE TABLE customers (id {key}, {AS_COLUMNS}, created_at {CREATED}, churn_score DOUBLE, "
        "risk VARCHAR(20), certainty DOUBLE)"
    )
    sql(f"CREATE TABLE visits (visit_id {key}, seen JSON NOT NULL, came_at {CREATED}, answer JSON, kind JSON)")
    with contextlib.ExitStack() as stack:

        def started(*declarations: Declaration, **environment: str) -> httpx.Client:
            initialize_database(engine_from_environment(), *(item_table(each.items) for each in declarations))
            return stack.enter_context(served({**os.environ, "API_KEY": KEY, **environment}, declarations))

        yield started


def stored(sql: Sql) -> list[tuple[Any, ...]]:
    return sql(f"SELECT id, {', '.join(FEATURES)}, churn_score, risk FROM customers ORDER BY id")


# Registering


def test_an_item_of_columns_is_registered_as_a_row(start: Start, churn: Declaration, sql: Sql) -> None:
    api = start(churn)
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    (first,) = registered(api.post("/pipelines/churn/data", json={"values": CUSTOMER}))
    rest = registered(api.post("/pipelines/churn/data", json=[{"values": {**OTHER, "age": n}} for n in range(50)]))
    assert stored(sql) == [
        (first, 42, "gold", 12.5, 1, None, None),
        *((key, n, "basic", 80, 0, None, None) for n, key in enumerate(rest)),
    ]
    for (created,) in sql("SELECT created_at FROM customers"):
        moment = datetime.datetime.fromisoformat(str(created))
        assert before <= moment <= datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def test_an_item_by_name_is_registered_as_json(start: Start, visits: Declaration, sql: Sql) -> None:
    api = start(visits)
    items = [{"values": CUSTOMER}, {"values": {**OTHER, "spent": None}}]
    ids = registered(api.post("/pipelines/visits/data", json=items))
    rows = sql("SELECT visit_id, seen FROM visits ORDER BY visit_id")
    assert [(key, json.loads(text)) for key, text in rows] == [
        (ids[0], CUSTOMER),
        (ids[1], {**OTHER, "spent": None}),
    ]
    assert [item["values"] for item in api.get("/pipelines/visits/data/all").json()] == [
        {**OTHER, "spent": None},
        CUSTOMER,
    ]


HOSTILE: dict[str, tuple[object, str]] = {
    "a feature that there is not": ({**CUSTOMER, "height": 2}, "values.height: Extra inputs are not permitted"),
    "one of half a character": ({**CUSTOMER, "\ud800": 2}, "values"),
    "one whose name is long": ({**CUSTOMER, "x" * 100_000: 2}, "values.xxx"),
    "none": ({}, "values.age: Field required"),
    "one that is missing": ({"age": 1, "plan": "gold", "active": True}, "values.spent: Field required"),
    "null": ({**CUSTOMER, "plan": None}, "values.plan: Input should be a valid string"),
    "null for a number": ({**CUSTOMER, "age": None}, "values.age: Input should be a valid integer"),
    "a text for a number": ({**CUSTOMER, "age": "42"}, "values.age: Input should be a valid integer"),
    "a fraction for an integer": ({**CUSTOMER, "age": 42.5}, "values.age: Input should be a valid integer"),
    "a boolean for a number": ({**CUSTOMER, "spent": True}, "values.spent: Input should be a valid number"),
    "a number for a boolean": ({**CUSTOMER, "active": 1}, "values.active: Input should be a valid boolean"),
    "a number for a text": ({**CUSTOMER, "plan": 1}, "values.plan: Input should be a valid string"),
    "a list for a text": ({**CUSTOMER, "plan": ["gold"]}, "values.plan: Input should be a valid string"),
    "an integer beyond int64": ({**CUSTOMER, "age": 2**63}, "values.age: Input should be less than or equal to"),
    "one that is huge": ({**CUSTOMER, "age": 10**4000}, "values.age"),
    "a number beyond float32": ({**CUSTOMER, "spent": 10**39}, "values.spent: Input should be less than or equal to"),
    "half a character": ({**CUSTOMER, "plan": "\ud800"}, "values.plan: Input should be a valid string"),
    "a list": ([42, "gold", 12.5, True], "values: Input should be a valid dictionary"),
    "a text": ("gold", "values: Input should be a valid dictionary"),
    "null for all": (None, "values: Input should be a valid dictionary"),
}


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_what_the_model_cannot_score_is_refused_by_the_name_of_the_feature(
    start: Start, churn: Declaration, visits: Declaration, sql: Sql
) -> None:
    api = start(churn, visits)
    kept = registered(api.post("/pipelines/churn/data", json={"values": CUSTOMER}))
    for name in ("churn", "visits"):
        for what, (values, reason) in HOSTILE.items():
            body = json.dumps([{"values": CUSTOMER}, {"values": values}]).encode()
            headers = {"content-type": "application/json"}
            problem = refused(api.post(f"/pipelines/{name}/data", content=body, headers=headers), 422)
            assert {fault["index"] for fault in problem["faults"]} == {1}, what
            assert any(fault["reason"].startswith(reason) for fault in problem["faults"]), (what, problem)
            assert all(len(fault["reason"]) < 400 for fault in problem["faults"]), what
            body = json.dumps({"values": values}).encode()
            refused(api.patch(f"/pipelines/{name}/data/{kept[0]}", content=body, headers=headers), 422)
        digits = b'{"values": {"age": ' + b"9" * 5000 + b"}}"
        refused(api.post(f"/pipelines/{name}/data", content=digits, headers={"content-type": "application/json"}), 400)
        refused(api.post(f"/pipelines/{name}/data", json=CUSTOMER), 422)
    assert stored(sql) == [(kept[0], 42, "gold", 12.5, 1, None, None)]
    assert sql("SELECT COUNT(*) FROM visits") == [(0,)]


def test_the_keys_of_two_pipelines_are_two_even_on_one_table(
    start: Start, churn: Declaration, risk: Declaration, sql: Sql
) -> None:
    api, again = start(churn, risk, OF_ENVIRONMENT), {"Idempotency-Key": "a"}
    first = registered(api.post("/pipelines/churn/data", json={"values": CUSTOMER}, headers=again))
    second = registered(api.post("/pipelines/risk/data", json={"values": OTHER}, headers=again))
    registered(api.post("/data", json={"values": [1, 2, 3, 4]}, headers=again))
    assert registered(api.post("/pipelines/churn/data", json={"values": CUSTOMER}, headers=again)) == first
    refused(api.post("/pipelines/churn/data", json={"values": OTHER}, headers=again), 409)
    assert [row[:2] for row in stored(sql)] == [(first[0], 42), (second[0], 19)]


def made_anew(sql: Sql, columns: str) -> None:
    sql("DROP TABLE customers")
    sql(f"CREATE TABLE customers ({columns}, churn_score DOUBLE)")


def test_a_table_that_needs_more_than_the_features_names_what_it_needs(
    start: Start, churn: Declaration, sql: Sql, key: str
) -> None:
    needs = {
        "email": f"id {key}, {AS_COLUMNS}, created_at {CREATED}, email VARCHAR(80) NOT NULL",
        "created_at": f"id {key}, {AS_COLUMNS}, created_at DATETIME NULL",
        # SQLite numbers an INTEGER only, and servers what they are told to.
        "id": f"id INT PRIMARY KEY, {AS_COLUMNS}, created_at {CREATED}",
    }
    said = {"id": "The key id of customers does not number rows by itself: make it AUTO_INCREMENT"}
    for column, columns in needs.items():
        made_anew(sql, columns)
        api = start(churn)
        problem = refused(api.post("/pipelines/churn/data", json=[{"values": CUSTOMER}] * 2), 409)
        assert said.get(column, f"The column {column} of customers has no default value") in problem["detail"]
        assert "have the service insert the rows itself" in problem["detail"]
        assert sql("SELECT COUNT(*) FROM customers") == [(0,)]


def test_a_value_that_its_column_does_not_hold_is_refused_and_not_rounded(
    start: Start, churn: Declaration, sql: Sql, key: str
) -> None:
    made_anew(sql, f"id {key}, age BIGINT, plan VARCHAR(20), spent INT, active BOOLEAN, created_at {CREATED}")
    api = start(churn)
    refusal = refused(api.post("/pipelines/churn/data", json=[{"values": OTHER}, {"values": CUSTOMER}]), 409)
    assert "The column spent of customers was given 12.5, which is not a whole number" in refusal["detail"]
    assert sql("SELECT COUNT(*) FROM customers") == [(0,)]
    # A float that is a whole number, and more of one than the column holds.
    refused(api.post("/pipelines/churn/data", json={"values": {**CUSTOMER, "spent": 1e30}}), 409)
    (item,) = registered(api.post("/pipelines/churn/data", json={"values": {**CUSTOMER, "spent": 12.0}}))
    refused(api.patch(f"/pipelines/churn/data/{item}", json={"values": CUSTOMER}), 409)
    assert sql("SELECT spent FROM customers") == [(12,)]


@pytest.mark.parametrize("database_environment", ["server"], indirect=True)
def test_what_the_server_does_not_take_is_the_clients_to_change(
    start: Start, churn: Declaration, sql: Sql, key: str
) -> None:
    made_anew(
        sql, f"id {key}, age TINYINT UNSIGNED, plan VARCHAR(5) NOT NULL UNIQUE, spent DOUBLE, active BOOLEAN, "
        f"created_at {CREATED}, CONSTRAINT positive CHECK (spent > 0)"
    )  # fmt: skip
    api = start(churn)
    (item,) = registered(api.post("/pipelines/churn/data", json={"values": CUSTOMER}))
    for wrong, reason in (
        ({"plan": "platinum"}, "plan"),
        ({"plan": "b", "age": -1}, "age"),
        ({"plan": "gold"}, "Duplicate entry"),
        ({"plan": "c", "spent": -1}, "positive"),
    ):
        values = {**CUSTOMER, **wrong}
        assert reason in refused(api.post("/pipelines/churn/data", json={"values": values}), 409)["detail"]
        if "Duplicate" not in reason:
            assert reason in refused(api.patch(f"/pipelines/churn/data/{item}", json={"values": values}), 409)["detail"]
    assert sql("SELECT age, plan, spent FROM customers") == [(42, "gold", 12.5)]


# Correcting


def test_a_corrected_row_is_pending_again_for_all_that_score_it(
    start: Start, churn: Declaration, risk: Declaration, sql: Sql
) -> None:
    api = start(churn, risk)
    ids = registered(api.post("/pipelines/churn/data", json=[{"values": CUSTOMER}, {"values": CUSTOMER}]))
    sql("UPDATE customers SET churn_score = 0.5, risk = 'low', certainty = 0.9")
    item = api.patch(f"/pipelines/churn/data/{ids[0]}", json={"values": OTHER}).json()
    assert (item["id"], item["values"], item["prediction"]) == (ids[0], OTHER, None)
    assert stored(sql) == [
        (ids[0], 19, "basic", 80, 0, None, None),
        (ids[1], 42, "gold", 12.5, 1, 0.5, "low"),
    ]
    assert sql("SELECT certainty FROM customers ORDER BY id") == [(None,), (0.9,)]
    refused(api.patch("/pipelines/churn/data/999", json={"values": OTHER}), 404)


def test_a_corrected_object_is_pending_again(start: Start, visits: Declaration, sql: Sql) -> None:
    api = start(visits)
    (item,) = registered(api.post("/pipelines/visits/data", json={"values": CUSTOMER}))
    sql("UPDATE visits SET answer = '{}', kind = '\"low\"'")
    answer = api.patch(f"/pipelines/visits/data/{item}", json={"values": OTHER}).json()
    assert (answer["values"], answer["prediction"]) == (OTHER, None)
    ((seen, *rest),) = sql("SELECT seen, answer, kind FROM visits")
    assert (json.loads(seen), rest) == (OTHER, [None, None])


def test_nobody_writes_without_the_key(start: Start, churn: Declaration, sql: Sql) -> None:
    api = start(churn)
    (item,) = registered(api.post("/pipelines/churn/data", json={"values": CUSTOMER}))
    for given in ({"X-API-Key": "another"}, {"X-API-Key": ""}):
        refused(api.post("/pipelines/churn/data", json={"values": OTHER}, headers=given), 401)
        refused(api.patch(f"/pipelines/churn/data/{item}", json={"values": OTHER}, headers=given), 401)
    del api.headers["X-API-Key"]
    refused(api.post("/pipelines/churn/data", json={"values": OTHER}), 401)
    assert api.get(f"/pipelines/churn/data/{item}").json()["values"] == CUSTOMER
    assert [row[1] for row in stored(sql)] == [42]


# Showing


def test_two_pipelines_on_one_table_show_the_answers_of_each(
    start: Start, churn: Declaration, risk: Declaration, sql: Sql
) -> None:
    api = start(churn, risk)
    ids = registered(api.post("/pipelines/churn/data", json=[{"values": CUSTOMER}] * 3))
    sql("UPDATE customers SET churn_score = 0.5 WHERE id = %s", ids[0])
    sql("UPDATE customers SET risk = 'low', certainty = 0.25 WHERE id = %s", ids[1])
    sql("UPDATE customers SET created_at = %s", START)
    common = {"values": CUSTOMER, "created_datetime": "2026-11-02T05:00:00Z"}
    assert api.get(f"/pipelines/churn/data/{ids[0]}").json() == {"id": ids[0], **common, "prediction": 0.5}
    assert api.get(f"/pipelines/risk/data/{ids[0]}").json() == {"id": ids[0], **common, "prediction": None}
    assert api.get(f"/pipelines/risk/data/{ids[1]}").json() == {
        "id": ids[1],
        **common,
        "prediction": {"risk": "low", "certainty": 0.25},
    }
    for name, done in (("churn", ids[0]), ("risk", ids[1])):
        assert [item["id"] for item in api.get(f"/pipelines/{name}/data/predicted").json()] == [done]
        left = [item["id"] for item in api.get(f"/pipelines/{name}/data/unpredicted").json()]
        assert left == sorted(set(ids) - {done}, reverse=True)


def test_pages_show_every_row_once_the_newest_first(start: Start, churn: Declaration, sql: Sql) -> None:
    api = start(churn)
    ids = registered(api.post("/pipelines/churn/data", json=[{"values": CUSTOMER}] * 12))
    sql("UPDATE customers SET created_at = %s WHERE id <= %s", START, ids[5])
    found: list[int] = []
    page = api.get("/pipelines/churn/data/all", params={"limit": 5})
    while True:
        found += [item["id"] for item in page.json()]
        if "next" not in page.links:
            break
        assert "/pipelines/churn/data/all?" in page.links["next"]["url"]
        page = api.get(page.links["next"]["url"])
    assert found == ids[::-1]
    refused(api.get("/pipelines/churn/data/all", params={"limit": 0}), 422)


def test_whatever_the_service_has_written_is_shown(
    start: Start, churn: Declaration, visits: Declaration, sql: Sql, database_environment: dict[str, str]
) -> None:
    api = start(churn, visits)
    sql("INSERT INTO customers (age, plan) VALUES (NULL, NULL)")
    nothing = dict.fromkeys(FEATURES)
    shown = [nothing]
    if "MYSQL_SERVER" not in database_environment:
        sql("INSERT INTO customers (age, plan, spent, active) VALUES ('old', 7, 9e999, 'yes')")
        shown.insert(0, {"age": "old", "plan": "7", "spent": "Infinity", "active": "yes"})
    assert [item["values"] for item in api.get("/pipelines/churn/data/all").json()] == shown
    texts = ['"bad"', "{}", "null", '{"age": "x", "height": [1]}']
    for text in texts:
        sql("INSERT INTO visits (seen, answer, kind) VALUES (%s, %s, %s)", text, "[1]", '"low"')
    items = api.get("/pipelines/visits/data/all").json()
    assert [item["values"] for item in items] == [json.loads(text) for text in texts[::-1]]
    assert items[0]["prediction"] == {"answer": [1], "kind": "low"}


def test_hours_are_those_of_the_pipeline(start: Start, churn: Declaration, risk: Declaration, sql: Sql) -> None:
    api = start(churn, risk, OF_ENVIRONMENT)
    for name, items in (("churn", 4), ("items", 7)):
        sql(
            "INSERT INTO run_summary (pipeline, hour, items, predicted, failed, pending, label_counts, run_id,"
            " finished_at) VALUES (%s, %s, %s, 4, 0, 0, '{}', 'r', %s)",
            *(name, START, items, END),
        )
    for path, items in (("/pipelines/churn", 4), ("", 7)):
        assert [hour["items"] for hour in api.get(f"{path}/hours").json()] == [items]
        assert api.get(f"{path}/hours/{HOUR}").json()["items"] == items
    assert api.get("/pipelines/risk/hours").json() == []
    refused(api.get(f"/pipelines/risk/hours/{HOUR}"), 404)
    refused(api.get("/pipelines/churn/hours/yesterday"), 422)


def test_the_pipelines_are_listed_with_where_they_are(
    start: Start, churn: Declaration, risk: Declaration, visits: Declaration
) -> None:
    api = start(OF_ENVIRONMENT, churn, risk, visits)
    pipelines = api.get("/pipelines").json()
    assert pipelines[1] == {
        "name": "churn",
        "table": "customers",
        "task": "regression",
        "outputs": {"churn_score": "value"},
        "first_hour": "2026-11-01-00:00",
        "schedule_minute": 35,
        "retry": "partial",
        "data": "/pipelines/churn/data",
        "hours": "/pipelines/churn/hours",
        "metadata": "/pipelines/churn/metadata",
    }
    assert [(each["name"], each["task"], each["data"]) for each in pipelines] == [
        ("items", "classification", "/data"),
        ("churn", "regression", "/pipelines/churn/data"),
        ("risk", "classification", "/pipelines/risk/data"),
        ("visits", "classification", "/pipelines/visits/data"),
    ]
    for each in pipelines:
        for path in (f"{each['data']}/all", each["hours"], each["metadata"]):
            assert api.get(path).status_code == 200


def test_metadata_say_what_an_item_must_be(start: Start, churn: Declaration, visits: Declaration) -> None:
    api = start(churn, visits)
    metadata = api.get("/pipelines/visits/metadata").json()
    assert len(metadata.pop("model_version")) == 64
    types = {"age": "int64", "plan": "string", "spent": "float32", "active": "bool"}
    assert metadata == {
        "labels": ["high", "low", "middle"],
        "features": [
            {"name": name, "type": types[name], "nullable": name == "spent"} for name in FEATURES
        ],
    }  # fmt: skip
    assert api.get("/pipelines/churn/metadata").json()["labels"] == []


def test_the_openapi_document_says_what_each_feature_and_answer_is(
    start: Start, churn: Declaration, risk: Declaration, visits: Declaration
) -> None:
    document = start(churn, risk, visits).get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    values = schemas["visits_Values"]
    assert values["required"] == FEATURES
    assert values["additionalProperties"] is False
    kinds = {name: field.get("type") or [each["type"] for each in field["anyOf"]] for name, field in
             values["properties"].items()}  # fmt: skip
    assert kinds == {"age": "integer", "plan": "string", "spent": ["number", "null"], "active": "boolean"}
    predictions = {
        name: schemas[f"{name}_Item"]["properties"]["prediction"]["anyOf"] for name in ("churn", "risk", "visits")
    }
    assert predictions["churn"] == [{"type": "number"}, {"type": "null"}]
    assert predictions["risk"] == [{"$ref": "#/components/schemas/risk_Prediction"}, {"type": "null"}]
    columns = schemas["risk_Prediction"]["properties"]
    assert {name: field["anyOf"][0]["type"] for name, field in columns.items()} == {
        "risk": "string",
        "certainty": "number",
    }
    assert schemas["visits_Answer"]["properties"].keys() == {"label", "probabilities"}
    assert "Item" not in schemas
    assert [path for path in document["paths"] if not path.startswith("/pipelines")] == ["/health", "/metrics"]


def test_a_path_that_leads_nowhere_says_which_pipelines_there_are(
    start: Start, churn: Declaration, risk: Declaration
) -> None:
    api = start(churn)
    for path in ("/data", "/data/all", "/data/7", "/hours", "/metadata"):
        detail = refused(api.get(path), 404)["detail"]
        assert "the pipeline of the environment, which this project does not declare: GET /pipelines" in detail, path
    refused(api.post("/data", json={"values": [1, 2, 3, 4]}), 404)
    assert refused(api.get("/pipelines/risk/data/all"), 404)["detail"].startswith("There is no pipeline 'risk': GET ")
    assert len(refused(api.get(f"/pipelines/{'x' * 5000}/data"), 404)["detail"]) < 200
    assert refused(api.get("/nowhere"), 404)["detail"] == "Not Found"
    assert refused(api.get("/pipelines/churn/nowhere"), 404)["detail"] == "Not Found"
    assert refused(api.get("/pipelines/churn/data/999"), 404)["detail"] == "There is no item 999."
    assert api.delete("/pipelines/churn/data/7").headers["allow"] == "GET, PATCH"
    assert "/data" in refused(start(churn, OF_ENVIRONMENT).get("/pipelines/items/data/all"), 404)["detail"]


# Operating


def series(api: httpx.Client, name: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in api.get("/metrics").text.splitlines() if line.startswith(name)]
    return {labels.removeprefix(name): float(value) for labels, value in lines}


def test_the_series_of_the_environment_have_no_label_and_the_others_that_of_their_pipeline(
    start: Start, churn: Declaration, risk: Declaration, sql: Sql
) -> None:
    api = start(OF_ENVIRONMENT, churn, risk)
    insert_items(sql, ["[1, 2, 3, 4]"] * 5, START)
    sql("INSERT INTO customers (age, churn_score, created_at) VALUES (1, NULL, %s), (2, 3, %s)", START, START)
    sql(
        "INSERT INTO run_summary (pipeline, hour, items, predicted, failed, pending, label_counts, run_id,"
        " finished_at) VALUES ('churn', %s, 2, 1, 0, 1, '{}', 'r', %s)",
        *(START, END),
    )
    assert series(api, "batch_assets_items_pending") == {"": 5, '{pipeline="churn"}': 1, '{pipeline="risk"}': 2}
    assert series(api, "batch_assets_database_up") == {"": 1, '{pipeline="churn"}': 1, '{pipeline="risk"}': 1}
    assert list(series(api, "batch_assets_last_scored_hour_age_seconds")) == ['{pipeline="churn"}']
    api.get("/pipelines/churn/data/1")
    path = 'path="/pipelines/churn/data/{item_id}",status="200"'
    assert series(api, "batch_assets_api_request_seconds_count")[f'{{method="GET",{path}}}'] == 1
    assert api.get("/metrics").text.count("# TYPE batch_assets_items_pending ") == 1


@pytest.fixture
def elsewhere(models: Path) -> Declaration:
    """A pipeline whose database is the one of SHOP_SERVER."""
    return declared(
        models,
        name="elsewhere",
        connection="SHOP",
        table={"name": "customers", "created": "created_at", "features": FEATURES, "output": "churn_score"},
        model={"file": "churn.onnx", "task": "regression"},
    )


def shop_at(port: int) -> dict[str, str]:
    place = {"SHOP_SERVER": "127.0.0.1", "SHOP_PORT": str(port)}
    return place | {"SHOP_USER": "x", "SHOP_PASSWORD": "", "SHOP_DATABASE": "x"}


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_the_database_of_every_pipeline_counts_for_its_health(
    start: Start, churn: Declaration, elsewhere: Declaration
) -> None:
    port = free_port()
    assert start(churn).get("/health").json() == {"health": "ok"}
    with served({**os.environ, "API_KEY": KEY, **shop_at(port)}, (churn, OF_ENVIRONMENT, elsewhere)) as api:
        sick = api.get("/health")
        assert (sick.status_code, str(port) in sick.json()["health"]) == (503, True)
        assert api.get("/pipelines/churn/data/all").status_code == 200
        refused(api.get("/pipelines/elsewhere/data/all"), 503)
        assert series(api, "batch_assets_database_up")['{pipeline="elsewhere"}'] == 0
        assert series(api, "batch_assets_database_up")['{pipeline="churn"}'] == 1


@pytest.mark.slow
@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_a_database_that_is_silent_holds_up_no_pipeline_of_another(
    start: Start, churn: Declaration, elsewhere: Declaration
) -> None:
    start(churn)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(8) as clients:
        shop = {**shop_at(silent.getsockname()[1]), "API_CONNECTIONS": "2"}
        with served({**os.environ, "API_KEY": KEY, **shop}, (churn, elsewhere)) as api:
            waiting = [clients.submit(api.get, "/pipelines/elsewhere/data/all") for _ in range(6)]
            # The first of them has come as far as the database.
            assert select.select([silent], [], [], 10)[0]
            assert api.get("/pipelines/churn/data/all", timeout=5).status_code == 200
            assert api.get("/health", timeout=8).status_code == 503
            assert not all(answer.done() for answer in waiting)
