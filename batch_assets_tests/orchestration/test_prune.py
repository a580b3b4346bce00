"""The command `batch-assets prune` in a process of its own: what it says, how it ends and what is there afterwards."""

import datetime
import os
import re
import subprocess
import time
from collections.abc import Sequence

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData
from dagster._core.test_utils import create_run_for_test

from batch_assets.database.records.hour_lock import HourLock
from batch_assets.database.records.pruning import LEAST_AGE
from batch_assets.hours import Hour, hour_of_key
from batch_assets.orchestration.names import asset_keys
from batch_assets.orchestration.partitions import hourly_partitions
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets.retrying.decision import FAILED_RUNS_AGE, LONGEST_PAUSE
from batch_assets_tests.support.command_line import COMMAND, SECONDS, batch_assets, misused, refused, succeeded
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.instance import run_storage_of
from batch_assets_tests.support.pipeline import (
    END,
    GOOD,
    HALF_PAST,
    HOUR,
    START,
    assert_hour_adds_up,
    insert_items,
    rows_of,
    run_in,
)
from batch_assets_tests.support.rows import failed, predicted, summed_up
from batch_assets_tests.support.sensor import Tick
from batch_assets_tests.support.servers import free_port

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.above_sql]

NEXT, THIRD = "2026-11-02-06:00", "2026-11-02-07:00"
KEYS = asset_keys(OF_ENVIRONMENT)
ALL = ("items", "failed_items", "run_summary", "hour_requests", "hour_locks")
NO_KEYS = "0 idempotency keys of the web API and 0 incidents forgotten."
STAY = "; 2 as old stay, each the last of an hour or an asset that is there."
ITEMS, RUNS = ("--items-older-than", "2d"), ("--runs-older-than", "2d")


def said(output: str) -> list[str]:
    """The lines of the command, without its times."""
    return re.sub(r"in [0-9.]+ seconds", "in time", output).splitlines()


