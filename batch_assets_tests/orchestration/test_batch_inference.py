"""An hour from its items to its summary, through the real command, on real databases."""

import datetime
import hashlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from numpy.typing import NDArray

from batch_assets.orchestration.resources import Model
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.instance import metadata_of
from batch_assets_tests.support.onnx_models import write_classifier
from batch_assets_tests.support.pipeline import (
    END,
    GOOD,
    HALF_PAST,
    HOUR,
    LABELS,
    START,
    Counts,
    assert_hour_adds_up,
    assert_predicted,
    correct,
    ended,
    failed_of,
    insert_items,
    iris_probabilities,
    meddling,
    predictions_of,
    rows_of,
    run_command,
    run_job,
    started_command,
    summary_of,
)
from batch_assets_tests.support.rows import record_failure, summed_up

pytestmark = pytest.mark.usefixtures("tables")

VERSION = hashlib.sha256((root_folder() / "models" / "iris_svc.onnx").read_bytes()).hexdigest()
BAD = "[5.1, null, 1.4, 0.2]"


@pytest.fixture
def database(tables: dict[str, str], request: pytest.FixtureRequest) -> str:
    """Which database it is: sqlite, mariadb or mysql."""
    if "MYSQL_SERVER" not in tables:
        return "sqlite"
    return "mariadb" if request.getfixturevalue("server").is_mariadb else "mysql"


def assets_of(defs: dg.Definitions) -> list[dg.AssetsDefinition]:
    return [asset for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)]


def materialized(instance: dg.DagsterInstance, *names: str, model: Model | None = None) -> dg.ExecuteInProcessResult:
    """Materialises assets of the hour in this process, with the resources of the definitions."""
    from batch_assets.definitions import defs

    resources = {**(defs.resources or {}), **({"model": model} if model else {})}
    return dg.materialize(
        assets_of(defs),
        selection=list(names),
        partition_key=HOUR,
        instance=instance,
        resources=resources,
    )


def watch_updates(sql: Sql) -> Callable[[], set[int]]:
    """Lets the database itself keep a list of the items that anybody updates; gives it back."""
    sql("CREATE TABLE touched (id INTEGER)")
    sql("CREATE TRIGGER watch BEFORE UPDATE ON items FOR EACH ROW BEGIN INSERT INTO touched VALUES (NEW.id); END")
    return lambda: {key for (key,) in sql("SELECT id FROM touched")}


# The hour


@pytest.mark.slow
def test_the_command_scores_every_item_of_the_hour_and_no_other(sql: Sql) -> None:
    before = insert_items(sql, GOOD, "2026-11-02 04:59:59")
    moments = (START, HALF_PAST, "2026-11-02 05:59:59")
    inside = [insert_items(sql, [text], moment)[0] for text, moment in zip(GOOD, moments, strict=True)]
    after = insert_items(sql, GOOD, END)
    # What an hour would be if a local time had its say.
    elsewhere = insert_items(sql, GOOD, "2026-11-02 10:45:00") + insert_items(sql, GOOD, "2026-11-01 23:45:00")
    others = [row for row in rows_of(sql, "items")["items"] if row[0] not in inside]
    touched = watch_updates(sql)
    job = run_command(TZ="Asia/Kolkata")
    job.assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(3, 3, 0, 0)
    assert_predicted(sql, dict(zip(inside, iris_probabilities(GOOD), strict=True)))
    assert touched() == set(inside)
    assert [row for row in rows_of(sql, "items")["items"] if row[0] not in inside] == others
    assert len(others) == len(before + after + elsewhere)
    summary = summary_of(sql)
    started, finished = (datetime.datetime.fromisoformat(summary.pop(name)) for name in ("started_at", "finished_at"))
    assert summary == {
        "hour": START,
        "items": 3,
        "predicted": 3,
        "failed": 0,
        "pending": 0,
        "label_counts": {"setosa": 1, "versicolor": 1, "virginica": 1},
        "model_version": VERSION,
        "retry": "partial",
        "run_id": job.run_id,
        "scored": 3,
    }
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert now - datetime.timedelta(minutes=2) < started <= finished <= now
    (updated,) = sql("SELECT MIN(updated_datetime) FROM items WHERE prediction IS NOT NULL")[0]
    assert datetime.datetime.fromisoformat(str(updated)) >= started
    speeds = "rows_per_second, read_rows_per_second, check_rows_per_second, score_rows_per_second"
    assert all(speed is None or speed > 0 for speed in sql(f"SELECT {speeds} FROM run_summary")[0])


