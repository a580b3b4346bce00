"""A second model beside the one in force: what both answer is compared, nothing is published, and no hour waits."""

import datetime
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from dagster._core.test_utils import create_run_for_test, freeze_time
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, mean_absolute_error

from batch_assets.component import pipeline_definitions
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.definitions import defs
from batch_assets.errors import ModelError
from batch_assets.hours import hour_of_key
from batch_assets.inference.model_files import load_model
from batch_assets.iris.training import iris_items
from batch_assets.orchestration import challenger as module
from batch_assets.pipeline import OF_ENVIRONMENT, Declaration
from batch_assets.reporting.challengers import compare_hour
from batch_assets.scoring.challenger import answer_sample
from batch_assets.settings.folders import root_folder
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.command_line import batch_assets, succeeded, table_rows
from batch_assets_tests.support.customers import customers, fitted, write_customer_model, write_exported
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import engine_from_environment
from batch_assets_tests.support.interruptions import interrupted_after
from batch_assets_tests.support.onnx_models import write_classifier, write_picky_classifier
from batch_assets_tests.support.pipeline import (
    GOOD,
    HOUR,
    LABELS,
    START,
    insert_items,
    iris_probabilities,
    rows_of,
    run_in,
)
from batch_assets_tests.support.project import create_customers, declared, run_of
from batch_assets_tests.support.registry import Registry

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.dagster, pytest.mark.above_sql]

ASSET = dg.AssetKey("challenger_predictions")
ITEMS = [json.dumps(values) for values in iris_items(300, seed=11)]
NEXT, NEXT_HALF_PAST = "2026-11-02-06:00", "2026-11-02 06:30:00"
LATER, LATER_HALF_PAST = "2026-11-02-07:00", "2026-11-02 07:30:00"
NOW = datetime.datetime(2026, 11, 2, 9, 30, tzinfo=datetime.UTC)


@pytest.fixture(scope="session")
def second() -> Any:
    """Another classifier of the same flowers, which sees two of the four values: it errs more often."""
    iris = load_iris()
    values = iris.data * [1, 1, 0, 0]
    return LogisticRegression(max_iter=1000).fit(values, np.array(LABELS)[iris.target])