def left(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence in which the command said what had to stay."""
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("Error: ").rstrip()


def age(instance: dg.DagsterInstance, runs: Sequence[str], days: int) -> None:
    """Has runs have ended days ago."""
    moment = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(days=days)
    with run_storage_of(instance).connect() as connection:
        for run_id in runs:
            connection.exec_driver_sql(
                f"UPDATE runs SET update_timestamp = '{moment:%Y-%m-%d %H:%M:%S}.000000' WHERE run_id = '{run_id}'"
            )
        connection.commit()


def materialized(event: dg.AssetMaterialization) -> dg.DagsterEvent:
    return dg.DagsterEvent(
        dg.DagsterEventType.ASSET_MATERIALIZATION.value, "other", event_specific_data=StepMaterializationData(event)
    )


def test_it_removes_old_hours_and_then_their_runs_and_says_so(shipped: dg.DagsterInstance, sql: Sql) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, GOOD[:1], END)
    recent = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(hours=30)
    insert_items(sql, GOOD, str(recent.replace(microsecond=0)))
    last_of_all = f"{recent:%Y-%m-%d-%H}:00"
    runs = [
        run_in(shipped),
        run_in(shipped, NEXT),
        run_in(shipped, last_of_all),
        run_in(shipped, last_of_all),
    ]
    age(shipped, runs, days=3)
    for moment in (HALF_PAST, str(recent.replace(microsecond=0))):
        sql("INSERT INTO registrations VALUES ('items', %s, 'f', '[1]', %s)", moment, moment)
    for number, over in enumerate((HALF_PAST, str(recent.replace(microsecond=0)), None)):
        sql(
            "INSERT INTO incidents VALUES ('items', %s, 'drift', '', %s, '', %s, %s, %s, %s, '')",
            *(number, HALF_PAST, HALF_PAST, HALF_PAST, over, over),
        )
    assert said(succeeded(batch_assets("prune", *ITEMS, *RUNS, "--dry-run"))) == [
        f"{HOUR}: 3 items would be removed",
        f"{NEXT}: 1 item would be removed",
        "2 hours, 4 items would be removed.",
        f"2 runs with events and logs would be removed{STAY}",
        "Nothing was removed: this was a dry run.",
    ]
    assert len(shipped.get_runs()) == 4
    assert sql("SELECT COUNT(*) FROM items") == [(7,)]
    assert said(succeeded(batch_assets("prune", *ITEMS, *RUNS))) == [
        f"{HOUR}: 3 items removed in time",
        f"{NEXT}: 1 item removed in time",
        "2 hours, 4 items removed in time.",
        "1 idempotency key of the web API and 1 incident forgotten.",
        f"2 runs with events and logs removed in time{STAY}",
    ]
    assert sql("SELECT COUNT(*), COUNT(prediction) FROM items") == [(3, 3)]
    assert sql("SELECT COUNT(*) FROM run_summary") == [(1,)]
    assert sql("SELECT COUNT(*) FROM registrations") == [(1,)]
    assert sql("SELECT number FROM incidents ORDER BY number") == [(1,), (2,)]
    assert {found.run_id for found in shipped.get_runs()} == set(runs[2:])
    assert shipped.get_materialized_partitions(KEYS.predictions) == {last_of_all}
    shown = shipped.get_status_by_partition(KEYS.predictions, [HOUR, NEXT], hourly_partitions(OF_ENVIRONMENT))
    assert shown == {HOUR: None, NEXT: None}
    assert Tick(shipped).requests == []
    again = said(succeeded(batch_assets("prune", *ITEMS, *RUNS)))
    assert again[0] == "0 hours, 0 items removed in time."


def test_a_dry_run_changes_nothing(shipped: dg.DagsterInstance, sql: Sql) -> None:
    predicted(sql)
    failed(sql)
    summed_up(sql, 4)
    insert_items(sql, GOOD, END)
    before = rows_of(sql, *ALL)
    sentence = left(batch_assets("prune", *ITEMS, "--dry-run"))
    assert sentence.startswith(f"Not pruned, since nobody has scored 3 items: 1 hour, {NEXT}. ")
    assert rows_of(sql, *ALL) == before


def test_it_ends_with_status_1_and_says_which_hours_had_to_stay_and_why(shipped: dg.DagsterInstance, sql: Sql) -> None:
    for start in (START, END, "2026-11-02 07:00:00", "2026-11-02 08:00:00", "2026-11-02 09:00:00"):
        predicted(sql, 2, start)
        summed_up(sql, 2, start)
    insert_items(sql, GOOD, END)
    for key, status in ((THIRD, dg.DagsterRunStatus.STARTED), ("2026-11-02-08:00", dg.DagsterRunStatus.FAILURE)):
        create_run_for_test(shipped, "batch_inference", status=status, tags={"dagster/partition": key})
    hour = hour_of_key(HOUR)
    assert isinstance(hour, Hour)
    with HourLock(engine_from_environment(), TABLES, hour, "a-run", wait=False, on_progress=print).acquire():
        done = batch_assets("prune", *ITEMS)
    assert said(done.stdout) == [
        "2026-11-02-09:00: 2 items removed in time",
        "1 hour, 2 items removed in time.",
        NO_KEYS,
    ]
    assert left(done) == (
        "Not pruned, since a run holds them, will yet write them or has failed within a day: 3 hours, "
        f"{HOUR}, {THIRD}, 2026-11-02-08:00. Prune again when it has ended. "
        f"Not pruned, since nobody has scored 3 items: 1 hour, {NEXT}. Materialise them, or have them requested with "
        "`batch-assets retry HOUR`, and prune again; or remove them as they are with --unscored-too."
    )
    assert sql("SELECT COUNT(*) FROM items") == [(11,)]
    done = batch_assets("prune", *ITEMS, "--unscored-too")
    assert said(done.stdout)[1] == f"{NEXT}: 5 items removed in time"
    assert f"2 hours, {THIRD}, 2026-11-02-08:00." in left(done)
    assert sql("SELECT COUNT(*) FROM items") == [(4,)]


def test_the_sensor_does_not_request_what_was_pruned_nor_take_it_for_missed(
    shipped: dg.DagsterInstance, sql: Sql
) -> None:
    predicted(sql)
    failed(sql)
    summed_up(sql, 4)
    insert_items(sql, GOOD, END)
    run_id = create_run_for_test(
        shipped, "batch_inference", status=dg.DagsterRunStatus.FAILURE, tags={"dagster/partition": HOUR}
    ).run_id
    age(shipped, [run_id], days=3)
    assert said(succeeded(batch_assets("prune", *ITEMS, "--unscored-too"))) == [
        f"{HOUR}: 4 items removed in time",
        f"{NEXT}: 3 items removed in time",
        "2 hours, 7 items removed in time.",
        NO_KEYS,
    ]
    tick = Tick(shipped)
    assert tick.requests == []
    assert tick.said == "Nothing is left in any closed hour."
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}


def test_it_keeps_to_the_pace_that_is_set_and_may_be_killed_at_any_point(shipped: dg.DagsterInstance, sql: Sql) -> None:
    predicted(sql, 5_000)
    summed_up(sql, 5_000)
    with subprocess.Popen(
        [COMMAND, "prune", *ITEMS], env={**os.environ, "BATCH_MAX_ROWS_PER_SECOND": "1000"}
    ) as process:
        while sql("SELECT COUNT(*) FROM items") == [(5_000,)]:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    counts = assert_hour_adds_up(sql)
    assert counts.predicted == counts.items == 3_000
    assert sql("SELECT COUNT(*) FROM run_summary") == [(1,)]
    deadline = time.monotonic() + 120
    while (done := batch_assets("prune", *ITEMS)).returncode:  # until the server has seen that the first is gone
        assert time.monotonic() < deadline, done.stderr
    assert said(done.stdout)[0] == f"{HOUR}: 3,000 items removed in time"
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}


@pytest.mark.slow
def test_two_at_once_remove_everything_and_neither_says_that_something_stays(
    shipped: dg.DagsterInstance, sql: Sql
) -> None:
    for number in range(6):
        start = f"2026-11-02 {number:02}:00:00"
        predicted(sql, 500, start)
        summed_up(sql, 500, start)
    ids = []
    for _ in range(20):
        ids.append(create_run_for_test(shipped, "other", status=dg.DagsterRunStatus.SUCCESS).run_id)
        for key in (HOUR, NEXT):
            event = dg.AssetMaterialization(KEYS.predictions, partition=key)
            shipped.report_dagster_event(materialized(event), ids[-1])
    age(shipped, ids, days=3)
    started = [
        subprocess.Popen(
            [COMMAND, "prune", *ITEMS, *RUNS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=SECONDS) for process in started]
    # Whoever is done first may find an hour in the hands of the other.
    assert min(process.returncode for process in started) == 0
    assert all(not stderr or "since a run holds them" in stderr for _, stderr in ended)
    # The last materialisation of an asset stays, whatever it is of.
    assert [found.run_id for found in shipped.get_runs()] == ids[-1:]
    assert [shipped.all_logs(run_id) for run_id in ids[:-1]] == [[]] * 19
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Nothing to remove: give --items-older-than, --runs-older-than or both."),
        (["--runs-older-than", "3d", "--unscored-too"], "--unscored-too is about items: give --items-older-than too."),
        (["--items-older-than", "90"], "'90' is not an age: write days as 90d, or hours as 72h."),
        (["--runs-older-than", "-3d"], "'-3d' is not an age: write days as 90d, or hours as 72h."),
        (["--runs-older-than", "999999d"], "'999999d' is not an age: write days as 90d, or hours as 72h."),
        (["--items-older-than", "47h"], "'47h' reaches into hours that the sensor may yet request, to score what is"),
        (["--runs-older-than", "0d"], "'0d' reaches into hours that the sensor may yet request, to score what is"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], sentence: str, sql: Sql) -> None:
    predicted(sql)
    assert sentence in re.sub(r"\s+", " ", misused(batch_assets("prune", *arguments)))
    assert sql("SELECT COUNT(*) FROM items") == [(3,)]


def test_nothing_is_old_before_the_sensor_is_done_with_it() -> None:
    assert max(FAILED_RUNS_AGE, LONGEST_PAUSE + datetime.timedelta(hours=1)) <= LEAST_AGE


def test_nothing_is_removed_while_it_is_not_known_which_hours_runs_are_for(sql: Sql, tables: dict[str, str]) -> None:
    predicted(sql)
    done = batch_assets("prune", *ITEMS, DAGSTER_HOME="/none")
    assert refused(done).startswith("DAGSTER_HOME is '/none', which is no folder")
    if "MYSQL_SERVER" in tables:
        assert refused(batch_assets("prune", *ITEMS, DAGSTER_HOME="")).startswith("DAGSTER_HOME is not set")
    assert sql("SELECT COUNT(*) FROM items WHERE created_datetime = %s", HALF_PAST) == [(3,)]


def test_a_server_that_does_not_answer_is_one_sentence(tables: dict[str, str]) -> None:
    if "MYSQL_SERVER" not in tables:
        pytest.skip("SQLite has no server")
    port = str(free_port())
    assert f":{port} (" in refused(batch_assets("prune", *ITEMS, MYSQL_PORT=port))
