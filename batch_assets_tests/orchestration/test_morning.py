"""A night of twelve hours with six faults, and what a person sees of them in the morning, in how many clicks."""

import datetime
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import numpy as np
import onnx
import pytest
from sklearn.datasets import load_iris

from batch_assets.api import overview_page
from batch_assets.errors import DatabaseUnavailableError
from batch_assets.hours import HOUR_FORMAT
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.api import served
from batch_assets_tests.support.browser import Browser, browser
from batch_assets_tests.support.command_line import batch_assets, succeeded
from batch_assets_tests.support.database import DatabaseOfTest, Sql
from batch_assets_tests.support.incidents import AlertTick
from batch_assets_tests.support.instance import INSTANCE_OF_TESTS, running_instance
from batch_assets_tests.support.pipeline import insert_items, run_in
from batch_assets_tests.support.receiver import Receiver, receiver
from batch_assets_tests.support.registry import second_iris
from batch_assets_tests.support.sensor import Tick
from batch_assets_tests.support.servers import PrivateServer, private_server

EVENING = datetime.datetime(2026, 11, 10, 19)  # noqa: DTZ001 - UTC without a zone, as in the database
HOUR, MINUTE = datetime.timedelta(hours=1), datetime.timedelta(minutes=1)
DAYS, ITEMS = 2, 80
SETOSA = 0
FEED_STOPPED, SHIFTED, LABEL_GONE, GIVEN_UP, SERVER_DOWN, SERVER_STILL_DOWN, SWAPPED = 1, 3, 5, 7, 8, 9, 10
BAD = "[5.1, null, 1.4, 0.2]"

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.one_server, pytest.mark.daemon]


@pytest.fixture
def private() -> Iterator[PrivateServer]:
    """A server that can be ended."""
    with private_server() as started:
        yield started


@pytest.fixture
def database_environment(
    private: PrivateServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _database: DatabaseOfTest
) -> Iterator[dict[str, str]]:
    """The environment of a database on that server."""
    with private.server.database() as name:
        _database.server, _database.name = private.server, name
        environment = private.server.environment(name) | {"BATCH_ASSETS_HOME": str(tmp_path / "home")}
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        yield environment


