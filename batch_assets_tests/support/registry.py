"""MLflow registries in a folder or in a SQLite file, with small models in them."""

import hashlib
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.onnx_models import write_table_model

EXPERIMENT = "models"
PICKLED = "flavors:\n  sklearn: {pickled_model: model.pkl}\n  python_function: {loader_module: mlflow.sklearn}\n"
# Of the model `weighty`: more than the 1,024 bytes from which on MLflow keeps weights in a file of their own.
WEIGHTS = np.random.default_rng(3).random((4, 500), np.float32)


@dataclass(frozen=True)
class Registry:
    """A registry, to which the environment of the test points.

    It has the models `iris` (versions 1 and 2, of which the first is the champion), `weighty` with weights in a file of
    their own, and `pickled`, which is no ONNX model.
    """

    uri: str

    def set_alias(self, version: int, alias: str = "champion", name: str = "iris") -> None:
        """Has an alias name another version."""
        from mlflow import MlflowClient

        MlflowClient(self.uri).set_registered_model_alias(name, alias, str(version))

    def log(self, name: str, model: Any) -> int:
        """Logs an ONNX model, registers it and returns its version."""
        import mlflow
        import mlflow.onnx

        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        with mlflow.start_run(experiment_id=experiment.experiment_id):
            logged = mlflow.onnx.log_model(model, name="model", registered_model_name=name, pip_requirements=[])
        return int(logged.registered_model_version)


def uri_of(kind: str, folder: Path) -> str:
    """What MLFLOW_TRACKING_URI is for a registry that lies in a folder, as files or as a database."""
    return str(folder / "registry") if kind == "folder" else f"sqlite:///{folder / 'registry.sqlite'}"


def make_registry(kind: str, folder: Path) -> None:
    """Makes a registry with its models.

    Args:
        kind: `folder` or `sqlite`.
        folder: Where it goes.
    """
    from mlflow import MlflowClient

    registry = Registry(uri_of(kind, folder))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # MLflow looks at the types of its own functions.
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
        patch.setenv("MLFLOW_TRACKING_URI", registry.uri)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient()
        client.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri())
        registry.log("iris", onnx.load(root_folder() / "models" / "iris_svc.onnx"))
        registry.log("iris", second_iris(folder))
        registry.set_alias(1)
        registry.log("weighty", weighty())
        pickled = folder / "pickled"
        pickled.mkdir()
        (pickled / "MLmodel").write_text(PICKLED)
        client.create_registered_model("pickled")
        client.create_model_version("pickled", pickled.as_uri())


def copy_registry(made: Path, folder: Path) -> Registry:
    """Copies what `make_registry` made but for the files of the models, which nobody changes."""
    if (made / "registry").is_dir():
        shutil.copytree(made / "registry", folder / "registry")
        return Registry(uri_of("folder", folder))
    shutil.copy(made / "registry.sqlite", folder)
    return Registry(uri_of("sqlite", folder))


def second_iris(folder: Path) -> Any:
    """A model of iris items that is sure of the first class, whatever the item is."""
    folder.joinpath("second").mkdir()
    nodes = [
        helper.make_node("MatMul", ["values", "zeros"], ["nothing"]),
        helper.make_node("Add", ["nothing", "first"], ["probabilities"]),
    ]
    constants = {"zeros": np.zeros((4, 3), np.float32), "first": np.array([1, 0, 0], np.float32)}
    return onnx.load(write_table_model(folder / "second", nodes, constants=constants).model_filepath)


def weighty(location: str | None = None) -> Any:
    """A model of the sums of an item, weighted in 500 ways.

    Args:
        location: A file that it says its weights are in; None: in itself.
    """
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 4])
    sums = helper.make_tensor_value_info("sums", TensorProto.FLOAT, [None, 500])
    weights = numpy_helper.from_array(WEIGHTS, "weights")
    if location is not None:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
    graph = helper.make_graph([helper.make_node("MatMul", ["values", "weights"], ["sums"])], "test", [values], [sums])
    graph.initializer.append(weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sha256_of(version: int) -> str:
    """The SHA-256 of a version of the model `iris`, read where MLflow keeps it."""
    from mlflow import MlflowClient, artifacts

    uri = MlflowClient().get_model_version_download_uri("iris", str(version))
    return hashlib.sha256(Path(artifacts.download_artifacts(f"{uri}/model.onnx")).read_bytes()).hexdigest()


def files_of(folder: Path) -> list[Path]:
    """All files beneath a folder."""
    return sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)
