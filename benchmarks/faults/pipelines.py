"""The pipelines of a campaign: that of the environment, and one that a project declares on the same table.

The second one scores columns. The server makes them of the list that the first one scores, so that whoever writes a
list writes the columns too, in the same statement.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from batch_assets.component import declared_pipelines
from batch_assets.iris.training import iris_items
from batch_assets.orchestration.names import job_name
from batch_assets.pipeline import OF_ENVIRONMENT, Declaration
from batch_assets.settings.folders import root_folder
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.customers import write_exported
from batch_assets_tests.support.pipeline import LABELS, iris_probabilities
from batch_assets_tests.support.project import write_project
from benchmarks.faults.plan import TOO_LARGE
from benchmarks.faults.run import PRELOADED_PROJECT, Job
from benchmarks.faults.service import BAD_IN_ONE_FORM, in_one_form

PROJECT = """type: batch_assets.BatchInferenceComponent
attributes: {}
---
type: batch_assets.BatchInferenceComponent
attributes:
  name: second
  table: {name: items, features: [sepal_length, sepal_width, petal_length, petal_width], output: second_prediction}
  model: {file: model.onnx, sample: sample.json}
"""
LOADED = '''"""The project's definitions, loaded once for all workers that are forked."""

from pathlib import Path

import dagster as dg

defs = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
'''
# NULL where the list has no number at that place: such an item must fail for either pipeline.
_FEATURE = """`{name}` DOUBLE GENERATED ALWAYS AS (
    CASE WHEN JSON_TYPE(JSON_EXTRACT(`values`, '$[{place}]')) IN ('INTEGER', 'DOUBLE', 'DECIMAL')
    THEN CAST(JSON_EXTRACT(`values`, '$[{place}]') AS DOUBLE) END
) STORED"""
# By so much the answers of two models differ at least, so that one is never taken for the other.
LEAST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class ScoredPipeline:
    """A pipeline, and what it must answer.

    Args:
        declaration: The pipeline.
        job: What runs it.
        account: The account of its runs on the server, by which their connections are told from others.
        model_version: SHA-256 of its model.
        answers: What the model itself says of each of the values that it can score, by their text in one form.
    """

    declaration: Declaration
    job: Job
    account: str
    model_version: str
    answers: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """Its name."""
        return self.declaration.name

    @property
    def bad(self) -> set[str]:
        """The values that it cannot score, in one form."""
        return BAD_IN_ONE_FORM - self.answers.keys()

    @property
    def column(self) -> str:
        """The column that it writes."""
        return self.declaration.items.prediction

    @property
    def columns_to_add(self) -> list[str]:
        """The columns in SQL that the table of the environment lacks for it."""
        if self.declaration.is_of_environment:
            return []
        names = enumerate(feature.name for feature in self.declaration.items.features)
        return [f"{self.column} JSON", *(_FEATURE.format(name=name, place=place) for place, name in names)]


def pipeline_of_environment(good: Sequence[str]) -> ScoredPipeline:
    """Returns the pipeline that the environment describes."""
    version = _sha256(ModelFiles.from_environment({}).model_filepath)
    answers = dict(zip(good, iris_probabilities(good), strict=True))
    return ScoredPipeline(OF_ENVIRONMENT, Job(job_name(OF_ENVIRONMENT)), "worker", version, answers)


def two_pipelines(good: Sequence[str], folder: Path) -> list[ScoredPipeline]:
    """Writes a project that declares the pipeline of the environment and a second one on its table.

    Args:
        good: Values of items.
        folder: An empty folder on the path of Python, for the project.
    """
    write_project(folder, PROJECT)
    (folder / "shop" / "loaded.py").write_text(LOADED)
    classifier = _second_classifier()
    write_exported(folder, classifier, [("values", _four_doubles())], zipmap=False)
    (folder / "sample.json").write_text(json.dumps(iris_items(10, seed=0)))
    of_environment, second = declared_pipelines(dg.ComponentTree.for_project(folder))
    first = pipeline_of_environment(good)
    scored = [*good, in_one_form(TOO_LARGE)]
    answers = dict(zip(scored, classifier.predict_proba([json.loads(text) for text in scored]), strict=True))
    least = min(float(abs(answers[text] - first.answers[text]).max()) for text in good)
    assert least > LEAST_DIFFERENCE, f"two models differ by {least} only"
    module = "shop.definitions"
    version = _sha256(folder / "model.onnx")
    return [
        ScoredPipeline(
            of_environment,
            Job(job_name(of_environment), module, PRELOADED_PROJECT),
            "worker",
            first.model_version,
            first.answers,
        ),
        ScoredPipeline(second, Job(job_name(second), module, PRELOADED_PROJECT), "worker_second", version, answers),
    ]


def _second_classifier() -> Any:
    """Fits a model that answers otherwise than the first, and scores numbers that are too large for that one."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy: only where it is used
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import MinMaxScaler  # noqa: PLC0415

    known = iris_items(150, seed=0)
    labels = np.array(LABELS)[iris_probabilities([json.dumps(values) for values in known]).argmax(axis=1)]
    return make_pipeline(MinMaxScaler(clip=True), LogisticRegression()).fit(np.array(known), labels)


def _four_doubles() -> Any:
    from skl2onnx.common.data_types import DoubleTensorType  # noqa: PLC0415 - heavy, as above

    return DoubleTensorType([None, 4])


def _sha256(file: Path) -> str:
    return hashlib.sha256((root_folder() / file).read_bytes()).hexdigest()
