"""How the path of a model is kept, so that another process on another machine finds the same file."""

from pathlib import Path

import pytest

from batch_assets.settings.folders import project_folder
from batch_assets.settings.model import ModelFiles, RegisteredModel, model_of_text, model_text
from batch_assets_tests.support.instance import ROOT


def files(path: Path) -> ModelFiles:
    return ModelFiles(path, None, None)


def test_a_file_in_the_folder_of_the_project_is_named_from_there_wherever_somebody_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert project_folder() == ROOT
    assert model_text(files(ROOT / "models" / "new.onnx"), ROOT) == "models/new.onnx"
    assert model_text(files(Path("models/new.onnx")), ROOT) == str(tmp_path / "models" / "new.onnx")
    monkeypatch.chdir(ROOT / "models")
    assert model_text(files(Path("new.onnx")), ROOT) == "models/new.onnx"
    assert model_of_text("models/new.onnx", None, None, tmp_path) == files(tmp_path / "models" / "new.onnx")


@pytest.mark.parametrize("text", ["models/new.onnx", "/srv/models/new.onnx"])
def test_without_a_project_a_file_is_named_as_somebody_has_written_it(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for working_folder in ("/", "/srv", str(ROOT)):
        if Path(working_folder).is_dir():
            monkeypatch.chdir(working_folder)
            assert model_text(files(Path(text)), Path()) == text
            assert model_of_text(text, None, None, Path()) == files(Path(text))


def test_a_model_of_a_registry_is_named_as_mlflow_writes_it() -> None:
    model = RegisteredModel("iris", 3, None)
    assert model_text(model, ROOT) == "models:/iris/3"
    assert model_of_text("models:/iris/3", None, None, ROOT) == model
