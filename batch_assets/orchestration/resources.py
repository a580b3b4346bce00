"""What the assets are handed: the model."""

import threading

import dagster as dg

from batch_assets.inference.model_files import load_model
from batch_assets.inference.onnx_model import OnnxModel, import_runtime
from batch_assets.settings.inference import InferenceSettings
from batch_assets.settings.items import ItemFormat
from batch_assets.settings.model import ModelSource


class Model(dg.ConfigurableResource[OnnxModel]):
    """How a model is loaded: from files, or from a registry. A resource of your own can take its place."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Begins what loading a model waits for, beside what else the run has to do before."""
        threading.Thread(target=import_runtime, name="import of ONNX Runtime").start()

    def load(self, source: ModelSource, items: ItemFormat, inference: InferenceSettings) -> OnnxModel:
        """Returns the model, checked against its labels and its sample.

        Raises:
            SettingsError: The model is in a registry, and MLflow is missing or no registry is named; or ONNX Runtime
                does not have an execution provider.
            ModelError: A file is missing or unusable, or they do not fit each other.
            RegistryError: The registry does not hand it over.
        """
        return load_model(source, items, inference)