@pytest.fixture
def heard(tables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver that the settings name."""
    with receiver() as found:
        monkeypatch.setenv("BATCH_ALERT_URLS", found.address)
        yield found


class Night:
    """The hours of the night, which are filled and scored one after the other.

    Args:
        instance: Where the runs are.
        sql: The database.
    """

    def __init__(self, instance: dg.DagsterInstance, sql: Sql) -> None:
        self._instance, self._sql = instance, sql
        self._random = np.random.default_rng(8)
        self._flowers = load_iris()

    def key(self, number: int) -> str:
        return (EVENING + number * HOUR).strftime(HOUR_FORMAT)

    def fill(self, number: int, *, shift: float = 0.0, without: int | None = None, bad: int = 0) -> None:
        """The service writes the items of an hour."""
        target = self._flowers.target
        rows = self._random.choice(np.flatnonzero(target != without), ITEMS)
        values = self._flowers.data[rows] + [0, shift, 0, 0]
        texts = [json.dumps(row) for row in np.round(values, 2).tolist()] + [BAD] * bad
        insert_items(self._sql, texts, str(EVENING + number * HOUR + 30 * MINUTE))

    def score(self, number: int, last: int | None = None, **config: Any) -> bool:
        """The schedule runs an hour; returns whether it succeeded."""
        run_id = run_in(self._instance, self.key(number), self.key(last) if last is not None else None, **config)
        run = self._instance.get_run_by_id(run_id)
        assert run
        return run.is_success

    def look(self, number: int) -> None:
        """The sensors, after an hour was scored and when the deadline of the one before has passed."""
        Tick(self._instance)
        for minute in (25, 65):
            AlertTick(self._instance, EVENING + (number + 1) * HOUR + minute * MINUTE)


def a_week_before(night: Night) -> None:
    """Hours without a fault, and the baseline that is made of them."""
    for number in range(-24 * DAYS, 0):
        night.fill(number)
    assert night.score(-24 * DAYS, -1)
    succeeded(batch_assets("baseline", "--hours", night.key(-24 * DAYS), night.key(-1)))


def test_in_the_morning_each_of_six_faults_is_seen_at_once_and_was_heard_once(  # noqa: PLR0917 - fixtures
    instance: dg.DagsterInstance,
    sql: Sql,
    heard: Receiver,
    private: PrivateServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night = Night(instance, sql)
    monkeypatch.setenv("BATCH_FIRST_HOUR", night.key(-24 * DAYS))
    monkeypatch.setenv("BATCH_MAX_FAILED_SHARE", "0.1")
    monkeypatch.setenv("BATCH_TRANSIENT_RETRIES", "0")
    monkeypatch.setenv("LABEL_FILEPATH", str(root_folder() / "models" / "label.json"))
    a_week_before(night)
    AlertTick(instance, EVENING + 5 * MINUTE)
    assert heard.messages == []

    for number in range(12):
        if number == SWAPPED:
            onnx.save(second_iris(tmp_path), tmp_path / "newer.onnx")
            monkeypatch.setenv("MODEL_FILEPATH", str(tmp_path / "newer.onnx"))
        if number != FEED_STOPPED:
            night.fill(
                number,
                shift=1.5 if number == SHIFTED else 0.0,
                without=SETOSA if number == LABEL_GONE else None,
                bad=ITEMS if number == GIVEN_UP else 0,
            )
        if number in (SERVER_DOWN, SERVER_STILL_DOWN):
            private.stop(kill=True)
            assert not night.score(number)
            with served(os.environ) as api:
                assert "No MySQL server answers" in api.get("/").text
            with pytest.raises(DatabaseUnavailableError):
                night.look(number)
            private.start()
            continue
        if number == SERVER_STILL_DOWN + 1:
            # The sensor, which requests what the schedule could not have scored.
            AlertTick(instance, EVENING + (number + 1) * HOUR + 5 * MINUTE)
            assert night.score(SERVER_DOWN)
            assert night.score(SERVER_STILL_DOWN)
        assert night.score(number) == (number != GIVEN_UP)
        night.look(number)
    assert_heard_once(heard, night)

    monkeypatch.setattr(overview_page, "utc_now", lambda: EVENING + 12 * HOUR + 30 * MINUTE)
    settings = tmp_path / "settings.yaml"
    settings.write_text(INSTANCE_OF_TESTS)
    quiet = {"BATCH_RETRY": "leave", "BATCH_ALERT_URLS": ""}
    with (
        running_instance(Path(os.environ["DAGSTER_HOME"]), settings, quiet) as running,
        served({**os.environ, "BATCH_UI_URL": running.url}) as api,
        browser(tmp_path) as chromium,
    ):
        page = str(api.base_url)
        assert_seen_without_a_click(chromium, page, night)
        for number in (FEED_STOPPED, SHIFTED, LABEL_GONE):
            assert_one_click_shows_the_hour(chromium, page, night.key(number))


def assert_heard_once(heard: Receiver, night: Night) -> None:
    """What the receiver has had: each fault once, and once that it is over."""
    drift, late, volume = "alarms of drift", "the newest hour was not scored in time", "an unusual number of items"
    kinds = [re.sub(r"items: |[0-9]+ ", "", title) for title in heard.titles]
    assert kinds == [
        *(volume, f"over: {volume}"),
        *(drift, f"over: {drift}"),
        *(drift, f"over: {drift}"),
        "hour failed",
        *(late, f"over: {late}"),
        "alarm of drift",
    ]
    bodies = [body for _, body in heard.messages]
    assert bodies[0].startswith("number of items: no items, where each hour of the day before had 80 or more")
    assert "feature value_1: unusual" in bodies[2]
    assert "label setosa: unusual 0.0% of the answers" in bodies[4]
    assert bodies[6].startswith(f"{night.key(GIVEN_UP)}: given up: 80 of 160 items")
    assert bodies[7].startswith(f"newest hour: the hour {night.key(SERVER_STILL_DOWN)} has no row in run_summary")
    assert bodies[9].startswith("baseline: the model ")


def assert_seen_without_a_click(chromium: Browser, page: str, night: Night) -> None:
    """What the page shows of the night. Of the server that was down nothing is left but two messages."""
    chromium.resize(1280)
    chromium.open(page)
    text = str(chromium.value("document.body.innerText"))
    assert text.startswith("1 of 1 pipeline needs a look: items\n")
    assert f"{night.key(GIVEN_UP)}\tgiven up, 80 failed\t80 of 160 items of the hour" in text
    unusual = dict(re.findall(r"^(\S+:00)\t([a-z_0-9, ]+)$", text.partition("\nUnusual\n")[2], re.MULTILINE))
    assert unusual.keys() == {night.key(number) for number in (FEED_STOPPED, SHIFTED, LABEL_GONE)}
    assert unusual[night.key(FEED_STOPPED)] == "number of items"
    assert "value_1" in unusual[night.key(SHIFTED)]
    assert "setosa" in unusual[night.key(LABEL_GONE)]
    assert re.search(r"[0-9]+ hours .* were scored last by another model than the one in force", text)


def assert_one_click_shows_the_hour(chromium: Browser, page: str, key: str) -> None:
    chromium.open(page)
    chromium.follow(f"th a[href$='{quote(key)}']")
    # Its metadata, of which the picture comes first.
    chromium.await_text("[Show Markdown]")
    assert chromium.value("new URLSearchParams(location.search).get('partition')") == key
