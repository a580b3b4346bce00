"""Challengers to promote, and what the table `promotions` has of that."""

import hashlib
from pathlib import Path
from typing import Any

import onnx
import pytest

from batch_assets_tests.support.command_line import batch_assets, succeeded
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.registry import second_iris

# What the challenger says of every item.
SURE = [1.0, 0.0, 0.0]
IRIS = Path(__file__).parents[2] / "models" / "iris_svc.onnx"
IRIS_LABELS = IRIS.with_name("label.json")


def write_challenger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a model of iris items that is sure of the first class, and names it as the challenger."""
    file = folder / "challenger.onnx"
    onnx.save(second_iris(folder), file)
    monkeypatch.setenv("CHALLENGER_FILEPATH", str(file))
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(IRIS_LABELS))
    return file


def change(file: Path) -> None:
    """Makes it another model that answers the same."""
    model = onnx.load(file)
    model.doc_string += "changed "
    onnx.save(model, file)


def sha_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def promote(name: str = "items") -> str:
    return succeeded(batch_assets("promote", name))


def roll_back(name: str = "items") -> str:
    return succeeded(batch_assets("rollback", name))


def promotions(sql: Sql) -> list[tuple[Any, ...]]:
    return sql("SELECT number, action, model, version, takes_back FROM promotions ORDER BY number")
