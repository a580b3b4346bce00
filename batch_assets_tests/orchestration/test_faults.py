"""What goes wrong says what it is and what to do next, before any traceback, and loses nothing."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from numpy.typing import NDArray

from batch_assets.database.schema.setup import initialize_database
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.instance import INSTANCE_OF_TESTS
from batch_assets_tests.support.onnx_models import write_classifier, write_labels
from batch_assets_tests.support.pipeline import (
    GOOD,
    HOUR,
    Counts,
    assert_hour_adds_up,
    assert_predicted,
    ended,
    insert_items,
    predictions_of,
    rows_of,
    run_command,
    run_job,
    started_command,
)
from batch_assets_tests.support.servers import Server, free_port, private_server

IRIS = root_folder() / "models" / "iris_svc.onnx"


@pytest.fixture
def hour(tables: dict[str, str], sql: Sql) -> dict[str, str]:
    """The environment of a database with good items and a failed one in the hour, none of them scored."""
    ids = insert_items(sql, [*GOOD, "[1, 2]"])
    sql(
        "INSERT INTO failed_items (item_id, hour, code, message, attempts, first_failed_at, last_failed_at,"
        " model_version, run_id) VALUES (%s, %s, 'wrong_length', 'too short', 4, %s, %s, 'old', 'old')",
        ids[-1],
        "2026-11-02 05:00:00",
        "2026-11-02 06:19:00",
        "2026-11-02 06:20:00",
    )
    return tables


def assert_refused(sql: Sql, *parts: str, **environment: str | None) -> None:
    """The command fails with one line of all these parts, and writes nothing."""
    before = rows_of(sql)
    run_job(**environment).assert_failed_with(*parts)
    assert rows_of(sql) == before


def failure(**environment: str) -> dg.Failure:
    """What Dagster is told of the fault of a run in this process."""
    from batch_assets.definitions import defs

    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("BATCH_TRANSIENT_RETRIES", "0")
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(dg.Failure) as caught:
            defs.resolve_job_def("batch_inference").execute_in_process(partition_key=HOUR, instance=instance)
    return caught.value


# The tables


def test_a_table_that_is_missing_is_named(hour: dict[str, str], sql: Sql) -> None:
    sql("DROP TABLE failed_items")
    kept = rows_of(sql, "items", "run_summary")
    run_job().assert_failed_with("A table is missing in", "failed_items", "run `batch-assets init-db`")
    assert rows_of(sql, "items", "run_summary") == kept
    sql("DROP TABLE items")
    run_job().assert_failed_with("A table is missing in", "items", "run `batch-assets init-db`")
    assert rows_of(sql, "run_summary") == {"run_summary": []}
    assert failure().allow_retries is False


@pytest.mark.parametrize("column", ["values", "prediction", "created_datetime"])
def test_a_column_that_is_missing_is_named(hour: dict[str, str], sql: Sql, column: str) -> None:
    if "MYSQL_SERVER" not in hour:  # which drops no column that a trigger or an index mentions
        sql("DROP TRIGGER items_updated_datetime")
        sql("DROP INDEX ix_items_created_datetime")
        sql("DROP INDEX ix_items_prediction_pending")
    elif column == "prediction":
        sql("ALTER TABLE items DROP COLUMN prediction_pending")
    sql(f"ALTER TABLE items DROP COLUMN `{column}`")
    assert_refused(sql, "A column is missing in", column, "run `batch-assets init-db`, which adds it")


# The server


@pytest.fixture
def server_hour(
    server_environment: dict[str, str], sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Good items in the hour of a database on the server."""
    initialize_database(engine_from_environment(), ITEMS)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(INSTANCE_OF_TESTS)
    insert_items(sql, GOOD)
    return server_environment


def test_a_setting_that_is_missing_or_no_port_is_named(server_hour: dict[str, str], sql: Sql) -> None:
    assert_refused(sql, "MYSQL_USER is not set: set it too, or unset MYSQL_SERVER", MYSQL_USER=None)
    assert_refused(sql, "MYSQL_PORT is '33o6': set it to a port number", MYSQL_PORT="33o6")
    assert failure(MYSQL_PORT="0").allow_retries is False


def test_a_wrong_password_is_named(server_hour: dict[str, str], sql: Sql) -> None:
    where = f"{server_hour['MYSQL_SERVER']}:{server_hour['MYSQL_PORT']}"
    user = server_hour["MYSQL_USER"]
    sentence = (f"The MySQL server at {where} refuses user '{user}'", "fix MYSQL_USER or MYSQL_PASSWORD")
    before = rows_of(sql)
    job = run_command(MYSQL_PASSWORD="no such password")
    job.assert_failed_with(*sentence)
    assert "no such password" not in job.output
    assert rows_of(sql) == before
    assert failure(MYSQL_PASSWORD="no such password").allow_retries is False


def test_a_database_that_does_not_exist_is_named(server_hour: dict[str, str], sql: Sql) -> None:
    assert_refused(
        sql,
        "There is no database 'nowhere_at_all' on",
        "create it, or fix MYSQL_DATABASE",
        MYSQL_DATABASE="nowhere_at_all",
    )