@pytest.fixture
def challenger(second: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of that classifier, named as the challenger of the environment."""
    return named(write_second(tmp_path / "second", second), monkeypatch)


def write_second(folder: Path, estimator: Any) -> Path:
    from skl2onnx.common.data_types import FloatTensorType

    folder.mkdir()
    write_exported(folder, estimator, [("values", FloatTensorType([None, 4]))], zipmap=False)
    return folder / "model.onnx"


def named(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHALLENGER_FILEPATH", str(file))
    return file


def compared(
    instance: dg.DagsterInstance, first: str = HOUR, last: str | None = None, of: Declaration = OF_ENVIRONMENT
) -> dg.ExecuteInProcessResult:
    """Runs the job of the challenger for an hour or a range, whatever becomes of it."""
    ends = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
    job = pipeline_definitions(of).resolve_job_def(of.prefixed("challenger"))
    return job.execute_in_process(instance=instance, tags=ends, raise_on_error=False)


def fault(result: dg.ExecuteInProcessResult) -> str:
    [event] = result.get_step_failure_events()
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return str(data.description)


def metadata(instance: dg.DagsterInstance, hour: str = HOUR, key: dg.AssetKey = ASSET) -> dict[str, Any]:
    """What the UI shows of an hour."""
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[hour])
    [record] = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def stored(sql: Sql, columns: str, hour: str = START) -> tuple[Any, ...]:
    [row] = sql(f"SELECT {columns} FROM challenger_hours WHERE hour = %s", hour)
    return row


def tick(
    instance: dg.DagsterInstance, now: datetime.datetime = NOW, sensor: str = "compare_challenger"
) -> tuple[Sequence[dg.RunRequest], str | None]:
    """What a tick of the sensor requests, and what it says where that is nothing."""
    repository = pipeline_definitions(OF_ENVIRONMENT).get_repository_def()
    with pytest.MonkeyPatch.context() as patch, freeze_time(now):
        patch.setattr(module, "utc_now", lambda: now.replace(tzinfo=None))
        with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
            data = repository.get_sensor_def(sensor).evaluate_tick(context)
    return data.run_requests or [], data.skip_message


def hours_of(request: dg.RunRequest) -> tuple[str, str]:
    tags = request.tags
    return tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]


def launched(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    """A run as the daemon makes it of a request."""
    create_run_for_test(instance, "challenger", status=status, tags=dict(request.tags))


def in_force(texts: Sequence[str]) -> list[str]:
    """The labels that scikit-learn itself gives by the model in force."""
    return [LABELS[place] for place in iris_probabilities(texts).argmax(axis=1)]


def labels_by(estimator: Any, texts: Sequence[str]) -> list[str]:
    return [str(label) for label in estimator.predict(np.array([json.loads(text) for text in texts]))]


def test_both_answers_are_counted_as_scikit_learn_gives_them(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, second: Any
) -> None:
    keys = insert_items(sql, ITEMS)
    run_in(instance)
    result = compared(instance)
    assert result.success
    one, other = in_force(ITEMS), labels_by(second, ITEMS)
    agreed = sum(map(str.__eq__, one, other))
    assert 0 < agreed < 300
    assert stored(sql, "sampled, failed, compared, agreed, challenger, known, accuracy") == (
        *(300, 0, 300, agreed, "model.onnx", 0),
        None,
    )
    both = Counter(label for label, same in zip(one, other, strict=True) if label == same)
    counts = {label: [one.count(label), other.count(label), both[label]] for label in LABELS}
    assert json.loads(stored(sql, "label_counts")[0]) == counts
    shares = np.array([[counted[0] / 300, counted[1] / 300] for counted in counts.values()])
    psi = ((shares[:, 1] - shares[:, 0]) * np.log(shares[:, 1] / shares[:, 0])).sum()
    assert stored(sql, "psi") == (pytest.approx(psi),)
    answers = sql("SELECT item_id, answer, code FROM challenger_predictions ORDER BY item_id")
    assert [row[0] for row in answers] == keys
    probabilities = [json.loads(row[1]) for row in answers]
    values = np.array([json.loads(text) for text in ITEMS])
    np.testing.assert_allclose(probabilities, second.predict_proba(values), atol=1e-5)

    shown = metadata(instance)
    assert shown["agreement"] == pytest.approx(agreed / 300, abs=1e-6)
    assert (shown["sampled"], shown["failed"], shown["compared"], shown["known"]) == (300, 0, 300, 0)
    setosa = counts["setosa"]
    line = f"| setosa | {setosa[0] / 3:.1f} % | {setosa[1] / 3:.1f} % | {100 * setosa[2] / setosa[0]:.1f} % |"
    assert line in shown["labels"]
    differing = [key for key, (a, b) in zip(keys, zip(one, other, strict=True), strict=True) if a != b]
    named = [int(row[0]) for row in table_rows(shown["items that differ"])[2:]]
    assert named == differing[:10]


def test_no_column_of_the_items_and_no_other_table_changes(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, [*ITEMS[:20], "[1, 2]"])
    run_in(instance)
    tables = ("items", "failed_items", "run_summary", "hour_locks", "hour_requests", "hour_profiles")
    before = rows_of(sql, *tables)
    assert compared(instance).success
    assert rows_of(sql, *tables) == before
    assert sql("SELECT COUNT(*) FROM challenger_predictions") == [(20,)]


def test_of_a_large_hour_a_sample_is_answered_the_same_one_every_time(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_CHALLENGER_ITEMS", "50")
    keys = insert_items(sql, ITEMS * 4)
    run_in(instance)
    samples = []
    for _ in range(2):
        assert compared(instance).success
        samples.append([key for (key,) in sql("SELECT item_id FROM challenger_predictions ORDER BY item_id")])
    assert samples[0] == samples[1]
    assert len(samples[0]) == 50
    # From all of the hour, not from its beginning or its end.
    assert keys[0] + 200 > samples[0][0]
    assert keys[-1] - 200 < samples[0][-1]
    assert stored(sql, "sampled, compared") == (50, 50)


def test_a_run_again_replaces_the_hour_and_leaves_its_neighbour(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, ITEMS[:20])
    other, *_ = insert_items(sql, ITEMS[20:25], NEXT_HALF_PAST)
    run_in(instance, HOUR, NEXT)
    assert compared(instance, HOUR, NEXT).success
    sql("DELETE FROM items WHERE id > 15 AND id < %s", other)
    before = sql("SELECT * FROM challenger_predictions WHERE item_id >= %s ORDER BY item_id", other)
    assert compared(instance).success
    assert sql("SELECT COUNT(*) FROM challenger_predictions WHERE hour = %s", START) == [(15,)]
    assert sql("SELECT * FROM challenger_predictions WHERE item_id >= %s ORDER BY item_id", other) == before
    assert sql("SELECT sampled FROM challenger_hours ORDER BY hour") == [(15,), (5,)]


def test_what_came_true_is_counted_for_both_on_the_same_items_also_when_it_comes_later(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, second: Any, tmp_path: Path
) -> None:
    texts = [*ITEMS[:100], "[1, 2]"]
    keys = insert_items(sql, texts)
    run_in(instance)
    one, other = in_force(ITEMS[:100]), labels_by(second, ITEMS[:100])
    true = [label if number % 3 else "setosa" for number, label in enumerate(other)]

    def know(count: int) -> None:
        pairs = zip(keys[:count], true[:count], strict=True)
        (tmp_path / "known.csv").write_text("item_id,label\n" + "".join(f"{key},{label}\n" for key, label in pairs))
        succeeded(batch_assets("actuals", str(tmp_path / "known.csv")))

    def found() -> tuple[Any, ...]:
        return stored(sql, "known, accuracy, challenger_accuracy, brier_score, challenger_brier_score")

    def expected(count: int) -> tuple[Any, ...]:
        values = np.array([json.loads(text) for text in ITEMS[:count]])
        chosen = np.array([[label == each for each in LABELS] for label in true[:count]], float)
        briers = [
            ((probabilities - chosen) ** 2).sum(axis=1).mean()
            for probabilities in (iris_probabilities(ITEMS[:count]), second.predict_proba(values))
        ]
        accuracies = [accuracy_score(true[:count], said[:count]) for said in (one, other)]
        return (count, *(pytest.approx(each, abs=1e-4) for each in (*accuracies, *briers)))

    know(40)
    assert compared(instance).success
    assert found() == expected(40)
    before = sql("SELECT * FROM challenger_predictions ORDER BY item_id")
    # Without the file: nothing is scored again.
    challenger.unlink()
    know(90)
    tick(instance, datetime.datetime.now(datetime.UTC), "measure_quality")
    assert found() == expected(90)
    assert stored(sql, "sampled, compared") == (100, 100)
    assert sql("SELECT * FROM challenger_predictions ORDER BY item_id") == before
    assert sql("SELECT known FROM hour_quality") == [(90,)]


def test_an_hour_that_another_model_has_scored_since_is_not_measured_by_old_answers(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, tmp_path: Path
) -> None:
    first, *_ = insert_items(sql, ITEMS[:20])
    run_in(instance)
    assert compared(instance).success
    sql("UPDATE run_summary SET model_version = 'another'")
    (tmp_path / "known.csv").write_text(f"item_id,label\n{first},setosa\n")
    succeeded(batch_assets("actuals", str(tmp_path / "known.csv")))
    tick(instance, datetime.datetime.now(datetime.UTC), "measure_quality")
    assert stored(sql, "known") == (0,)


def test_a_challenger_that_does_not_fit_is_a_failed_run_that_says_why(
    instance: dg.DagsterInstance, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    run_in(instance)
    before = rows_of(sql, "items", "run_summary", "hour_requests")
    wide = write_classifier(tmp_path, width=7, labels=list(LABELS), sample=False)
    named(wide.model_filepath, monkeypatch)
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(wide.label_filepath))
    said = fault(compared(instance))
    assert "The challenger cannot be used. The model model.onnx takes 7 values an item, not 4" in said
    assert "(CHALLENGER_FILEPATH)" in said
    assert rows_of(sql, "items", "run_summary", "hour_requests") == before
    assert sql("SELECT COUNT(*) FROM challenger_hours") == [(0,)]


def test_a_challenger_whose_labels_are_all_other_ones_does_not_fit(
    instance: dg.DagsterInstance, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    run_in(instance)
    other = write_classifier(tmp_path, sample=False)
    named(other.model_filepath, monkeypatch)
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(other.label_filepath))
    said = fault(compared(instance))
    assert "answers class_0, class_1, class_2, the model in force setosa, versicolor, virginica" in said
    assert "CHALLENGER_LABEL_FILEPATH" in said
    assert sql("SELECT COUNT(*) FROM challenger_predictions") == [(0,)]


def test_a_challenger_whose_file_is_gone_is_named_and_the_hour_is_scored_all_the_same(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    challenger.unlink()
    insert_items(sql, GOOD)
    run = run_in(instance)
    finished = instance.get_run_by_id(run)
    assert finished
    assert finished.status == dg.DagsterRunStatus.SUCCESS
    said = fault(compared(instance))
    assert "Cannot read the model file" in said
    assert "CHALLENGER_FILEPATH" in said


def test_items_that_the_challenger_cannot_answer_are_counted_by_their_code(
    instance: dg.DagsterInstance, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["[0, 1, 1, 1]", "[1, 1, 1, 1]", "[5, 1, 1, 1]", "[2, 1, 1, 1]"]
    keys = insert_items(sql, texts)
    run_in(instance)
    picky = write_picky_classifier(tmp_path)
    (tmp_path / "label.json").write_text(json.dumps({str(place): label for place, label in enumerate(LABELS)}))
    named(picky.model_filepath, monkeypatch)
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(picky.label_filepath))
    result = compared(instance)
    assert result.success
    one = in_force([text for text in texts if text[1] != "5"])
    agreed = sum(map(str.__eq__, one, LABELS))
    assert stored(sql, "sampled, failed, compared, agreed") == (4, 1, 3, agreed)
    failed = sql("SELECT item_id, answer, code FROM challenger_predictions WHERE code IS NOT NULL")
    assert failed == [(keys[2], None, "model_error")]
    assert metadata(instance)["failed_by_code"] == {"model_error": 1}
    assert sql("SELECT COUNT(*) FROM failed_items") == [(0,)]


def test_a_run_that_is_killed_leaves_the_comparison_before_it_or_the_new_one(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, ITEMS[:20])
    run_in(instance)
    assert compared(instance).success

    def all_rows() -> tuple[Any, ...]:
        answers = sql("SELECT item_id, answer FROM challenger_predictions ORDER BY item_id")
        return stored(sql, "sampled, compared, agreed"), answers

    before = all_rows()
    sql("DELETE FROM items WHERE id > 10")

    def again() -> None:
        pipeline, hour, now = OF_ENVIRONMENT.load(), hour_of_key(HOUR), NOW.replace(tzinfo=None)
        assert pipeline.challenger
        assert hour
        model = load_model(pipeline.challenger.model, pipeline.items)
        sample = answer_sample(pipeline, hour, 20, 1000, model)
        compare_hour(pipeline, hour, "in force", LABELS, model, sample.items, sample.answers, now)

    # Of both tables what was there is removed, and what is new is written.
    for statements in (1, 2, 3, 4):
        assert interrupted_after(engine_from_environment(), statements, again) == statements
        assert all_rows() == before
    again()
    assert len(all_rows()[1]) == 10


def test_an_hour_that_the_challenger_itself_has_scored_is_left_out_and_says_so(
    instance: dg.DagsterInstance, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OF_ENVIRONMENT.load().model
    assert isinstance(model, ModelFiles)
    named(model.model_filepath, monkeypatch)
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(model.label_filepath))
    insert_items(sql, GOOD)
    run_in(instance)
    assert compared(instance).success
    shown = metadata(instance)
    assert shown["sampled"] == 0
    assert "was scored by the challenger iris_svc.onnx itself" in shown["nothing to compare"]
    assert sql("SELECT COUNT(*) FROM challenger_hours") == [(0,)]
    requests, said = tick(instance)
    assert (requests, said) == (
        [],
        "No hour was scored, or the last one by the challenger itself: nothing to compare.",
    )


def test_of_a_range_the_hours_that_can_be_compared_are(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, ITEMS[:20])
    insert_items(sql, ITEMS[20:30], LATER_HALF_PAST)
    run_in(instance, HOUR)
    run_in(instance, LATER)
    result = compared(instance, HOUR, LATER)
    assert result.success
    assert metadata(instance, NEXT) == {
        "sampled": 0,
        "nothing to compare": f"The hour {NEXT} has no predictions: nothing to compare.",
    }
    assert sql("SELECT sampled FROM challenger_hours ORDER BY hour") == [(20,), (10,)]


# The sensor


def test_the_sensor_requests_each_hour_once_the_newest_first_in_a_row(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    for created, hour in (
        ("2026-11-02 04:30:00", "2026-11-02-04:00"),
        (NEXT_HALF_PAST, NEXT),
        (LATER_HALF_PAST, LATER),
    ):
        insert_items(sql, GOOD, created)
        run_in(instance, hour)
    [request], _ = tick(instance)
    assert hours_of(request) == (NEXT, LATER)
    assert "dagster/partition" not in request.tags
    assert request.tags["dagster/priority"] == "-1"
    launched(instance, request, dg.DagsterRunStatus.STARTED)
    assert tick(instance) == ([], "2 hours are being compared: it waits until that run has ended.")
    [record] = instance.get_run_records(dg.RunsFilter(job_name="challenger"))
    instance.report_run_failed(record.dagster_run)
    # These two have failed: they are not requested again, and do not keep the older one waiting.
    [second], _ = tick(instance)
    assert hours_of(second) == ("2026-11-02-04:00", "2026-11-02-04:00")
    launched(instance, second, dg.DagsterRunStatus.SUCCESS)
    assert tick(instance) == ([], "No hour is left to compare. 3 hours could not be compared: see the runs.")
    assert compared(instance, "2026-11-02-04:00").success
    assert tick(instance) == ([], "No hour is left to compare. 2 hours could not be compared: see the runs.")


def test_what_the_sensor_requests_is_compared(instance: dg.DagsterInstance, sql: Sql, challenger: Path) -> None:
    insert_items(sql, GOOD)
    run_in(instance)
    [request], _ = tick(instance)
    job = pipeline_definitions(OF_ENVIRONMENT).resolve_job_def("challenger")
    assert job.execute_in_process(instance=instance, tags=dict(request.tags)).success
    assert stored(sql, "sampled") == (3,)
    assert instance.get_materialized_partitions(ASSET) == {HOUR}
    assert tick(instance) == ([], "No hour is left to compare.")


def test_another_challenger_and_another_model_in_force_are_compared_anew(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_items(sql, GOOD)
    run_in(instance)
    [first], _ = tick(instance)
    launched(instance, first, dg.DagsterRunStatus.FAILURE)
    assert tick(instance)[0] == []
    other = LogisticRegression(C=0.1, max_iter=1000).fit(load_iris().data, np.array(LABELS)[load_iris().target])
    named(write_second(tmp_path / "third", other), monkeypatch)
    [second], _ = tick(instance)
    assert hours_of(second) == (HOUR, HOUR)
    assert second.run_key != first.run_key
    assert compared(instance).success
    assert tick(instance)[0] == []
    before = stored(sql, "challenger_version")
    named(challenger, monkeypatch)
    assert compared(instance).success
    assert stored(sql, "challenger_version") != before
    sql("UPDATE run_summary SET model_version = 'another'")
    [third], _ = tick(instance)
    assert third.run_key not in {first.run_key, second.run_key}


def test_hours_of_an_earlier_model_and_old_ones_are_left_to_a_person(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, GOOD)
    insert_items(sql, GOOD, NEXT_HALF_PAST)
    run_in(instance)
    sql("UPDATE run_summary SET model_version = 'earlier', finished_at = '2026-11-02 06:19:00'")
    run_in(instance, NEXT)
    [request], _ = tick(instance)
    assert hours_of(request) == (NEXT, NEXT)
    assert tick(instance, NOW + datetime.timedelta(days=7))[0] == []


def test_a_sensor_whose_challenger_is_gone_says_so_and_requests_nothing(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, GOOD)
    run_in(instance)
    challenger.unlink()
    with pytest.raises(ModelError, match=r"The challenger cannot be used\. Cannot read the model file"):
        tick(instance)


def test_the_runs_of_a_challenger_are_none_of_the_hour(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path
) -> None:
    insert_items(sql, GOOD)
    run_in(instance)
    challenger.write_bytes(b"nothing")
    assert not compared(instance).success
    for hour in (HOUR, NEXT):
        create_run_for_test(
            instance, "challenger", status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": hour}
        )
    insert_items(sql, GOOD, NEXT_HALF_PAST)
    repository = pipeline_definitions(OF_ENVIRONMENT).get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        data = repository.get_sensor_def("retry_hours").evaluate_tick(context)
    assert [request.partition_key for request in data.run_requests or []] == [NEXT]


def test_a_challenger_of_a_registry_is_the_version_that_its_alias_names(
    instance: dg.DagsterInstance, sql: Sql, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.set_alias(2, "next")
    monkeypatch.setenv("CHALLENGER_FILEPATH", "models:/iris@next")
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(root_folder() / "models" / "label.json"))
    insert_items(sql, GOOD)
    run_in(instance)
    [request], _ = tick(instance)
    assert request.tags["batch_assets/challenger"].startswith("models:/iris/2 ")
    assert compared(instance).success
    # The second version says the first label of every item.
    assert stored(sql, "challenger, compared, agreed") == ("models:/iris/2", 3, in_force(GOOD).count("setosa"))
    assert tick(instance) == ([], "No hour is left to compare.")
    registry.set_alias(1, "next")  # which has scored the hour
    [request], _ = tick(instance)
    launched(instance, request, dg.DagsterRunStatus.SUCCESS)
    assert compared(instance).success
    assert metadata(instance)["nothing to compare"].endswith("models:/iris/1 itself: nothing to compare.")
    assert tick(instance)[0] == []
    assert stored(sql, "challenger") == ("models:/iris/2",)


# Declarations


def test_without_a_challenger_there_is_no_asset_no_job_and_no_sensor() -> None:
    repository = defs.get_repository_def()
    assert "challenger" not in {job.name for job in repository.get_all_jobs()}
    assert not repository.has_sensor_def("compare_challenger")
    assert ASSET not in defs.resolve_asset_graph().get_all_asset_keys()


def test_the_asset_lies_downstream_and_its_sensor_is_on(challenger: Path) -> None:
    definitions = pipeline_definitions(OF_ENVIRONMENT)
    dg.Definitions.validate_loadable(definitions)
    [node] = [each for each in definitions.resolve_asset_graph().asset_nodes if each.key == ASSET]
    assert sorted(key.to_user_string() for key in node.parent_keys) == ["predictions", "run_summary"]
    assert isinstance(node.partitions_def, dg.HourlyPartitionsDefinition)
    assert node.group_name == "batch_inference"
    sensor = definitions.get_repository_def().get_sensor_def("compare_challenger")
    assert (sensor.default_status, sensor.job_name) == (dg.DefaultSensorStatus.RUNNING, "challenger")
    job = definitions.resolve_job_def("batch_inference")
    assert ASSET not in job.asset_layer.executable_asset_keys


# A regression, and the names of a declared pipeline


def test_the_numbers_of_a_regression_are_compared_as_scikit_learn_gives_them(
    instance: dg.DagsterInstance, sql: Sql, tmp_path: Path
) -> None:
    rows = customers(400)
    models = {
        "first": fitted(Ridge(), lambda known: known["spent"] * 2 + known["age"]),
        "second": fitted(Ridge(), lambda known: known["spent"] * 2.1 + known["age"] * 0.9),
    }
    for name, model in models.items():
        (tmp_path / name).mkdir()
        write_customer_model(tmp_path / name, model)
    churn = declared(
        tmp_path,
        name="churn",
        table={
            "name": "customers",
            "key": "id",
            "created": "created_at",
            "features": ["age", "plan", "spent", "active"],
            "output": "churn_score",
        },
        model={"file": "first/model.onnx", "task": "regression"},
        challenger={"file": "second/model.onnx"},
    )
    create_customers(sql, rows)
    initialize_database(engine_from_environment(), item_table(churn.items))
    assert run_of(instance, churn, hour=HOUR).success
    truth = (rows["spent"] * 2).tolist()
    for key, value in enumerate(truth[:50], 1):
        sql(
            "INSERT INTO actuals (pipeline, item_id, value, known_at) VALUES ('churn', %s, %s, '2026-11-02 07:00:00')",
            *(key, value),
        )
    result = compared(instance, of=churn)
    assert result.success
    one, other = (model.predict(rows).ravel() for model in models.values())
    agreed, difference, correlation, psi = stored(sql, "agreed, mean_absolute_difference, correlation, psi")
    assert agreed is None
    assert difference == pytest.approx(np.abs(one - other).mean(), rel=1e-4)
    assert correlation == pytest.approx(np.corrcoef(one, other)[0, 1], rel=1e-4)
    edges = np.quantile(one, np.arange(1, 10) / 10)
    shares = [np.bincount(np.searchsorted(edges, each, "right"), minlength=10) / 400 for each in (other, one)]
    assert psi == pytest.approx(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum(), abs=0.01)
    errors = stored(sql, "known, mean_absolute_error, challenger_mean_absolute_error")
    assert errors == (
        50,
        pytest.approx(mean_absolute_error(truth[:50], one[:50]), rel=1e-4),
        pytest.approx(mean_absolute_error(truth[:50], other[:50]), rel=1e-4),
    )
    shown = metadata(instance, key=dg.AssetKey(["churn", "challenger_predictions"]))
    assert "agreement" not in shown
    assert "labels" not in shown
    largest = int(np.abs(one - other).argmax()) + 1
    assert table_rows(shown["items that differ"])[2][0] == str(largest)
    assert sql("SELECT COUNT(*) FROM customers WHERE churn_score IS NULL") == [(0,)]


# The command line


def test_the_command_sums_up_the_hours_of_both_models(
    instance: dg.DagsterInstance, sql: Sql, challenger: Path, second: Any, tmp_path: Path
) -> None:
    first = insert_items(sql, ITEMS[:40])
    insert_items(sql, ITEMS[40:60], NEXT_HALF_PAST)
    run_in(instance, HOUR, NEXT)
    back = str(int((datetime.datetime.now(datetime.UTC) - NOW).total_seconds() // 3600) + 24)
    said = succeeded(batch_assets("challenger", "--hours", back))
    assert "The challenger was not compared in the last" in said
    (tmp_path / "known.csv").write_text("item_id,label\n" + "".join(f"{key},setosa\n" for key in first[:10]))
    succeeded(batch_assets("actuals", str(tmp_path / "known.csv")))
    assert compared(instance, HOUR, NEXT).success
    one, other = in_force(ITEMS[:60]), labels_by(second, ITEMS[:60])
    agreed = [sum(map(str.__eq__, one[a:b], other[a:b])) for a, b in ((0, 40), (40, 60))]
    accuracy = [said[:10].count("setosa") / 10 for said in (one, other)]
    output = succeeded(batch_assets("challenger", "--hours", back))
    rows = {row[0]: row[1:] for row in table_rows(output)}
    both = f"{accuracy[0]:.4g} / {accuracy[1]:.4g}"
    assert (rows[HOUR][:3], rows[HOUR][4:6]) == (["40", "0", f"{agreed[0] / 40:.1%}"], ["10", both])
    assert rows[NEXT][:3] == ["20", "0", f"{agreed[1] / 20:.1%}"]
    assert (rows["all"][:3], rows["all"][4:6]) == (["60", "0", f"{sum(agreed) / 60:.1%}"], ["10", both])
    assert rows["setosa"][:2] == [f"{said.count('setosa') / 60:.1%}" for said in (one, other)]
    assert f"answers {sum(agreed) / 60:.1%} of 60 items of 2 hours with the label of the model in force" in output
    assert f"The accuracy of the challenger is {accuracy[1]:.1%}, that of the model {accuracy[0]:.1%}, of" in output
    status = succeeded(batch_assets("status", "--hours", back))
    assert f"answers {sum(agreed) / 60:.1%} of 60 items of 2 hours" in status
    assert status.rstrip().endswith("To see more: batch-assets challenger")


def test_without_a_challenger_the_command_says_so_and_the_status_nothing() -> None:
    assert "There is no challenger: name one" in succeeded(batch_assets("challenger"))
    assert "challenger" not in succeeded(batch_assets("status"))
