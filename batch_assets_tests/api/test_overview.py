"""The page at `/`: how all pipelines stand, as it comes over HTTP and as Chromium shows it."""

import contextlib
import datetime
import json
import os
import re
import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from batch_assets.api import overview_page
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.errors import SettingsError
from batch_assets.inference.model_version import version_in_force
from batch_assets.pipeline import OF_ENVIRONMENT, Declaration, ItemTable, pipeline_from_environment
from batch_assets.reporting.overview import HOURS_SHOWN, OPEN_HOURS_SHOWN, pipeline_overview
from batch_assets.settings.user_interface import ui_url
from batch_assets_tests.support.api import KEY, served
from batch_assets_tests.support.browser import Browser, browser
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.instance import ROOT, running_instance
from batch_assets_tests.support.pipeline import GOOD, insert_items
from batch_assets_tests.support.promotions import IRIS, promote, roll_back, sha_of, write_challenger
from batch_assets_tests.support.rows import failed
from batch_assets_tests.support.servers import free_port, private_server

pytestmark = pytest.mark.above_sql

# The hour 09:00 has closed and is not due, 08:00 is the newest one that is.
NOW = datetime.datetime.fromisoformat("2026-11-03 10:30")
NEWEST = datetime.datetime.fromisoformat("2026-11-03 09:00")
FIRST = NEWEST - datetime.timedelta(hours=HOURS_SHOWN - 1)
HOSTILE = "<script>alert('x')</script>\"><img src=//evil.example onerror=alert(1)>"

Start = Callable[..., httpx.Client]