@pytest.mark.slow
def test_every_one_of_many_items_gets_what_scikit_learn_says_of_it(
    sql: Sql, many_items: tuple[list[str], NDArray[np.float64]]
) -> None:
    texts, expected = many_items
    ids = insert_items(sql, texts)
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(len(texts), len(texts), 0, 0)
    assert_predicted(sql, dict(zip(ids, expected, strict=True)))
    winners = np.bincount(expected.argmax(axis=1), minlength=3).tolist()
    assert summary_of(sql)["label_counts"] == dict(zip(LABELS, winners, strict=True))


def test_an_hour_without_items_is_a_success_with_a_summary_of_zeros(sql: Sql) -> None:
    insert_items(sql, GOOD, END)
    job = run_job()
    job.assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(0, 0, 0, 0)
    summary = summary_of(sql)
    assert [summary[name] for name in ("items", "predicted", "failed", "pending", "scored")] == [0, 0, 0, 0, None]
    assert summary["label_counts"] == dict.fromkeys(LABELS, 0)
    assert summary["run_id"] == job.run_id


def test_what_is_no_closed_hour_is_refused_with_a_sentence_and_nothing_is_written(sql: Sql) -> None:
    # In this very hour too, so that it would be scored.
    moment = datetime.datetime.now(datetime.UTC)
    insert_items(sql, GOOD)
    insert_items(sql, GOOD, f"{moment:%Y-%m-%d %H:%M:%S}")
    before = rows_of(sql)
    now, later = (f"{moment + datetime.timedelta(hours=hours):%Y-%m-%d-%H:00}" for hours in (0, 1))
    refusals = {
        "2026-11-02-05:30": ["'2026-11-02-05:30' is not an hour", "write an hour of UTC as"],
        "yesterday": ["'yesterday' is not an hour", "write an hour of UTC as"],
        "2026-10-31-23:00": ["2026-10-31-23:00 lies before the first one", "2026-11-01-00:00", "BATCH_FIRST_HOUR"],
        "2099-01-01-00:00": ["2099-01-01-00:00 lies in the future", "from 2099-01-01 01:00 UTC on"],
        later: ["lies in the future"],
        # At the turn of the hour this one may close meanwhile; it is not closed if it is not over.
        now: [f"The hour {now} is still open", "It can be scored from"],
        None: ["not for one hour", "choose a partition in the UI, or pass --tags"],
    }
    if moment.minute == 59:
        del refusals[now], refusals[later]
    for hour, parts in refusals.items():
        run_job(hour).assert_failed_with(*parts)
        assert rows_of(sql) == before, hour


