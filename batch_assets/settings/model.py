"""Where the model is, as the environment says it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from batch_assets.errors import SettingsError
from batch_assets.settings.environment import number
from batch_assets.settings.folders import model_folder

REGISTERED_FORMS = "models:/NAME@ALIAS or models:/NAME/VERSION"
_REGISTERED = re.compile(r"models:/(?P<name>[^/:]+)(?:@(?P<alias>[^/:@]+)|/(?P<version>[0-9]+))")


@dataclass(frozen=True)
class ModelFiles:
    """Where the model lies.

    Attributes:
        model_filepath: The ONNX file.
        label_filepath: JSON object of class index to label: `{"0": "setosa", ...}`. None: the model names its classes
            itself, or it has none.
        sample_data_path: JSON list of the values of a few items that the model must be able to score. None:
            the first items of an hour serve as the sample.
        sha256: The version that the file must be; None if it may be any.
    """

    model_filepath: Path
    label_filepath: Path | None
    sample_data_path: Path | None
    sha256: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Reads MODEL_FILEPATH, LABEL_FILEPATH and SAMPLE_DATA_PATH; unset or empty means the iris model.

        The sample of the iris model says nothing about another model: with a MODEL_FILEPATH of one's own and
        no SAMPLE_DATA_PATH there is no sample.
        """
        folder = model_folder(environ)
        model = Path(environ.get("MODEL_FILEPATH") or folder / "iris_svc.onnx")
        label = Path(environ.get("LABEL_FILEPATH") or folder / "label.json")
        sample: Path | None = folder / "sample.json"
        if environ.get("SAMPLE_DATA_PATH"):
            sample = Path(environ["SAMPLE_DATA_PATH"])
        elif model.resolve() != (folder / "iris_svc.onnx").resolve():
            sample = None
        return cls(model, label, sample)


@dataclass(frozen=True)
class RegisteredModel:
    """A model of an MLflow registry. Which registry that is, MLflow's own variables say.

    Attributes:
        name: The registered model.
        version: The version of it; None for the one that the alias names.
        alias: Names a version, now this one and then another.
        label_filepath: As of `ModelFiles`.
        sample_data_path: As of `ModelFiles`.
        sha256: As of `ModelFiles`.
    """

    name: str
    version: int | None
    alias: str | None
    label_filepath: Path | None = None
    sample_data_path: Path | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        """The model as MLflow writes it: `models:/churn@champion` or `models:/churn/3`."""
        return f"models:/{self.name}/{self.version}" if self.alias is None else f"models:/{self.name}@{self.alias}"

    def of_version(self, version: int) -> Self:
        """Returns a version of the same model, which no alias can move."""
        return replace(self, version=version, alias=None)


# Where the model of a pipeline is.
ModelSource = ModelFiles | RegisteredModel


# Of an hour, unless BATCH_CHALLENGER_ITEMS says otherwise: shares of 1,000 are known to some 3 percent.
CHALLENGER_ITEMS = 1_000


@dataclass(frozen=True)
class Challenger:
    """A second model, which answers a sample of the items beside the one in force, and publishes nothing.

    Attributes:
        model: Its files, or a model of a registry.
        items: So many items of each hour it answers at the most.
    """

    model: ModelSource
    items: int = CHALLENGER_ITEMS


def is_registered(text: str) -> bool:
    """Returns whether a text names a model of a registry, or tries to, and not a file."""
    return text.startswith("models:")


def registered_model(text: str, label_filepath: Path | None, sample_data_path: Path | None) -> RegisteredModel:
    """Returns the model of a registry that a text names.

    Args:
        text: `models:/churn@champion` or `models:/churn/3`.
        label_filepath: Its labels, if it does not name its classes.
        sample_data_path: What to try it with.

    Raises:
        SettingsError: The text is neither.
    """
    found = _REGISTERED.fullmatch(text)
    if found is None:
        raise SettingsError(f"The model {text!r} names no version of a registered model: write {REGISTERED_FORMS}.")
    version = found["version"]
    return RegisteredModel(
        found["name"], None if version is None else int(version), found["alias"], label_filepath, sample_data_path
    )


def model_text(source: ModelSource, folder: Path) -> str:
    """Returns what names a model, the same on every machine that has the folder, wherever that is.

    Args:
        source: The model.
        folder: That of the project.
    """
    return str(source) if isinstance(source, RegisteredModel) else path_text(source.model_filepath, folder)


def path_text(path: Path, folder: Path) -> str:
    """Returns a path as it is written from a folder, if it lies in that, else from the root of the disk.

    Args:
        path: The path.
        folder: The folder; the empty path if it is none in particular: a path is then left as somebody has written it.
    """
    if not folder.is_absolute():
        return str(path)
    absolute = path.absolute()
    return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)


def model_of_text(text: str, label_filepath: Path | None, sample_data_path: Path | None, folder: Path) -> ModelSource:
    """Returns the model that a text names, which `model_text` has written or somebody into a declaration.

    Args:
        text: A path, or a model of a registry.
        label_filepath: Its labels, if it does not name its classes.
        sample_data_path: What to try it with.
        folder: That of the project, from which a path is written.

    Raises:
        SettingsError: The text names no version of a registered model.
    """
    if is_registered(text):
        return registered_model(text, label_filepath, sample_data_path)
    return ModelFiles(folder / text, label_filepath, sample_data_path)


def model_from_environment(environ: Mapping[str, str]) -> ModelSource:
    """Reads MODEL_FILEPATH, LABEL_FILEPATH and SAMPLE_DATA_PATH.

    The labels and the sample of the iris model say nothing about a registered one.

    Raises:
        SettingsError: MODEL_FILEPATH names no version of a registered model, and no file.
    """
    text = environ.get("MODEL_FILEPATH", "")
    if not is_registered(text):
        return ModelFiles.from_environment(environ)
    labels, sample = environ.get("LABEL_FILEPATH"), environ.get("SAMPLE_DATA_PATH")
    return registered_model(text, Path(labels) if labels else None, Path(sample) if sample else None)


def challenger_from_environment(environ: Mapping[str, str]) -> ModelSource | None:
    """Reads CHALLENGER_FILEPATH and CHALLENGER_LABEL_FILEPATH; None if no challenger is named.

    Raises:
        SettingsError: CHALLENGER_FILEPATH names no version of a registered model, and no file.
    """
    text, labels = environ.get("CHALLENGER_FILEPATH"), environ.get("CHALLENGER_LABEL_FILEPATH")
    if not text:
        return None
    label_filepath = Path(labels) if labels else None
    if is_registered(text):
        return registered_model(text, label_filepath, None)
    return ModelFiles(Path(text), label_filepath, None)


def challenger_items(environ: Mapping[str, str]) -> int:
    """Reads BATCH_CHALLENGER_ITEMS: how many items of each hour a challenger answers at the most.

    Raises:
        SettingsError: It is no whole number of 1 or more.
    """
    return int(number(environ, "BATCH_CHALLENGER_ITEMS", 1, CHALLENGER_ITEMS))
