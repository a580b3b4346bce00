"""`batch-assets promote` and `batch-assets rollback`: what they record, what they refuse, and what a kill leaves."""

import getpass
import random
import subprocess
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.database.records.promotions import with_model_in_force
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.errors import DatabaseError
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import Pipeline, pipeline_from_environment
from batch_assets.scoring import promotion
from batch_assets.scoring.canary import CanaryResult, try_pipeline
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.command_line import COMMAND, SECONDS, batch_assets, misused, refused, succeeded
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.onnx_models import write_classifier, write_labels
from batch_assets_tests.support.pipeline import GOOD, insert_items, rows_of
from batch_assets_tests.support.project import declared
from batch_assets_tests.support.promotions import (
    IRIS,
    IRIS_LABELS,
    change,
    promote,
    promotions,
    roll_back,
    sha_of,
    write_challenger,
)

pytestmark = pytest.mark.above_sql

KILLS = 8


@pytest.fixture
def challenger(tables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_challenger(tmp_path, monkeypatch)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it in a process of its own."""
    return subprocess.run([COMMAND, *arguments], check=False, capture_output=True, encoding="utf-8", timeout=SECONDS)


def in_force() -> Path:
    return file_in_force(pipeline_from_environment())


def file_in_force(pipeline: Pipeline) -> Path:
    source = with_model_in_force(pipeline).model
    assert isinstance(source, ModelFiles)
    return source.model_filepath


def test_promote_says_what_is_in_force_what_was_before_and_how_to_take_it_back(sql: Sql, challenger: Path) -> None:
    insert_items(sql, [*GOOD, "[1, 2]"])
    before = rows_of(sql)
    done = command("promote", "items")
    assert succeeded(done).splitlines() == [
        f"In force from the next run on: {challenger}, {sha_of(challenger)[:12]}",
        f"before: models/iris_svc.onnx, {sha_of(IRIS)[:12]}",
        "4 recent items tried: 3 scored, 1 failed",
        "Runs that are under way go on with the model that they began with.",
        "To take it back: batch-assets rollback items",
    ]
    assert rows_of(sql) == before
    assert promotions(sql) == [(1, "promote", str(challenger), sha_of(challenger), None)]
    assert in_force() == challenger

    done = command("rollback", "items")
    assert succeeded(done).splitlines()[:2] == [
        f"In force again from the next run on: models/iris_svc.onnx, {sha_of(IRIS)[:12]}",
        f"taken back: {challenger}, {sha_of(challenger)[:12]}",
    ]
    assert promotions(sql)[1] == (2, "rollback", "models/iris_svc.onnx", sha_of(IRIS), 1)
    assert in_force() == IRIS


def test_a_row_says_who_has_promoted_what_in_the_place_of_what(
    sql: Sql, challenger: Path, tables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    account = getpass.getuser()
    monkeypatch.setenv("LOGNAME", "somebody else")
    promote()
    (row,) = sql(
        "SELECT pipeline, made_by, database_account, declared, label_filepath, model_before, label_filepath_before, "
        "version_before FROM promotions"
    )
    assert row[1].startswith(f"{account}@")
    assert (row[2] or "").partition("@")[0] == tables.get("MYSQL_USER", "")
    assert row[0] == "items"
    assert row[3:] == (
        "models/iris_svc.onnx",
        "models/label.json",
        "models/iris_svc.onnx",
        "models/label.json",
        sha_of(IRIS),
    )


def test_each_rollback_takes_one_more_promotion_back(
    sql: Sql, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote()
    third = tmp_path / "third.onnx"
    third.write_bytes(challenger.read_bytes())
    change(third)
    monkeypatch.setenv("CHALLENGER_FILEPATH", str(third))
    promote()
    assert in_force() == third
    roll_back()
    assert in_force() == challenger
    roll_back()
    assert in_force() == IRIS
    assert "every promotion was taken back" in refused(batch_assets("rollback", "items"))
    promote()
    assert in_force() == third
    roll_back()
    assert in_force() == IRIS
    assert [(row[1], row[4]) for row in promotions(sql)] == [
        ("promote", None),
        ("promote", None),
        ("rollback", 2),
        ("rollback", 1),
        ("promote", None),
        ("rollback", 5),
    ]


def test_without_a_challenger_there_is_nothing_to_promote_and_without_a_promotion_nothing_to_take_back(
    tables: dict[str, str], sql: Sql
) -> None:
    assert "The pipeline items declares no challenger" in refused(batch_assets("promote", "items"))
    assert "nothing was promoted. Nothing was changed." in refused(batch_assets("rollback", "items"))
    assert "There is no pipeline 'other'" in refused(batch_assets("promote", "other"))
    assert "Missing argument 'NAME'" in misused(batch_assets("promote"))
    assert promotions(sql) == []


def test_the_model_in_force_is_not_promoted_again(sql: Sql, challenger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote()
    assert f"{challenger}, is the model in force already" in refused(batch_assets("promote", "items"))
    monkeypatch.setenv("CHALLENGER_FILEPATH", str(IRIS))
    roll_back()
    assert "is the model in force already" in refused(batch_assets("promote", "items"))
    assert len(promotions(sql)) == 2


def test_a_challenger_that_does_not_fit_is_not_promoted(
    sql: Sql, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenger.write_text("no model")
    assert "challenger.onnx" in refused(batch_assets("promote", "items"))
    challenger.unlink()
    assert "Cannot read the model file" in refused(batch_assets("promote", "items"))
    # Without a sample, it is the newest items that it does not fit.
    wide = write_classifier(tmp_path, width=5)
    monkeypatch.setenv("MODEL_FILEPATH", str(IRIS.with_name("other.onnx")))
    monkeypatch.setenv("CHALLENGER_FILEPATH", str(wide.model_filepath))
    insert_items(sql, GOOD)
    assert "takes 5 values an item, not 4" in refused(batch_assets("promote", "items"))
    assert promotions(sql) == []


def test_a_challenger_is_tried_with_the_sample_of_the_declared_model(
    sql: Sql, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = write_classifier(tmp_path, width=5)
    monkeypatch.setenv("CHALLENGER_FILEPATH", str(wide.model_filepath))
    assert "the sample in models/sample.json" in refused(batch_assets("promote", "items"))
    assert promotions(sql) == []


def test_a_model_before_that_was_changed_since_is_not_put_in_force_again(
    sql: Sql, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared_file = tmp_path / "declared.onnx"
    declared_file.write_bytes(IRIS.read_bytes())
    monkeypatch.setenv("MODEL_FILEPATH", str(declared_file))
    monkeypatch.setenv("LABEL_FILEPATH", str(IRIS_LABELS))
    promote()
    was = sha_of(declared_file)
    change(declared_file)
    message = refused(batch_assets("rollback", "items"))
    assert message.startswith(f"The model before promotion 1, {declared_file}, cannot be put in force again")
    assert was in message
    assert sha_of(declared_file) in message
    declared_file.unlink()
    assert "Cannot read the model file" in refused(batch_assets("rollback", "items"))
    assert (in_force(), len(promotions(sql))) == (challenger, 1)


def test_a_promotion_that_no_longer_applies_cannot_be_taken_back(
    sql: Sql, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote()
    other = tmp_path / "other.onnx"
    other.write_bytes(IRIS.read_bytes())
    monkeypatch.setenv("MODEL_FILEPATH", str(other))
    assert f"it declares {other} now, and no longer models/iris_svc.onnx" in refused(batch_assets("rollback", "items"))
    assert in_force() == other
    # What is promoted now is taken back to what is declared now, and no further.
    promote()
    assert in_force() == challenger
    roll_back()
    assert in_force() == other
    assert "There is nothing to take back" in refused(batch_assets("rollback", "items"))


def test_of_two_promotions_at_once_one_takes_effect_and_the_other_says_so(sql: Sql, challenger: Path) -> None:
    arguments = [COMMAND, "promote", "items"]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=SECONDS) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], outputs
    (error,) = [error for _, error in outputs if error]
    assert "in force" in error
    assert error.count("\n") == 1
    assert len(promotions(sql)) == 1


def test_a_promotion_that_comes_while_another_is_tried_is_not_overridden(
    sql: Sql, challenger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(engine: sa.Engine, pipeline: Pipeline, model: OnnxModel) -> CanaryResult:
        monkeypatch.setattr(promotion, "try_pipeline", try_pipeline)
        promote()
        return try_pipeline(engine, pipeline, model)

    monkeypatch.setattr(promotion, "try_pipeline", overtaken)
    assert "Somebody else has put a model of items in force in the meantime" in refused(
        batch_assets("promote", "items")
    )
    assert len(promotions(sql)) == 1


@pytest.mark.slow
def test_a_promote_that_is_killed_has_promoted_or_not(sql: Sql, challenger: Path) -> None:
    insert_items(sql, GOOD)
    started = time.monotonic()
    succeeded(command("promote", "items"))
    seconds = time.monotonic() - started
    roll_back()
    seen, moments = set(), random.Random(11)
    for _ in range(KILLS):
        before = promotions(sql)
        with subprocess.Popen([COMMAND, "promote", "items"], stdout=subprocess.DEVNULL) as process:
            # Most of the time goes into imports.
            time.sleep(seconds * moments.uniform(0.5, 1.1))
            process.kill()
        after = promotions(sql)
        promoted = after != before
        seen.add(promoted)
        assert after[: len(before)] == before
        assert [row[1] for row in after[len(before) :]] == ["promote"] * promoted
        assert in_force() == (challenger if promoted else IRIS)
        if promoted:
            roll_back()
    assert seen


def test_a_path_in_the_folder_of_a_project_holds_in_another_folder(
    sql: Sql, tables: dict[str, str], tmp_path: Path
) -> None:
    engine = engine_from_environment()
    for name in ("here", "there"):
        models = tmp_path / name / "models"
        models.mkdir(parents=True)
        for version in ("one", "two"):
            (models / f"{version}.onnx").write_bytes(IRIS.read_bytes())
        change(models / "two.onnx")
        (models / "labels.json").write_bytes(IRIS_LABELS.read_bytes())
    attributes = {
        "name": "shop",
        "model": {"file": "models/one.onnx", "labels": "models/labels.json"},
        "challenger": {"file": "models/two.onnx", "labels": "models/labels.json"},
    }
    here, there = (declared(tmp_path / name, **attributes).load() for name in ("here", "there"))
    initialize_database(engine, item_table(here.items), ITEMS)
    promotion.promote(here, "somebody")
    assert [row[2] for row in promotions(sql)] == ["models/two.onnx"]
    assert file_in_force(there) == tmp_path / "there" / "models" / "two.onnx"
    assert with_model_in_force(there).model.label_filepath == tmp_path / "there" / "models" / "labels.json"
    # And no other pipeline has it.
    assert in_force() == IRIS


@pytest.mark.server
def test_a_challenger_whose_answers_the_table_does_not_take_is_not_promoted(
    server_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    short = write_labels(tmp_path / "short.json", ["a", "b", "c"])
    shop = declared(
        tmp_path,
        name="shop",
        table={"name": "items", "outputs": {"label": "label"}},
        model={"file": str(IRIS), "labels": str(short)},
        challenger={"file": str(IRIS), "labels": str(IRIS_LABELS)},
    ).load()
    initialize_database(engine_from_environment(), ITEMS)
    sql("ALTER TABLE items ADD COLUMN label VARCHAR(5)")
    initialize_database(engine_from_environment(), ITEMS, item_table(shop.items))
    insert_items(sql, GOOD)
    with pytest.raises(DatabaseError, match="Data too long for column 'label'"):
        promotion.promote(shop, "somebody")
    assert promotions(sql) == []
    assert sql("SELECT label FROM items") == [(None,)] * 3