def test_a_server_that_does_not_answer_is_named_and_may_be_tried_again(server_hour: dict[str, str], sql: Sql) -> None:
    port = str(free_port())
    where = f"No MySQL server answers at {server_hour['MYSQL_SERVER']}:{port}"
    assert_refused(sql, where, "start it, or fix MYSQL_SERVER and MYSQL_PORT", MYSQL_PORT=port)
    assert failure(MYSQL_PORT=port).allow_retries is True


@pytest.fixture
def reader(server: Server, server_hour: dict[str, str]) -> Iterator[dict[str, str]]:
    """An account that may do everything but update items."""
    database = server_hour["MYSQL_DATABASE"]
    user = f"r_{database[-12:]}"
    server.execute(f"CREATE USER {user}@'%' IDENTIFIED BY 'Reader-1'")
    try:
        server.execute(f"GRANT SELECT ON {database}.* TO {user}@'%'")
        for table in ("failed_items", "run_summary", "hour_locks"):
            server.execute(f"GRANT INSERT, UPDATE, DELETE ON {database}.{table} TO {user}@'%'")
        yield {"MYSQL_USER": user, "MYSQL_PASSWORD": "Reader-1"}
    finally:
        server.execute(f"DROP USER {user}@'%'")


def test_a_right_that_the_user_lacks_is_named(server_hour: dict[str, str], sql: Sql, reader: dict[str, str]) -> None:
    insert_items(sql, ["[1, 2]"])
    assert_refused(sql, f"User '{reader['MYSQL_USER']}' lacks a right in", "UPDATE", "items", "grant it", **reader)
    assert failure(**reader).allow_retries is False


@pytest.mark.server
@pytest.mark.slow
def test_a_server_that_crashes_while_an_hour_is_scored_costs_the_batch_in_flight_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many_items: tuple[list[str], NDArray[np.float64]]
) -> None:
    texts, probabilities = many_items
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(INSTANCE_OF_TESTS)
    with private_server() as private, private.server.database() as database:
        for name, value in private.server.environment(database).items():
            monkeypatch.setenv(name, value)

        def sql(statement: str, *parameters: object) -> list[tuple[object, ...]]:
            return private.server.execute(statement, *parameters, database=database)

        initialize_database(engine_from_environment(), ITEMS)
        ids = insert_items(sql, texts)
        # In another hour of UTC, in which it would be in the server's own zone.
        insert_items(sql, GOOD, "2026-11-02 10:45:00")
        with started_command() as process:
            while process.poll() is None and not sql("SELECT COUNT(prediction) FROM items")[0][0]:
                time.sleep(0.01)
            private.stop(kill=True)
            # The connection that is lost, or the one that cannot be had in its place.
            ended(process).assert_failed_with(f"127.0.0.1:{private.port}")
        private.start()
        counts = assert_hour_adds_up(sql)
        assert 0 < counts.predicted < len(texts)
        expected = dict(zip(ids, probabilities, strict=True))
        found = predictions_of(sql)
        assert_predicted(sql, {key: expected[key] for key in ids if found[key] is not None})
        run_job().assert_succeeded()
        assert assert_hour_adds_up(sql) == Counts(len(texts), len(texts), 0, 0)
        assert_predicted(sql, expected)
        assert sql("SELECT COUNT(*) FROM items WHERE prediction IS NULL") == [(3,)]


# The model


def test_a_model_file_that_cannot_be_used_is_named(hour: dict[str, str], sql: Sql, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    missing, truncated, text = folder / "nowhere.onnx", folder / "half.onnx", folder / "text.onnx"
    truncated.write_bytes(IRIS.read_bytes()[: IRIS.stat().st_size // 2])
    text.write_text("This is no model.\n")
    assert_refused(sql, "nowhere.onnx", "Point MODEL_FILEPATH at the file", MODEL_FILEPATH=str(missing))
    for path in (truncated, text):
        assert_refused(sql, path.name, "MODEL_FILEPATH", MODEL_FILEPATH=str(path))
    assert failure(MODEL_FILEPATH=str(text)).allow_retries is False


@pytest.mark.parametrize("sample", [True, False])
def test_a_model_of_another_width_is_refused(hour: dict[str, str], sql: Sql, tmp_path: Path, sample: bool) -> None:
    files = write_classifier(tmp_path, width=5)
    assert_refused(
        sql,
        "The model model.onnx takes 5 values an item, not 4 as in",
        "the sample in" if sample else "the items of the hour",
        "Use a model that was trained on such items (MODEL_FILEPATH), or fix the items",
        MODEL_FILEPATH=str(files.model_filepath),
        LABEL_FILEPATH=str(files.label_filepath),
        SAMPLE_DATA_PATH=str(root_folder() / "models" / "sample.json") if sample else None,
    )


def test_labels_or_a_sample_that_do_not_belong_to_the_model_are_named(
    hour: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    missing, two = tmp_path / "nowhere.json", write_labels(tmp_path / "two.json", ["setosa", "virginica"])
    assert_refused(sql, "labels file", "nowhere.json", "Point LABEL_FILEPATH at the file", LABEL_FILEPATH=str(missing))
    assert_refused(
        sql,
        "The model iris_svc.onnx has 3 classes, the labels name 2: setosa, virginica",
        "Point LABEL_FILEPATH at the labels that belong to this model",
        LABEL_FILEPATH=str(two),
    )
    assert_refused(sql, "sample file", "nowhere.json", "Point SAMPLE_DATA_PATH at", SAMPLE_DATA_PATH=str(missing))