@pytest.mark.parametrize("retry", ["partial", "whole_batch"])
def test_what_was_recorded_of_the_hour_by_another_pipeline_stays_as_it_is(sql: Sql, retry: str) -> None:
    keys = insert_items(sql, [*GOOD, "[1]"])
    for key in keys:
        record_failure(sql, key)
    summed_up(sql, 17)
    for table in ("failed_items", "run_summary", "hour_requests"):
        sql(f"UPDATE {table} SET pipeline = 'another'")
    theirs = {table: sql(f"SELECT * FROM {table} ORDER BY 2") for table in ("failed_items", "run_summary")}
    for _ in range(2):
        run_job(BATCH_RETRY=retry).assert_succeeded()
    for table, rows in theirs.items():
        assert sql(f"SELECT * FROM {table} WHERE pipeline = 'another' ORDER BY 2") == rows
    assert sql("SELECT item_id, attempts FROM failed_items WHERE pipeline = 'items'") == [(keys[-1], 2)]
    assert sql("SELECT items, predicted, failed, pending FROM run_summary WHERE pipeline = 'items'") == [(4, 3, 1, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("database_environment", ["sqlite"], indirect=True)
def test_the_command_says_why_it_refuses_an_hour_before_any_traceback(sql: Sql) -> None:
    for hour, part in {"yesterday": "'yesterday' is not an hour", "2099-01-01-00:00": "lies in the future"}.items():
        run_command(hour).assert_failed_with(part)
    assert sql("SELECT * FROM run_summary") == []


# Items that cannot be scored

EVERYWHERE = ("sqlite", "mariadb", "mysql")
# MySQL stores JSON parsed and refuses what a double cannot hold; MariaDB keeps the text, if it finds it to be JSON.
BAD_VALUES = [
    (EVERYWHERE, "null", "null_value", "the value is null"),
    (EVERYWHERE, "5", "not_a_list", "a number, not a list of 4 numbers: 5"),
    (EVERYWHERE, "true", "not_a_list", "a boolean, not a list of 4 numbers: true"),
    (EVERYWHERE, '"[1, 2, 3, 4]"', "not_a_list", 'a string, not a list of 4 numbers: "[1, 2, 3, 4]"'),
    (EVERYWHERE, '{"a": 1}', "not_a_list", 'an object, not a list of 4 numbers: {"a": 1}'),
    (EVERYWHERE, "[]", "wrong_length", "0 values, the model takes 4"),
    (EVERYWHERE, "[1, 2, 3]", "wrong_length", "3 values, the model takes 4"),
    (EVERYWHERE, "[1, 2, 3, 4, 5]", "wrong_length", "5 values, the model takes 4"),
    (EVERYWHERE, json.dumps([1] * 50_000), "wrong_length", "50,000 values, the model takes 4"),
    (EVERYWHERE, '[1, "2", 3, 4]', "not_numeric", 'value 2 is a string: "2"'),
    (EVERYWHERE, "[true, 2, 3, 4]", "not_numeric", "value 1 is a boolean"),
    (EVERYWHERE, "[1, 2, null, 4]", "null_value", "value 3 is null"),
    (EVERYWHERE, "[1, 2, 3, [4]]", "not_numeric", "value 4 is a list"),
    (EVERYWHERE, '[1, 2, 3, {"4": 4}]', "not_numeric", "value 4 is an object"),
    (EVERYWHERE, "[1, 2, 1e39, 4]", "too_large", "value 3 is too large for the model's type float32"),
    (EVERYWHERE, '["Blütenblatt 花 🌸", 2, 3, 4]', "not_numeric", 'value 1 is a string: "Blütenblatt 花 🌸"'),
    (EVERYWHERE, '[1, 2, 3, "100 % \' \\" `; --"]', "not_numeric", 'value 4 is a string: "100 % \' " `; --"'),
    (EVERYWHERE, f'"{"ü" * 300}"', "not_a_list", f'a string, not a list of 4 numbers: "{"ü" * 76}...'),
    (("sqlite",), '["\\ud800", 2, 3, 4]', "not_numeric", 'value 1 is a string: "\\ud800"'),
    (("sqlite", "mariadb"), "[1e999, 2, 3, 4]", "infinite", "value 1 is infinite"),
    (
        ("sqlite", "mariadb"),
        f"[1, {'9' * 5000}, 3, 4]",
        "too_large",
        "value 2 is too large for the model's type float32",
    ),
    (("sqlite",), "[NaN, 2, 3, 4]", "not_a_number", "value 1 is NaN"),
    (("sqlite",), "[1, -Infinity, 3, 4]", "infinite", "value 2 is infinite"),
    (("sqlite",), "[1, 2, 3, 4", "not_json", "not JSON: Expecting ',' delimiter at character 12: [1, 2, 3, 4"),
    (("sqlite",), "", "not_json", "not JSON: it is empty"),
    (("sqlite",), "[" * 100_000, "not_json", "nested too deeply to be read: " + "[" * 77 + "..."),
]


def test_every_kind_of_bad_value_fails_by_itself_and_its_neighbours_are_scored(sql: Sql, database: str) -> None:
    bad = [rest for where, *rest in BAD_VALUES if database in where]
    good, expected = {}, {}
    for number, (text, *reason) in enumerate(bad):
        (key,) = insert_items(sql, [GOOD[number % 3]])
        good[key] = GOOD[number % 3]
        (key,) = insert_items(sql, [text])
        expected[key] = (*reason, 1)
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    job = run_job()
    job.assert_succeeded()
    assert failed_of(sql) == expected
    assert_predicted(sql, dict(zip(good, iris_probabilities(list(good.values())), strict=True)))
    assert assert_hour_adds_up(sql) == Counts(2 * len(bad), len(bad), len(bad), 0)
    summary = summary_of(sql)
    assert [summary[name] for name in ("predicted", "failed", "pending")] == [len(bad), len(bad), 0]
    others = sql("SELECT DISTINCT hour, model_version, run_id, first_failed_at, last_failed_at FROM failed_items")
    for hour, model_version, run_id, first, last in others:
        assert (str(hour), model_version, run_id) == (START, VERSION, job.run_id)
        assert before <= datetime.datetime.fromisoformat(str(first))
        assert first == last


# Again


def test_a_second_run_costs_only_what_failed_and_a_third_scores_what_was_corrected(
    sql: Sql, instance: dg.DagsterInstance
) -> None:
    good, bad = insert_items(sql, GOOD), insert_items(sql, [BAD, "[1, 2]", '"x"'])
    first = run_job()
    first.assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(6, 3, 3, 0)
    after_first, summary = rows_of(sql, "items"), summary_of(sql)
    # Both runs may take place within one second.
    sql("UPDATE failed_items SET first_failed_at = %s, last_failed_at = %s", HALF_PAST, HALF_PAST)
    touched = watch_updates(sql)

    second = run_job()
    second.assert_succeeded()
    assert touched() == set()
    assert rows_of(sql, "items") == after_first
    assert {key: attempts for key, (_, _, attempts) in failed_of(sql).items()} == dict.fromkeys(bad, 2)
    assert sql("SELECT DISTINCT run_id FROM failed_items") == [(second.run_id,)]
    assert sql("SELECT COUNT(*) FROM failed_items WHERE first_failed_at < last_failed_at") == [(3,)]
    # The predictions are still those of the first run.
    assert summary_of(sql) == summary
    (event,) = instance.fetch_materializations(dg.AssetKey("predictions"), limit=1).records
    assert event.run_id == second.run_id
    assert metadata_of(event.asset_materialization)["rows"] == 0

    correct(sql, bad[0], GOOD[2])
    correct(sql, bad[1], GOOD[1])
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(6, 5, 1, 0)
    assert {key: attempts for key, (_, _, attempts) in failed_of(sql).items()} == {bad[2]: 3}
    probabilities = iris_probabilities([*GOOD, GOOD[2], GOOD[1]])
    assert_predicted(sql, dict(zip([*good, *bad[:2]], probabilities, strict=True)))
    still = {row[0]: row for row in rows_of(sql, "items")["items"]}
    assert [still[key] for key in good] == [row for row in after_first["items"] if row[0] in good]
    assert touched() == {*bad[:2]}


def test_items_that_come_late_are_scored_by_the_next_run(sql: Sql) -> None:
    early = insert_items(sql, GOOD[:2])
    run_job().assert_succeeded()
    late = insert_items(sql, [GOOD[2], BAD])
    assert assert_hour_adds_up(sql) == Counts(4, 2, 0, 2)
    touched = watch_updates(sql)
    job = run_job()
    job.assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(4, 3, 1, 0)
    assert touched() == {late[0]}
    assert_predicted(sql, dict(zip([*early, late[0]], iris_probabilities(GOOD), strict=True)))
    summary = summary_of(sql)
    assert [summary[name] for name in ("items", "predicted", "failed", "pending", "scored")] == [4, 3, 1, 0, 1]
    assert summary["label_counts"] == dict.fromkeys(LABELS, 1)
    assert summary["run_id"] == job.run_id


@pytest.mark.slow
def test_an_interrupted_run_leaves_right_predictions_and_the_next_run_does_the_rest(
    sql: Sql, many_items: tuple[list[str], NDArray[np.float64]]
) -> None:
    texts, expected = many_items
    bad_every = 1000
    ids = insert_items(sql, [BAD if n % bad_every == 0 else text for n, text in enumerate(texts)])
    by_id = {key: row for n, (key, row) in enumerate(zip(ids, expected, strict=True)) if n % bad_every}
    with started_command() as process:
        while process.poll() is None and not sql("SELECT COUNT(prediction) FROM items")[0][0]:
            time.sleep(0.01)
        process.kill()
        assert ended(process).status == -signal.SIGKILL
    counts = assert_hour_adds_up(sql)
    assert 0 < counts.predicted < len(by_id)
    assert counts.pending > 0
    found = predictions_of(sql)
    assert_predicted(sql, {key: by_id[key] for key, prediction in found.items() if prediction is not None})
    touched = watch_updates(sql)
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(len(texts), len(by_id), len(texts) - len(by_id), 0)
    assert_predicted(sql, by_id)
    # Those of the first run were not scored again.
    assert touched() == {key for key in by_id if found[key] is None}
    assert set(failed_of(sql)) == set(ids) - by_id.keys()


# What the service does meanwhile


def test_an_item_that_was_changed_or_deleted_meanwhile_does_not_get_the_stale_prediction(
    sql: Sql, instance: dg.DagsterInstance
) -> None:
    changed, deleted, scored, kept = insert_items(sql, [GOOD[0], GOOD[0], GOOD[0], GOOD[1]])

    def meddle() -> None:
        correct(sql, changed, GOOD[2])
        sql("DELETE FROM items WHERE id = %s", deleted)
        sql("UPDATE items SET created_datetime = %s WHERE id = %s", END, scored)

    assert materialized(instance, "predictions", "run_summary", model=meddling(meddle)).success
    assert assert_hour_adds_up(sql) == Counts(2, 1, 0, 1)
    assert_predicted(sql, {kept: iris_probabilities([GOOD[1]])[0]})
    assert sql("SELECT prediction FROM items WHERE id = %s", scored) == [(None,)]
    assert summary_of(sql)["pending"] == 1
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(2, 2, 0, 0)
    assert_predicted(sql, dict(zip([changed, kept], iris_probabilities([GOOD[2], GOOD[1]]), strict=True)))


def test_a_bad_item_that_was_corrected_or_deleted_meanwhile_is_not_recorded_as_failed(
    sql: Sql, instance: dg.DagsterInstance
) -> None:
    good, corrected, deleted, still_bad = insert_items(sql, [GOOD[0], BAD, BAD, BAD])

    def meddle() -> None:
        correct(sql, corrected, GOOD[1])
        sql("DELETE FROM items WHERE id = %s", deleted)

    for attempts in (1, 2):
        assert materialized(instance, "predictions", model=meddling(meddle if attempts == 1 else int)).success
        assert failed_of(sql) == {still_bad: ("null_value", "value 2 is null", attempts)}
        assert assert_hour_adds_up(sql) == Counts(3, attempts, 1, 2 - attempts)
    assert_predicted(sql, dict(zip([good, corrected], iris_probabilities(GOOD[:2]), strict=True)))


def test_a_failed_item_that_the_service_deletes_or_scores_itself_is_failed_no_more(sql: Sql) -> None:
    deleted, scored, _ = insert_items(sql, [BAD, BAD, GOOD[0]])
    run_job().assert_succeeded()
    sql("DELETE FROM items WHERE id = %s", deleted)
    sql("UPDATE items SET prediction = %s WHERE id = %s", "[1.0, 0.0, 0.0]", scored)
    run_job().assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(2, 2, 0, 0)
    assert [summary_of(sql)[name] for name in ("items", "predicted", "failed", "pending")] == [2, 2, 0, 0]


# Assets one at a time


def test_predictions_and_run_summary_can_be_materialised_by_themselves(sql: Sql, instance: dg.DagsterInstance) -> None:
    ids = insert_items(sql, [*GOOD, BAD])
    run = materialized(instance, "predictions")
    assert run.success
    assert assert_hour_adds_up(sql) == Counts(4, 3, 1, 0)
    assert_predicted(sql, dict(zip(ids, iris_probabilities(GOOD), strict=False)))
    assert sql("SELECT * FROM run_summary") == []
    assert materialized(instance, "run_summary").success
    summary = summary_of(sql)
    assert [summary[name] for name in ("items", "predicted", "failed", "pending", "scored")] == [4, 3, 1, 0, 3]
    assert summary["run_id"] == run.run_id
    assert materialized(instance, "raw_items").success
    assert summary_of(sql) == summary


def test_a_summary_after_a_run_that_scored_nothing_describes_the_run_that_scored(
    sql: Sql, instance: dg.DagsterInstance
) -> None:
    insert_items(sql, GOOD)
    scoring = run_job()
    assert materialized(instance, "predictions").success
    assert materialized(instance, "run_summary").success
    summary = summary_of(sql)
    assert (summary["run_id"], summary["scored"], summary["model_version"]) == (scoring.run_id, 3, VERSION)


def test_an_hour_in_which_every_item_fails_has_a_summary_of_the_run_that_tried(sql: Sql) -> None:
    insert_items(sql, [BAD, BAD])
    job = run_job()
    job.assert_succeeded()
    assert assert_hour_adds_up(sql) == Counts(2, 0, 2, 0)
    summary = summary_of(sql)
    assert (summary["run_id"], summary["scored"], summary["model_version"]) == (job.run_id, 0, VERSION)


def test_raw_items_takes_stock_of_the_hour(sql: Sql, instance: dg.DagsterInstance) -> None:
    ids = insert_items(sql, [*GOOD, "[1, 2]", '"x"'])
    assert materialized(instance, "predictions").success
    late = insert_items(sql, [GOOD[0]], "2026-11-02 05:59:59")
    (event,) = materialized(instance, "raw_items").asset_materializations_for_node("raw_items")
    found = metadata_of(event)
    counts = [found[name] for name in ("dagster/partition_row_count", "predicted", "failed", "pending")]
    assert counts == [6, 3, 2, 1]
    assert found["first item"] == f"{ids[0]}, created {HALF_PAST} UTC"
    assert found["last item"] == f"{late[0]}, created 2026-11-02 05:59:59 UTC"
    assert "| list of 4 | 4 | 66.7 % |" in found["shapes of a sample"]


def test_the_checks_are_red_while_items_are_left_and_green_afterwards(sql: Sql, instance: dg.DagsterInstance) -> None:
    from batch_assets.definitions import defs

    def checked() -> dict[str, tuple[bool, int]]:
        of_all_hours = [
            dg.AssetCheckKey(dg.AssetKey("run_summary"), name) for name in ("no_failed_items", "no_pending_items")
        ]
        selection = dg.AssetSelection.checks(*of_all_hours)
        assets = [*assets_of(defs), *(defs.asset_checks or ())]
        result = dg.materialize(assets, selection=selection, instance=instance, resources=defs.resources)
        return {
            check.check_name: (check.passed, metadata_of(check)[check.check_name.split("_")[1]])
            for check in result.get_asset_check_evaluations()
            if check.check_name in {"no_failed_items", "no_pending_items"}
        }

    _, bad, changing = insert_items(sql, [GOOD[0], BAD, GOOD[1]])
    insert_items(sql, ["[1, 2]"], END)
    changed = meddling(lambda: correct(sql, changing, GOOD[2]))
    assert materialized(instance, "predictions", "run_summary", model=changed).success
    # They speak of all hours, also of one that no run has seen, and do not fail the run of another.
    assert checked() == {"no_failed_items": (False, 1), "no_pending_items": (False, 2)}
    run_job("2026-11-02-06:00").assert_succeeded()
    assert checked() == {"no_failed_items": (False, 2), "no_pending_items": (False, 1)}
    correct(sql, bad)
    sql("DELETE FROM items WHERE created_datetime >= %s", END)
    run_job().assert_succeeded()
    assert checked() == {"no_failed_items": (True, 0), "no_pending_items": (True, 0)}


# Other models


@pytest.mark.parametrize(
    ("dtype", "zipmap", "label_output", "sample"),
    [
        ("float64", None, "last", True),
        ("int64", None, "absent", False),
        ("float32", "int64", "first", False),
        ("int64", "int64", "last", True),
        ("float64", "string", "absent", False),
    ],
)
def test_the_job_scores_with_models_of_every_form(
    sql: Sql, tmp_path: Path, *, dtype: str, zipmap: str | None, label_output: str, sample: bool
) -> None:
    files = write_classifier(
        tmp_path, labels=["zebra", "ape", "mole"], dtype=dtype, zipmap=zipmap, label_output=label_output
    )
    values = [[5, 1, 1, 0], [1, 5, 1, 0], [0, 1, 4, 9], [2, 2, 2, 2], [-3, 0, 7, 1]]
    ids = insert_items(sql, [json.dumps(row) for row in values])
    (bad,) = insert_items(sql, ["[1, 2, 3, null]"])
    run_job(
        MODEL_FILEPATH=str(files.model_filepath),
        LABEL_FILEPATH=str(files.label_filepath),
        SAMPLE_DATA_PATH=str(files.sample_data_path) if sample else None,
    ).assert_succeeded()
    scores = np.exp(np.array(values, dtype=float)[:, :3])
    assert_predicted(sql, dict(zip(ids, scores / scores.sum(axis=1, keepdims=True), strict=True)))
    assert failed_of(sql) == {bad: ("null_value", "value 4 is null", 1)}
    assert summary_of(sql)["label_counts"] == {"zebra": 2, "ape": 1, "mole": 2}
