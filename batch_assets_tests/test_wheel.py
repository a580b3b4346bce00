"""The wheel works by itself: without the checkout that it was built from, in a folder with nothing in it."""

import contextlib
import json
import os
import sqlite3
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from batch_assets_tests.support.command_line import assert_demonstrated, table_rows
from batch_assets_tests.support.pipeline import HOUR
from batch_assets_tests.support.programs import ROOT
from batch_assets_tests.support.servers import Rows, run_to_end

MODEL = ("iris_svc.json", "iris_svc.onnx", "label.json", "sample.json")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the build backend of the lock."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    run_to_end(command, timeout=120)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment with the wheel in it, which sees what the package depends on, not us."""
    folder = tmp_path_factory.mktemp("wheel") / "venv"
    venv.create(folder, symlinks=True)
    site = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    # A path in a file of this kind is searched, but the files of this kind there are not read: not the checkout.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = str(folder / "bin" / "python")
    run_to_end([*PIP, "--python", python, "install", "--no-deps", "--no-index", str(wheel)], timeout=120)
    return folder / "bin"


def run(folder: Path, *command: str | Path) -> str:
    """Runs a program in a folder where there is nothing of ours, and returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return run_to_end([str(word) for word in command], timeout=150, cwd=folder, env=environment)


def test_it_holds_the_package_with_its_model_and_nothing_of_the_tests(wheel: Path) -> None:
    package = [file for file in (ROOT / "batch_assets").rglob("*.*") if file.suffix != ".pyc"]
    expected = {str(file.relative_to(ROOT)): file.read_bytes() for file in package}
    expected |= {f"batch_assets/models/{name}": (ROOT / "models" / name).read_bytes() for name in MODEL}
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


@pytest.mark.slow
def test_its_demonstration_runs_in_an_empty_folder(programs: Path, tmp_path: Path) -> None:
    package = run(tmp_path, programs / "python", "-c", "import batch_assets; print(batch_assets.__file__)")
    assert Path(package).is_relative_to(programs.parent)
    output = run(tmp_path, programs / "batch-assets", "demo")
    home = tmp_path / ".batch_assets"

    def sql(statement: str, *parameters: object) -> Rows:
        with contextlib.closing(sqlite3.connect(home / "batch.sqlite")) as connection:
            return connection.execute(statement, parameters).fetchall()

    assert_demonstrated(output, sql, home)
    again = run(tmp_path, programs / "batch-assets", "demo")
    assert sql("SELECT COUNT(*), COUNT(prediction) FROM items") == [(65_322, 65_322)]
    assert "items registered" not in again
    assert table_rows(again)[-1] == ["sum", "65,322", "65,322", "0", "0", ""]
    assert output.splitlines()[-1].endswith(f"DAGSTER_HOME={home} dagster dev -m batch_assets.definitions")
    assert [path.name for path in tmp_path.iterdir()] == [".batch_assets"]


@pytest.mark.slow
def test_a_model_that_is_trained_anew_is_kept_in_the_home_and_used(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ".batch_assets"
    assert f"made the Dagster instance {home}" in run(tmp_path, programs / "batch-assets", "init-db")
    (tmp_path / "items.csv").write_text("5.1,3.5,1.4,0.2\n")
    register = ("register", "items.csv", "--created-at", "2026-11-02T05:30")
    assert run(tmp_path, programs / "batch-assets", *register) == "1 item registered\n"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    dagster = (programs / "python", "-m", "dagster")
    run(tmp_path, *dagster, "asset", "materialize", "-m", "batch_assets.definitions", "--select", "iris_model")
    assert {path.name for path in (home / "models").iterdir()} == set(MODEL)
    assert not (programs.parent / "models").exists()
    # Other names show which of the two models scores the hour.
    (home / "models" / "label.json").write_text('{"0": "one", "1": "two", "2": "three"}')
    tags = json.dumps({"dagster/partition": HOUR})
    job = ("job", "execute", "-m", "batch_assets.definitions", "-j", "batch_inference", "--tags", tags)
    run(tmp_path, *dagster, *job)
    with contextlib.closing(sqlite3.connect(home / "batch.sqlite")) as connection:
        counts = [json.loads(row[0]) for row in connection.execute("SELECT label_counts FROM run_summary")]
        baselines = connection.execute("SELECT items, made_from FROM baselines").fetchall()
    assert counts == [{"one": 1, "two": 0, "three": 0}]
    assert baselines == [(150, "the training of iris_model")]
