"""Where the files of the model are, as the environment says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from batch_assets.settings.folders import model_folder


@dataclass(frozen=True)
class ModelFiles:
    """Where the model lies.

    Attributes:
        model_filepath: The ONNX file.
        label_filepath: JSON object of class index to label: `{"0": "setosa", ...}`. None: the model names its classes
            itself, or it has none.
        sample_data_path: JSON list of the values of a few items that the model must be able to score. None:
            the first items of an hour serve as the sample.
    """

    model_filepath: Path
    label_filepath: Path | None
    sample_data_path: Path | None

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