@pytest.fixture
def start(empty_tables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts the application, for which it is always the same moment."""
    monkeypatch.setattr(overview_page, "utc_now", lambda: NOW)
    with contextlib.ExitStack() as stack:

        def started(*declarations: Declaration, **environment: str) -> httpx.Client:
            variables = {**os.environ, "API_KEY": KEY, **environment}
            return stack.enter_context(served(variables, declarations or (OF_ENVIRONMENT,)))

        yield started


class _Cells(HTMLParser):
    """The cells of the strips: their classes, their names, and where they lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if "cell" in (attributes.get("class") or "").split():
            self.found.append(attributes | {"tag": tag})


def page_of(api: httpx.Client) -> str:
    answer = api.get("/", headers={"X-API-Key": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return answer.text


def cells_of(page: str) -> dict[str, tuple[str, str]]:
    """The class and the rest of the name of each cell, by its hour."""
    parser = _Cells()
    parser.feed(page)
    found = {}
    for cell in parser.found:
        hour, _, text = str(cell["aria-label"]).partition(": ")
        assert cell["title"] == cell["aria-label"]
        found[hour] = (str(cell["class"]).removeprefix("cell "), text)
    return found


def headline_of(page: str) -> str:
    (title,) = re.findall("<title>(.*)</title>", page)
    assert f"<h1>{title}</h1>" in page
    return str(title)


def key_of(start: datetime.datetime) -> str:
    return f"{start:%Y-%m-%d-%H:00}"


def hour_at(hour: int) -> datetime.datetime:
    return NEWEST.replace(hour=hour)


def summed_up(sql: Sql, start: datetime.datetime, items: int = 1200, pipeline: str = "items") -> None:
    sql(
        "INSERT INTO run_summary (pipeline, hour, items, predicted, failed, pending, label_counts, run_id, finished_at)"
        " VALUES (%s, %s, %s, %s, 0, 0, '{}', 'r', %s)",
        *(pipeline, str(start), items, items, str(start)),
    )


def good_night(sql: Sql, pipeline: str = "items") -> None:
    """All hours that are due have a summary."""
    for number in range(HOURS_SHOWN - 1):
        summed_up(sql, FIRST + datetime.timedelta(hours=number), pipeline=pipeline)


def given_up(sql: Sql, start: datetime.datetime, because: str) -> None:
    sql(
        "INSERT INTO hour_requests (hour, requests, reason, left_over, requested_at, given_up_at, given_up_because)"
        " VALUES (%s, 3, 'failed run', '', %s, %s, %s)",
        *(str(start), str(start), str(start), because),
    )


def alarmed(sql: Sql, start: datetime.datetime, features: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """What stands in `hour_profiles` of an hour: the verdict on each feature and label."""
    judgements = {
        "features": [{"name": name, "verdict": verdict} for name, verdict in features.items()],
        "labels": [{"name": name, "verdict": verdict} for name, verdict in labels.items()],
    }
    count = [*features.values(), *labels.values()].count("alarm")
    sql(
        "INSERT INTO hour_profiles (pipeline, hour, model_version, sampled, alarms, judgements, measures, label_counts,"
        " sketches) VALUES ('items', %s, 'v', 60, %s, %s, '{}', '{}', '{}')",
        *(str(start), count, json.dumps(judgements)),
    )


def bad_night(sql: Sql) -> None:
    """An hour of each kind among good ones."""
    good_night(sql)
    sql("DELETE FROM run_summary WHERE hour IN (%s, %s)", str(hour_at(4)), str(hour_at(5)))
    given_up(sql, hour_at(4), "the model has 3 inputs, and the items have 4 values")
    insert_items(sql, GOOD[:1] * 2, str(hour_at(4)))
    insert_items(sql, GOOD[:1], str(hour_at(6)))
    failed(sql, str(hour_at(7)), str(hour_at(7)))
    verdicts = {"petal length": "alarm", "petal width": "holds", "sepal width": "alarm"}
    alarmed(sql, hour_at(8), verdicts, {"setosa": "alarm", "virginica": "not judged"})


def test_a_good_night_is_one_word(start: Start, sql: Sql) -> None:
    good_night(sql)
    page = page_of(start())
    assert headline_of(page) == "All is right: 1 pipeline"
    cells = cells_of(page)
    assert list(cells) == [key_of(FIRST + datetime.timedelta(hours=number)) for number in range(HOURS_SHOWN)]
    assert cells.pop("2026-11-03-09:00") == ("not_due", "not scored yet, and not due")
    assert set(cells.values()) == {("scored", "1,200 items")}
    assert ("<h3>" in page, "Newest hour due: the hour 2026-11-03-08:00 has a row in run_summary." in page) == (
        False,
        True,
    )


def test_each_hour_says_what_is_worst_of_it(start: Start, sql: Sql) -> None:
    bad_night(sql)
    page = page_of(start(BATCH_MAX_ATTEMPTS="3"))
    assert headline_of(page) == "1 of 1 pipeline needs a look: items"
    cells = cells_of(page)
    assert {hour: cells[f"2026-11-03-{hour:02}:00"] for hour in range(3, 10)} == {
        3: ("scored", "1,200 items"),
        4: ("given_up", "given up, 2 pending"),
        5: ("no_summary", "no summary"),
        6: ("pending", "1,200 items, 1 pending"),
        7: ("failed", "1,200 items, 1 failed"),
        8: ("scored", "1,200 items, unusual: petal length, sepal width, setosa"),
        9: ("not_due", "not scored yet, and not due"),
    }
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page)
    assert [(hour, re.findall("<td>(.*?)</td>", rest)) for hour, rest in rows] == [
        ("2026-11-03-07:00", ["1,200 items, 1 failed", "1 of its failed items is given up"]),
        ("2026-11-03-06:00", ["1,200 items, 1 pending", ""]),
        ("2026-11-03-05:00", ["no summary", "no run has scored it and summed it up"]),
        ("2026-11-03-04:00", ["given up, 2 pending", "the model has 3 inputs, and the items have 4 values"]),
        ("2026-11-03-08:00", ["petal length, sepal width, setosa"]),
    ]


def test_a_newest_hour_that_missed_its_deadline_is_named_with_it(start: Start, sql: Sql) -> None:
    good_night(sql)
    sql("DELETE FROM run_summary WHERE hour = %s", str(hour_at(8)))
    page = page_of(start())
    assert headline_of(page) == "1 of 1 pipeline needs a look: items"
    assert (
        "Newest hour due: the hour 2026-11-03-08:00 has no row in run_summary; expected: a row by 2026-11-03 10:00 "
        "UTC, 60 minutes after the end of the hour." in page
    )
    assert cells_of(page)["2026-11-03-08:00"] == ("no_summary", "no summary")


def test_a_deadline_of_days_looks_further_back_than_is_shown(start: Start, sql: Sql) -> None:
    good_night(sql)
    minutes = {"BATCH_DEADLINE_MINUTES": str(60 * HOURS_SHOWN)}
    assert headline_of(page_of(start(**minutes))) == "1 of 1 pipeline needs a look: items"
    summed_up(sql, FIRST - datetime.timedelta(hours=1))
    assert headline_of(page_of(start(**minutes))) == "All is right: 1 pipeline"


def test_hours_of_an_older_model_are_counted_and_nothing_is_wrong_with_them(start: Start, sql: Sql) -> None:
    good_night(sql)
    in_force = version_in_force(pipeline_from_environment().model)
    sql("UPDATE run_summary SET model_version = %s", in_force)
    api = start()
    assert "another model" not in page_of(api)
    sql("UPDATE run_summary SET model_version = 'older' WHERE hour < %s", str(hour_at(2)))
    page = page_of(api)
    assert headline_of(page) == "All is right: 1 pipeline"
    assert (
        "<p>40 hours (from 2026-11-01-10:00 to 2026-11-03-01:00) were scored last by another model than the one in "
        f"force, {in_force[:12]}. To see which: batch-assets status --older-model</p>"
    ) in page


def test_a_promoted_model_is_named_with_who_has_promoted_it(
    start: Start, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_night(sql)
    sql("UPDATE run_summary SET model_version = %s", version_in_force(pipeline_from_environment().model))
    challenger = write_challenger(tmp_path, monkeypatch)
    api = start()
    assert "The model in force" not in page_of(api)
    promote()
    ((made_by,),) = sql("SELECT made_by FROM promotions")
    page, version = page_of(api), sha_of(challenger)[:12]
    assert re.search(f"The model in force is .*challenger.onnx, {version}, promoted on .* UTC by {made_by}", page)
    assert f"were scored last by another model than the one in force, {version}" in page
    assert api.get("/metadata").json()["model_version"] == sha_of(challenger)
    roll_back()
    assert api.get("/metadata").json()["model_version"] == sha_of(IRIS)


def test_hours_before_the_first_one_are_nobodys_fault(start: Start, sql: Sql) -> None:
    for hour in range(6, 9):
        summed_up(sql, hour_at(hour))
    insert_items(sql, GOOD[:1], str(hour_at(5)))
    page = page_of(start(BATCH_FIRST_HOUR="2026-11-03-06:00"))
    assert headline_of(page) == "All is right: 1 pipeline"
    assert cells_of(page)["2026-11-03-05:00"] == ("before_first", "before the first hour")


def test_what_is_open_is_shown_however_old_it_is_and_bounded(start: Start, sql: Sql) -> None:
    good_night(sql)
    old = [NEWEST.replace(month=10, day=day) for day in range(1, OPEN_HOURS_SHOWN + 4)]
    for moment in old:
        insert_items(sql, GOOD[:1], str(moment))
    page = page_of(start(BATCH_FIRST_HOUR="2026-10-01-00:00"))
    assert re.findall(r'<th scope="row">(.*?)</th>', page) == [
        key_of(moment) for moment in reversed(old[-OPEN_HOURS_SHOWN:])
    ]
    assert "<p>3 earlier hours are open: see <code>batch-assets status</code>.</p>" in page


def test_nothing_of_the_database_is_taken_for_html(start: Start, sql: Sql) -> None:
    good_night(sql)
    given_up(sql, hour_at(4), HOSTILE)
    alarmed(sql, hour_at(5), {HOSTILE: "alarm"}, {f"label {HOSTILE}": "alarm"})
    page = page_of(start())
    assert ("<script" in page, "<img" in page, page.count("&lt;script&gt;") >= 3) == (False, False, True)
    # Cells and tables alike give back what was put in.
    assert cells_of(page)["2026-11-03-05:00"][1].startswith("1,200 items, unusual: <script>alert('x')</script>")


def test_it_loads_nothing_and_runs_nothing(start: Start) -> None:
    answer = start().get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert ("unsafe" in policy, "frame-ancestors 'none'" in policy) == (False, True)
    assert not re.findall(r"<(script|link|img|iframe|object|form)\b|\bstyle=|\bon\w+=|url\(|@import", answer.text)
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_it_is_for_people_and_not_in_the_openapi_document(start: Start) -> None:
    api = start()
    assert "/" not in api.get("/openapi.json").json()["paths"]
    assert api.post("/").headers["allow"] == "GET"


def test_hours_lead_to_dagster_where_its_address_is_set(start: Start, sql: Sql) -> None:
    given_up(sql, hour_at(4), "")
    page = page_of(start(BATCH_UI_URL="https://dagster.example.com/ui/"))
    parser = _Cells()
    parser.feed(page)
    assert {cell["tag"] for cell in parser.found} == {"a"}
    expected = "https://dagster.example.com/ui/assets/run_summary?view=partitions&partition=2026-11-03-09%3A00"
    assert parser.found[-1]["href"] == expected
    assert f'<h2 id="name-of-items"><a href="{expected.partition("?")[0]}">items</a>' in page
    bare = _Cells()
    bare.feed(page_of(start()))
    assert {cell["tag"] for cell in bare.found} == {"span"}


@pytest.mark.parametrize(
    "address", ["dagster", "javascript:alert(1)", "//host", "https://", "http://[::1", "http://host/?a=1", "ftp://host"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=r"^BATCH_UI_URL is '.*': set it to the address of Dagster's webserver"):
        ui_url({"BATCH_UI_URL": address})
    assert (ui_url({}), ui_url({"BATCH_UI_URL": ""})) == (None, None)


SECOND = Declaration("second", ItemTable(name="second_items"))
AWAY = Declaration("away", ItemTable(name="away_items"), connection="SHOP")
AWAY_TOO = Declaration("away_too", ItemTable(name="away_items"), connection="SHOP")


def add_second(sql: Sql) -> None:
    """The tables of the second pipeline, and a good night of it."""
    sql(
        "CREATE TABLE second_items (id INTEGER PRIMARY KEY, `values` JSON NOT NULL, prediction JSON,"
        " created_datetime TIMESTAMP NOT NULL, updated_datetime TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
    initialize_database(engine_from_environment(), ITEMS, item_table(SECOND.items))
    good_night(sql, "second")


def shop_at(port: int) -> dict[str, str]:
    place = {"SHOP_SERVER": "127.0.0.1", "SHOP_PORT": str(port)}
    return place | {"SHOP_USER": "x", "SHOP_PASSWORD": "", "SHOP_DATABASE": "x"}


def test_each_pipeline_has_its_own_hours(start: Start, sql: Sql) -> None:
    good_night(sql)
    add_second(sql)
    api = start(OF_ENVIRONMENT, SECOND, BATCH_UI_URL="http://dagster")
    assert headline_of(page_of(api)) == "All is right: 2 pipelines"
    sql("DELETE FROM run_summary WHERE pipeline = 'second' AND hour = %s", str(hour_at(3)))
    page = page_of(api)
    assert headline_of(page) == "1 of 2 pipelines needs a look: second"
    assert page.count('class="cell ') == 2 * HOURS_SHOWN
    assert 'href="http://dagster/assets/second/run_summary"' in page


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_pipelines_of_a_database_that_is_away_say_so_and_the_others_are_shown(start: Start, sql: Sql) -> None:
    good_night(sql)
    port = free_port()
    page = page_of(start(AWAY, OF_ENVIRONMENT, AWAY_TOO, **shop_at(port)))
    assert headline_of(page) == "2 of 3 pipelines need a look: away, away_too"
    assert len(re.findall(rf'<p class="fault">No MySQL server answers at 127.0.0.1:{port}', page)) == 2
    assert len(cells_of(page)) == HOURS_SHOWN


class _HangsUp(socketserver.BaseRequestHandler):
    """Ends each connection at once, and counts them."""

    count = 0

    def handle(self) -> None:
        type(self).count += 1


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_a_database_that_is_away_is_asked_once_for_all_of_its_pipelines(start: Start) -> None:
    def connections(*declarations: Declaration) -> int:
        with socketserver.TCPServer(("127.0.0.1", 0), _HangsUp) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            _HangsUp.count = 0
            page = page_of(start(*declarations, **shop_at(server.server_address[1])))
            server.shutdown()
            thread.join()
        assert page.count('<p class="fault">') == len(declarations)
        return _HangsUp.count

    assert connections(AWAY, AWAY_TOO) == connections(AWAY) > 0


@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_a_database_that_is_silent_holds_up_no_other_one(
    start: Start, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview_page, "ANSWER_SECONDS", 2)
    good_night(sql)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = start(AWAY, OF_ENVIRONMENT, AWAY_TOO, **shop_at(silent.getsockname()[1]))
        page = page_of(api)
        # It was asked once.
        silent.accept()[0].close()
        assert not select.select([silent], [], [], 0)[0]
    assert headline_of(page) == "2 of 3 pipelines need a look: away, away_too"
    assert page.count("The database has not answered within 2 seconds.") == 2
    assert len(cells_of(page)) == HOURS_SHOWN


def test_a_pipeline_whose_tables_are_missing_keeps_no_other_one_of_its_database(start: Start, sql: Sql) -> None:
    good_night(sql)
    page = page_of(start(SECOND, OF_ENVIRONMENT))
    assert headline_of(page) == "1 of 2 pipelines needs a look: second"
    assert len(re.findall('<p class="fault">[^<]*second_items', page)) == 1
    assert len(cells_of(page)) == HOURS_SHOWN


@pytest.mark.server
def test_a_database_that_is_back_is_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with private_server() as private, private.server.database() as name:
        environment = {**os.environ, **private.server.environment(name)}
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        initialize_database(engine_from_environment(), ITEMS)
        with served(environment) as api:
            assert len(cells_of(page_of(api))) == HOURS_SHOWN
            private.stop(kill=True)
            gone = page_of(api)
            assert ('<p class="fault">' in gone, str(private.server.port) in gone, cells_of(gone)) == (True, True, {})
            private.start()
            assert len(cells_of(page_of(api))) == HOURS_SHOWN


def test_it_costs_what_it_shows(tables: dict[str, str], sql: Sql) -> None:
    good_night(sql)
    for number in range(100):
        summed_up(sql, FIRST - datetime.timedelta(days=10, hours=number))
    insert_items(sql, GOOD * 1000, str(hour_at(3)))
    sql("UPDATE items SET prediction = '[1, 0, 0]'")
    insert_items(sql, GOOD[:1], str(hour_at(4)))
    pipeline = pipeline_from_environment()
    engine = engine_for(pipeline.database)
    # What a process asks once, of the server and of its tables, is no page's.
    pipeline_overview(engine, pipeline, NOW)
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with engine.connect() as connection:
        session = connection.connection.dbapi_connection
    assert session

    def rows_read() -> int:
        if "MYSQL_SERVER" not in tables:
            return 0
        with session.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(value) for _, value in cursor.fetchall())

    def cost_of_page() -> int:
        before = rows_read()
        assert pipeline_overview(engine, pipeline, NOW).open_count == 1
        return rows_read() - before

    cost_of_page()
    assert len([text for text in statements if text.lstrip().upper().startswith("SELECT")]) <= 9
    # Of 4,000 items and 148 summaries, of which all say how many items an hour has.
    # Until MySQL has purged what was pending, it may read the hour where it could read what is pending.
    end = time.monotonic() + 60
    while (cost := cost_of_page()) >= 350 and time.monotonic() < end:
        time.sleep(0.5)
    assert cost < 350


# In Chromium


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_chromium_shows_the_night_in_either_theme(start: Start, sql: Sql, chromium: Browser, tmp_path: Path) -> None:
    bad_night(sql)
    given_up(sql, hour_at(1), HOSTILE)
    add_second(sql)
    api = start(OF_ENVIRONMENT, SECOND, AWAY, BATCH_UI_URL="http://127.0.0.1:9", **shop_at(free_port()))
    url = str(api.base_url)
    grounds = []
    for scheme in ("light", "dark"):
        chromium.prefer(scheme)
        for width in (1280, 400):
            chromium.resize(width)
            chromium.open(url)
            chromium.picture(tmp_path / f"{scheme}-{width}.png")
            assert chromium.value("document.documentElement.scrollWidth <= innerWidth"), (scheme, width)
        grounds.append(chromium.value("getComputedStyle(document.body).backgroundColor"))
        # Its own style is what the policy lets in.
        assert chromium.value("getComputedStyle(document.querySelector('.strip')).display") == "grid"
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 31)"]
    assert chromium.value("document.title") == "2 of 3 pipelines need a look: items, away"
    assert chromium.value("document.querySelectorAll('#items .cell').length") == HOURS_SHOWN
    assert chromium.value("document.querySelectorAll('.cell').length") == 2 * HOURS_SHOWN
    assert chromium.value("document.scripts.length + document.images.length") == 0
    assert chromium.value("document.querySelector('.cell.given_up').title") == "2026-11-03-01:00: 1,200 items, given up"
    assert HOSTILE in str(chromium.value("document.body.innerText"))
    assert (chromium.requested, chromium.complaints) == ([f"{url}/"], [])


@pytest.mark.slow
@pytest.mark.daemon
@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_an_hour_leads_to_its_partition_in_dagster(
    start: Start, sql: Sql, chromium: Browser, tables: dict[str, str], tmp_path: Path
) -> None:
    bad_night(sql)
    settings = ROOT / "batch_assets" / "embedded_dagster.yaml"
    with running_instance(tmp_path / "instance", settings, {"BATCH_RETRY": "leave"}) as instance:
        chromium.resize(1280)
        chromium.open(str(start(BATCH_UI_URL=instance.url).base_url))
        chromium.follow(".cell.given_up")
        # The UI writes it when it has asked for the hour.
        chromium.await_text("2026-11-03-04:00")
        chromium.picture(tmp_path / "dagster.png")
        assert chromium.value("location.pathname") == "/assets/run_summary"
