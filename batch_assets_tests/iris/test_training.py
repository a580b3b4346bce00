"""Training the iris model: what is written, that it is the same every time, and that nothing is half done."""

import json
import stat
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from batch_assets.errors import ModelError
from batch_assets.inference.model_files import load_model
from batch_assets.iris import training
from batch_assets.iris.baseline import baseline_of_training
from batch_assets.iris.training import TrainingReport, iris_classifier, iris_items, train_iris_model
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.database import Sql

pytestmark = pytest.mark.xdist_group("training")

FILES = ["iris_svc.json", "iris_svc.onnx", "label.json", "sample.json"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> TrainingReport:
    return train_iris_model(tmp_path_factory.mktemp("training") / "models")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_written_model_loads_with_its_labels_and_its_sample(report: TrainingReport) -> None:
    model = load_model(ModelFiles(report.model_filepath, report.label_filepath, report.sample_data_path))
    assert model.version == report.version
    assert model.labels == ("setosa", "versicolor", "virginica")
    assert model.width == 4


def test_the_report_is_plain_numbers_of_a_good_model(report: TrainingReport) -> None:
    assert report.rows == 150
    assert 0.9 < report.accuracy < 1
    assert 0 < report.log_loss < 0.3
    assert 0 <= report.largest_difference <= 1e-5
    assert {type(value) for value in vars(report).values()} <= {int, float, str, type(report.model_filepath)}


def test_training_twice_writes_the_same_bytes_and_leaves_nothing_else(report: TrainingReport, tmp_path: Path) -> None:
    again = train_iris_model(tmp_path)
    assert again.version == report.version
    assert list(contents(tmp_path)) == FILES
    assert contents(tmp_path) == contents(report.model_filepath.parent)
    assert train_iris_model(tmp_path).version == report.version
    assert list(contents(tmp_path)) == FILES


def test_what_is_written_can_be_read_by_another_user(report: TrainingReport) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o044 for path in report.model_filepath.parent.iterdir()}
    reference = report.model_filepath.parent / "reference"
    reference.touch()
    try:
        assert modes == {stat.S_IMODE(reference.stat().st_mode) & 0o044}
    finally:
        reference.unlink()


def test_the_description_holds_metrics_and_the_distribution_of_every_feature(report: TrainingReport) -> None:
    described = json.loads(report.description_filepath.read_text())
    assert described["version"] == report.version
    assert described["metrics"] == {"accuracy": report.accuracy, "log_loss": report.log_loss}
    assert described["features"] == list(described["training_distribution"])
    assert set(described["trained_with"]) == {"scikit-learn", "skl2onnx"}
    for distribution in described["training_distribution"].values():
        quantiles = [distribution["quantiles"][key] for key in ("0.05", "0.25", "0.5", "0.75", "0.95")]
        inner = [distribution["min"], *quantiles, distribution["max"]]
        assert all(low <= high for low, high in pairwise(inner))
        assert distribution["std"] > 0


def test_onnx_runtime_gives_what_scikit_learn_gives_for_new_items(report: TrainingReport) -> None:
    model = load_model(ModelFiles(report.model_filepath, report.label_filepath, None))
    items = np.array(iris_items(1000, seed=3))
    probabilities = model.probabilities(items.astype(np.float32))
    np.testing.assert_allclose(probabilities, iris_classifier().predict_proba(items), atol=1e-5)


def test_a_model_that_onnx_runtime_computes_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LARGEST_DIFFERENCE_ALLOWED", 0.0)
    with pytest.raises(ModelError, match="Nothing was written"):
        train_iris_model(tmp_path)
    assert contents(tmp_path) == {}


def test_a_folder_that_cannot_be_made_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="Cannot write the iris model into"):
        train_iris_model(tmp_path / "file")


def test_a_write_that_fails_midway_leaves_the_old_files_and_no_temporary_ones(
    report: TrainingReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_iris_model(tmp_path)
    (tmp_path / "label.json").write_text("old")
    before = contents(tmp_path)
    write_bytes = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if "sample" in path.name:
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(ModelError, match="No space left on device"):
        train_iris_model(tmp_path)
    assert contents(tmp_path) == before


def test_demo_items_look_like_irises() -> None:
    items = iris_items(500, seed=1)
    assert items == iris_items(500, seed=1)
    assert items != iris_items(500, seed=2)
    assert {len(item) for item in items} == {4}
    assert all(0.1 <= value < 9 and value == round(value, 1) for item in items for value in item)
    assert len({tuple(item) for item in items}) > 300
    assert iris_items(0, seed=1) == []


def test_the_items_of_the_training_are_the_baseline_of_the_model_if_it_is_in_force(
    tables: dict[str, str], sql: Sql, report: TrainingReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert baseline_of_training(OF_ENVIRONMENT.load(), replace(report, version="another")) is None
    assert sql("SELECT COUNT(*) FROM baselines") == [(0,)]
    monkeypatch.setenv("MODEL_FILEPATH", str(report.model_filepath))
    monkeypatch.setenv("LABEL_FILEPATH", str(report.label_filepath))
    for _ in range(2):
        made = baseline_of_training(OF_ENVIRONMENT.load(), report)
        assert made
        assert (made.model_version, len(made.sketches)) == (report.version, 4)
    assert sql("SELECT model_version, items FROM baselines") == [(report.version, 150)]
