"""The second model of a pipeline: as the environment says it, and as it is declared."""

from pathlib import Path

import pytest

from batch_assets.errors import SettingsError
from batch_assets.pipeline import OF_ENVIRONMENT, Declaration
from batch_assets.settings.model import Challenger, ModelFiles, RegisteredModel
from batch_assets_tests.support.project import declared

NEW = ModelFiles(Path("new.onnx"), None, None)
NAMED = {"CHALLENGER_FILEPATH": "new.onnx"}


@pytest.mark.parametrize("variables", [{}, {"CHALLENGER_FILEPATH": ""}, {"BATCH_CHALLENGER_ITEMS": "5"}])
def test_there_is_none_unless_one_is_named(variables: dict[str, str]) -> None:
    assert OF_ENVIRONMENT.challenger(variables) is None
    assert OF_ENVIRONMENT.load({"BATCH_ASSETS_HOME": "/nowhere", **variables}).challenger is None


def test_the_environment_names_a_file_its_labels_and_how_many_items_it_answers() -> None:
    assert OF_ENVIRONMENT.challenger(NAMED) == Challenger(NEW, 1_000)
    variables = {**NAMED, "CHALLENGER_LABEL_FILEPATH": "new.json", "BATCH_CHALLENGER_ITEMS": "20"}
    assert OF_ENVIRONMENT.challenger(variables) == Challenger(ModelFiles(Path("new.onnx"), Path("new.json"), None), 20)


def test_the_environment_names_a_model_of_a_registry() -> None:
    found = OF_ENVIRONMENT.challenger({"CHALLENGER_FILEPATH": "models:/iris@next"})
    assert found == Challenger(RegisteredModel("iris", None, "next"))
    with pytest.raises(SettingsError, match="models:/NAME@ALIAS or models:/NAME/VERSION"):
        OF_ENVIRONMENT.challenger({"CHALLENGER_FILEPATH": "models:/iris"})


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5"])
def test_the_number_of_items_is_a_whole_one_of_1_or_more(wrong: str) -> None:
    with pytest.raises(SettingsError, match="BATCH_CHALLENGER_ITEMS"):
        OF_ENVIRONMENT.challenger({**NAMED, "BATCH_CHALLENGER_ITEMS": wrong})


def test_that_of_the_environment_is_no_match_for_a_model_of_a_pipelines_own() -> None:
    assert Declaration(name="other").challenger(NAMED) == Challenger(NEW)
    assert Declaration(name="churn", model=ModelFiles(Path("churn.onnx"), None, None)).challenger(NAMED) is None


def test_a_declaration_names_files_from_the_folder_of_the_project(tmp_path: Path) -> None:
    churn = declared(
        tmp_path,
        name="churn",
        model={"file": "models/churn.onnx"},
        challenger={"file": "models/new.onnx", "labels": "models/new.json", "items": 50},
    )
    files = ModelFiles(tmp_path / "models" / "new.onnx", tmp_path / "models" / "new.json", None)
    assert churn.challenger({}) == churn.load({"BATCH_ASSETS_HOME": "/nowhere"}).challenger == Challenger(files, 50)
    # What is declared counts more than what the environment says.
    assert churn.challenger({**NAMED, "BATCH_CHALLENGER_ITEMS": "7"}) == Challenger(files, 50)
    registered = declared(tmp_path, name="churn", challenger={"file": "models:/churn/4"})
    assert registered.challenger({}) == Challenger(RegisteredModel("churn", 4, None))
