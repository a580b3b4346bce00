"""The sensor that tells of incidents, on real tables and a real instance of Dagster, and what a real receiver has."""

import datetime
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.definitions import defs
from batch_assets.errors import AlertError, SettingsError
from batch_assets.hours import HOUR_FORMAT
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.incidents import AlertTick, give_up, judge
from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.pipeline import GOOD, HOUR, START, insert_items, run_in
from batch_assets_tests.support.receiver import SECRETS, Receiver, receiver
from batch_assets_tests.support.rows import summed_up
from batch_assets_tests.support.sensor import MINUTE, Tick, run_of_hour

pytestmark = pytest.mark.above_sql

BAD = "[5.1, null, 1.4, 0.2]"
UI = "https://dagster.example.com/"
LINK = "https://dagster.example.com/assets/run_summary?view=partitions&partition=2026-11-02-05%3A00"
# Before the deadline of the first hour that the tests have.
NOW = datetime.datetime(2026, 11, 2, 6, 30)  # noqa: DTZ001 - UTC without a zone, as in the database
AT = "since 2026-11-02 06:30 UTC"


@pytest.fixture(autouse=True)
def heard(tables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver that the settings name."""
    with receiver() as found:
        monkeypatch.setenv("BATCH_ALERT_URLS", found.address)
        monkeypatch.setenv("BATCH_UI_URL", UI)
        monkeypatch.setenv("BATCH_FIRST_HOUR", HOUR)
        yield found


def ticks(instance: dg.DagsterInstance, now: datetime.datetime = NOW) -> None:
    """Three ticks, of which the last two have nothing new to say."""
    AlertTick(instance, now)
    for _ in range(2):
        assert str(AlertTick(instance, now).said).startswith("Nothing is new.")


def present_hour() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)


# Each kind, once when it is there and once when it is over


def test_an_hour_that_is_given_up_is_told_of_once_with_its_cause_and_a_link_and_once_when_it_is_over(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    give_up(sql, because="Too many failed items.\nFix them.")
    assert AlertTick(instance, NOW).said == "1 message sent: items: 1 hour failed."
    assert heard.messages == [("items: 1 hour failed", f"{HOUR}: given up: Too many failed items. Fix them.\n{LINK}")]
    ticks(instance)
    sql("DELETE FROM hour_requests")
    ticks(instance)
    assert heard.messages[1:] == [
        ("items: over: 1 hour failed", f"{HOUR}: over, {AT}: given up: Too many failed items. Fix them.\n{LINK}")
    ]
    assert sql("SELECT kind, subject, cause FROM incidents WHERE over_notified_at IS NOT NULL") == [
        ("hour failed", HOUR, "given up: Too many failed items. Fix them")
    ]


def test_an_hour_that_is_given_up_again_is_told_of_again(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    for _ in range(2):
        give_up(sql)
        ticks(instance)
        sql("DELETE FROM hour_requests")
        ticks(instance)
    assert heard.titles == ["items: 1 hour failed", "items: over: 1 hour failed"] * 2


def test_a_run_that_will_be_retried_is_nobodys_business(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    insert_items(sql, GOOD)
    run_of_hour(instance, dg.DagsterRunStatus.FAILURE)
    assert Tick(instance, 6 * MINUTE).hours == [HOUR]
    ticks(instance)
    assert heard.messages == []
    assert sql("SELECT COUNT(*) FROM incidents") == [(0,)]


def test_a_failed_run_is_told_of_where_nothing_is_retried_until_another_has_succeeded(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_RETRY", "leave")
    fault = {"batch_assets__fault": "permanent", "batch_assets__fault_message": "There is no model."}
    run = run_of_hour(instance, dg.DagsterRunStatus.FAILURE, assets=(), **fault)
    ticks(instance)
    cause = f"its run {run} failed, and BATCH_RETRY is leave: There is no model."
    assert heard.messages == [("items: 1 hour failed", f"{HOUR}: {cause}\n{LINK}")]
    run_of_hour(instance, dg.DagsterRunStatus.STARTED)
    ticks(instance)
    assert len(heard.messages) == 1  # whatever becomes of it
    run_of_hour(instance, dg.DagsterRunStatus.SUCCESS)
    [started] = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    instance.delete_run(started)
    ticks(instance)
    assert heard.titles == ["items: 1 hour failed", "items: over: 1 hour failed"]


def test_a_check_that_failed_is_told_of_until_the_hour_passes_it(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    _, odd, _ = insert_items(sql, GOOD)
    run_in(instance)
    ticks(instance)
    assert heard.messages == []
    sql("UPDATE items SET prediction = '[0.5, 0.2, 0.2]' WHERE id = %s", odd)
    run_in(instance)
    ticks(instance)
    [(title, body)] = heard.messages
    assert title == "items: 1 check of an hour failed"
    assert body.startswith(f"{HOUR} answers_are_finite: of 3 predictions 0 are not finite, and 1 have probabilities")
    assert body.endswith(LINK)
    run_in(instance, ops={"predictions": {"config": {"retry": "whole_batch"}}})
    ticks(instance)
    assert heard.titles[1:] == ["items: over: 1 check of an hour failed"]


def test_a_check_of_an_hour_says_nothing_while_the_hour_will_be_retried_or_is_given_up(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, [*GOOD, BAD])
    monkeypatch.setenv("BATCH_MAX_FAILED_SHARE", "0.1")
    run_in(instance)
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("run_summary"), "failed_share_is_within_limit"), limit=1
    )
    assert [record.status.value for record in history] == ["FAILED"]
    ticks(instance)
    assert heard.titles == []
    Tick(instance)  # gives it up
    ticks(instance)
    assert heard.titles == ["items: 1 hour failed"]
    assert "(BATCH_MAX_FAILED_SHARE)" in heard.messages[0][1] or "BATCH_MAX_FAILED_SHARE" in heard.messages[0][1]
    sql("DELETE FROM hour_requests")
    summed_up(sql, 3)  # with a request of the hour
    ticks(instance)
    assert heard.titles[1:] == ["items: over: 1 hour failed"]


def test_a_share_of_failed_items_that_the_limit_no_longer_allows_is_told_of(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, [*GOOD, BAD])
    run_in(instance)
    monkeypatch.setenv("BATCH_MAX_FAILED_SHARE", "0.1")
    summary = defs.resolve_implicit_global_asset_job_def()
    assert summary.execute_in_process(
        partition_key=HOUR, asset_selection=[dg.AssetKey("run_summary")], instance=instance
    ).success
    ticks(instance)
    assert [body.partition(":00 ")[2].partition(":")[0] for _, body in heard.messages] == [
        "failed_share_is_within_limit"
    ]


def test_drift_is_told_of_by_feature_until_the_newest_hour_that_was_judged_has_none(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    judge(sql, START, petal="alarm", sepal="holds")
    ticks(instance)
    assert heard.messages == [
        ("items: 1 alarm of drift", f"feature petal: unusual against the baseline, psi 0.5.\n{LINK}")
    ]
    judge(sql, "2026-11-02 06:00:00", petal="not_judged", sepal="not_judged")
    ticks(instance)
    assert len(heard.messages) == 1
    judge(sql, "2026-11-02 07:00:00", petal="alarm", sepal="alarm")
    ticks(instance)
    assert heard.messages[1][1].startswith("feature sepal: unusual")
    judge(sql, "2026-11-02 08:00:00", petal="holds", sepal="holds")
    ticks(instance)
    assert heard.titles[2:] == ["items: over: 2 alarms of drift"]


def test_a_canary_that_failed_is_told_of_until_the_next_one_succeeds(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    canary = defs.resolve_job_def("canary")
    ticks(instance)
    with monkeypatch.context() as without_model:
        without_model.setenv("MODEL_FILEPATH", str(tmp_path / "gone.onnx"))
        assert not canary.execute_in_process(instance=instance, raise_on_error=False).success
    ticks(instance)
    [(title, body)] = heard.messages
    assert title == "items: the canary failed"
    assert body.startswith("next hour: its run ")
    assert "gone.onnx" in body
    assert canary.execute_in_process(instance=instance).success
    ticks(instance)
    assert heard.titles[1:] == ["items: over: the canary failed"]


def test_a_new_model_without_a_baseline_is_told_of(instance: dg.DagsterInstance, sql: Sql, heard: Receiver) -> None:
    judge(sql, START, petal="holds")
    sql("UPDATE hour_profiles SET baseline_made_at = NULL")
    ticks(instance)
    assert heard.messages == []
    sql(
        "INSERT INTO baselines (pipeline, model_version, made_at, made_from, items, sketches)"
        " VALUES ('items', 'old', %s, '', 1, '{}')",
        START,
    )
    ticks(instance)
    assert heard.messages[0][1].startswith("baseline: the model v has none")


def test_a_deadline_that_was_missed_is_told_of_once_however_many_hours_are_late(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    for hours in range(1, 4):
        ticks(instance, NOW + datetime.timedelta(hours=hours))
    [(title, body)] = heard.messages
    assert title == "items: the newest hour was not scored in time"
    assert body.startswith(
        f"newest hour: the hour {HOUR} has no row in run_summary; expected: a row by 2026-11-02 07:00"
    )
    assert body.endswith(LINK)
    summed_up(sql, 3, "2026-11-02 07:00:00")
    ticks(instance, NOW + datetime.timedelta(hours=3))
    assert heard.titles[1:] == ["items: over: the newest hour was not scored in time"]


def test_that_an_hour_which_was_given_up_is_late_as_well_is_no_news(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    give_up(sql)
    ticks(instance, NOW + datetime.timedelta(hours=1))
    assert heard.titles == ["items: 1 hour failed"]


def test_many_incidents_of_a_kind_are_one_message(instance: dg.DagsterInstance, sql: Sql, heard: Receiver) -> None:
    for hour in range(6, 18):
        give_up(sql, f"2026-11-02 {hour:02}:00:00")
    ticks(instance)
    [(title, body)] = heard.messages
    assert title == "items: 12 hours failed"
    assert body.count("given up: its run was canceled.") == 10
    assert body.endswith("And 2 more: see the table incidents.")


def test_what_was_given_up_more_than_a_week_ago_is_past(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    give_up(sql)
    week = datetime.timedelta(days=7)
    sql("INSERT INTO run_summary (hour, items, predicted, failed, pending, label_counts, run_id, finished_at)"
        " VALUES ('2026-11-09 04:00:00', 0, 0, 0, 0, '{}', 'r', '2026-11-09 05:00:00')")  # fmt: skip
    ticks(instance, NOW + week - datetime.timedelta(minutes=30))
    assert heard.messages == []
    ticks(instance)
    assert heard.titles == ["items: 1 hour failed"]
    ticks(instance, NOW + week - datetime.timedelta(minutes=30))
    assert len(heard.messages) == 1  # one that was told is not over by getting old


# Receivers


def test_where_nothing_is_set_nothing_is_sent_and_no_table_is_read(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCH_ALERT_URLS")
    sql("DROP TABLE incidents")
    sql("DROP TABLE hour_requests")
    assert AlertTick(instance, NOW).said == "BATCH_ALERT_URLS is not set: nobody is notified of incidents."
    assert heard.messages == []


def test_a_receiver_that_was_down_gets_one_message_in_the_end(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    give_up(sql)
    heard.refuses = True
    for _ in range(3):
        with pytest.raises(AlertError, match=re.escape("1 (json://...) did not take a message")):
            AlertTick(instance, NOW)
    assert sql("SELECT COUNT(*), COUNT(notified_at) FROM incidents") == [(1, 0)]
    heard.refuses = False
    ticks(instance)
    assert heard.titles == ["items: 1 hour failed"]


def test_what_was_over_before_the_receiver_was_back_is_told_of_once(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    give_up(sql)
    heard.refuses = True
    with pytest.raises(AlertError):
        AlertTick(instance, NOW)
    sql("DELETE FROM hour_requests")
    heard.refuses = False
    ticks(instance)
    assert heard.titles == ["items: over: 1 hour failed"]


def test_the_other_receivers_get_nothing_twice_while_one_is_down(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as other:
        monkeypatch.setenv("BATCH_ALERT_URLS", f"{heard.address}, {other.address}")
        other.refuses = True
        give_up(sql)
        for _ in range(3):
            with pytest.raises(AlertError, match=re.escape("2 (json://...) did not take")):
                AlertTick(instance, NOW)
        other.refuses = False
        ticks(instance)
        assert heard.titles == other.titles == ["items: 1 hour failed"]
        other.refuses = True
        sql("DELETE FROM hour_requests")
        with pytest.raises(AlertError):
            AlertTick(instance, NOW)
        monkeypatch.setenv("BATCH_ALERT_URLS", heard.address)
        ticks(instance)
        assert heard.titles == ["items: 1 hour failed", "items: over: 1 hour failed"]
        assert sql("SELECT COUNT(*) FROM incidents WHERE over_notified_at IS NULL") == [(0,)]


def test_a_tick_that_is_killed_once_its_message_is_sent_sends_it_twice_at_the_most(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    give_up(sql)
    code = (
        "import datetime, dagster as dg\n"
        "from batch_assets_tests.support.incidents import AlertTick\n"
        "with dg.DagsterInstance.get() as instance:\n"
        f"    AlertTick(instance, datetime.datetime.fromisoformat('{NOW}'))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        heard.on_message = lambda: os.kill(process.pid, signal.SIGKILL)
        assert process.wait(timeout=120) == -signal.SIGKILL
    heard.on_message = lambda: None
    assert sql("SELECT COUNT(*), COUNT(notified_at) FROM incidents") == [(1, 0)]
    ticks(instance)
    assert heard.titles == ["items: 1 hour failed"] * 2


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("slack://Orecchiette4Penne", "1 (slack://...)"),
        ("nonsense://shop:Rigatoni3Farfalle@host", "1 (nonsense://...)"),
        ("Orecchiette4Penne", "1 (without a service at its beginning)"),
    ],
)
def test_an_address_that_cannot_be_used_is_named_without_what_is_secret_in_it(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, address: str, shown: str
) -> None:
    monkeypatch.setenv("BATCH_ALERT_URLS", address)
    with pytest.raises(SettingsError, match=re.escape(f"Apprise cannot use address {shown} of BATCH_ALERT_URLS")) as it:
        AlertTick(instance, NOW)
    assert not any(secret in str(it.value) for secret in SECRETS)


def test_without_apprise_a_sentence_says_what_to_install(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(SettingsError, match=r"BATCH_ALERT_URLS needs the package apprise, .* with the extra `alerts`"):
        AlertTick(instance, NOW)


def test_no_secret_of_an_address_is_logged_stored_or_in_an_error(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    give_up(sql)
    heard.refuses = True
    with pytest.raises(AlertError) as it:
        AlertTick(instance, NOW)
    heard.refuses = False
    AlertTick(instance, NOW)
    printed = capfd.readouterr()
    seen = [str(it.value), caplog.text, printed.out, printed.err, str(sql("SELECT * FROM incidents"))]
    assert [secret for secret in SECRETS if any(secret in text for text in seen)] == []


def test_the_addresses_may_stand_in_a_file(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCH_ALERT_URLS")
    (tmp_path / "addresses").write_text(f"{heard.address}\n")
    monkeypatch.setenv("BATCH_ALERT_URLS_FILE", str(tmp_path / "addresses"))
    give_up(sql)
    ticks(instance)
    assert heard.titles == ["items: 1 hour failed"]


def test_two_pipelines_name_themselves_and_link_to_their_own_assets(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver
) -> None:
    from batch_assets.component import pipeline_definitions
    from batch_assets.pipeline import Declaration

    project = dg.Definitions.merge(defs, pipeline_definitions(Declaration(name="churn")))
    give_up(sql)
    give_up(sql, pipeline="churn", because="There is no model.")
    for name in ("alerts", "churn_alerts") * 2:
        AlertTick(instance, NOW, project, name)
    assert [(title, body.splitlines()[1]) for title, body in heard.messages] == [
        ("items: 1 hour failed", LINK),
        ("churn: 1 hour failed", LINK.replace("/assets/", "/assets/churn/")),
    ]


# A night


def test_in_the_morning_the_receiver_has_each_fault_of_the_night_once(
    instance: dg.DagsterInstance, sql: Sql, heard: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven hours: one is well, one is so after a retry, and five have a fault each, one of which is over by itself."""
    starts = [present_hour() - datetime.timedelta(hours=back) for back in range(8, 1, -1)]
    keys = [start.strftime(HOUR_FORMAT) for start in starts]
    over_limit, retried, odd, drifting, well, late, canceled = range(7)
    monkeypatch.setenv("BATCH_FIRST_HOUR", keys[0])
    monkeypatch.setenv("BATCH_MAX_FAILED_SHARE", "0.1")
    items = [
        insert_items(sql, [*GOOD, BAD] if number == over_limit else GOOD, str(start + 30 * MINUTE))
        for number, start in enumerate(starts)
    ]

    def score(number: int, **config: Any) -> None:
        run_in(instance, keys[number], **config)
        Tick(instance)

    def fail(number: int, status: str) -> None:
        run_of_hour(instance, dg.DagsterRunStatus(status), dagster__partition=keys[number])
        Tick(instance)

    def look(number: int) -> None:
        """Every ten minutes of the hour after an hour, and of the one in which its deadline passes."""
        for minute in range(20, 80, 10):
            AlertTick(instance, starts[number] + datetime.timedelta(hours=1, minutes=minute))

    score(over_limit)
    look(over_limit)
    fail(retried, "FAILURE")
    AlertTick(instance, starts[retried] + 80 * MINUTE)
    score(retried)
    look(retried)
    score(odd)
    sql("UPDATE items SET prediction = '[0.5, 0.2, 0.2]' WHERE id = %s", items[odd][0])
    score(odd)
    look(odd)
    score(drifting)
    judge(sql, str(starts[drifting]), petal="alarm")
    look(drifting)
    score(well)
    judge(sql, str(starts[well]), petal="holds")
    look(well)
    look(late)
    score(late)
    AlertTick(instance, starts[late] + 150 * MINUTE)
    fail(canceled, "CANCELED")
    look(canceled)

    night = [(title, body.partition(": ")[0]) for title, body in heard.messages]
    assert night == [
        ("items: 1 hour failed", keys[over_limit]),
        ("items: 1 check of an hour failed", f"{keys[odd]} answers_are_finite"),
        ("items: 1 alarm of drift", "feature petal"),
        ("items: over: 1 alarm of drift", "feature petal"),
        ("items: the newest hour was not scored in time", "newest hour"),
        ("items: over: the newest hour was not scored in time", "newest hour"),
        ("items: 1 hour failed", keys[canceled]),
    ]

    morning = starts[canceled] + 150 * MINUTE
    sql("DELETE FROM items WHERE id = %s", items[over_limit][3])
    sql("DELETE FROM failed_items")
    whole_batch = {"predictions": {"config": {"retry": "whole_batch"}}}
    for number in (over_limit, odd, canceled):
        score(number, ops=whole_batch)
    for later in range(3):
        AlertTick(instance, morning + later * MINUTE)
    told = [line for _, body in heard.messages[7:] for line in body.splitlines() if not line.startswith("https")]
    assert [line.partition(": ")[0] for line in told] == [
        f"{keys[odd]} answers_are_finite",
        keys[over_limit],
        keys[canceled],
    ]
    assert all(": over, since " in line for line in told)
    assert sql("SELECT COUNT(*), COUNT(over_notified_at) FROM incidents") == [(5, 5)]
