"""Trains the iris model and exports it to ONNX: the model that the pipeline comes with."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.errors import ModelError

MODEL_NAME = "iris_svc"
LARGEST_DIFFERENCE_ALLOWED = 1e-5
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NOISE_CENTIMETRES = 0.1
SMALLEST_CENTIMETRES = 0.1

# Fixed, so that a newer skl2onnx still writes what older releases of ONNX Runtime load.
TARGET_OPSET = {"": 17, "ai.onnx.ml": 3}


@dataclass(frozen=True)
class TrainingReport:
    """What a training came to.

    Attributes:
        version: SHA-256 of the ONNX file, in hexadecimal.
        rows: How many measurements the model was fitted on.
        accuracy: Share of right labels, cross-validated.
        log_loss: Logarithmic loss of the probabilities, cross-validated.
        largest_difference: Largest difference of a probability between ONNX Runtime and scikit-learn.
        model_filepath: The ONNX file.
        label_filepath: The labels.
        sample_data_path: One item per class.
        description_filepath: Version, metrics and distribution of the training data.
    """

    version: str
    rows: int
    accuracy: float
    log_loss: float
    largest_difference: float
    model_filepath: Path
    label_filepath: Path
    sample_data_path: Path
    description_filepath: Path


@dataclass(frozen=True)
class _Iris:
    measurements: NDArray[np.float64]
    classes: NDArray[np.int64]
    features: list[str]
    labels: list[str]


def train_iris_model(folder: Path) -> TrainingReport:
    """Trains on all 150 irises and write the model, its labels, its sample and its description.

    The metrics are those of a five-fold cross validation; the model that is written is fitted on all rows.
    The same libraries on the same machine write the same bytes every time.

    Args:
        folder: Where `iris_svc.onnx`, `label.json`, `sample.json` and `iris_svc.json` go. Made when missing.

    Raises:
        ModelError: ONNX Runtime and scikit-learn disagree about the model, or the folder cannot be written
            to. In the first case nothing is written.
    """
    iris = _load_iris()
    metrics = _cross_validate(iris)
    classifier = iris_classifier()
    onnx_bytes = _to_onnx(classifier)
    difference = _largest_difference(onnx_bytes, classifier, iris.measurements)
    version = hashlib.sha256(onnx_bytes).hexdigest()
    files = {
        "label.json": _to_json({str(index): label for index, label in enumerate(iris.labels)}),
        "sample.json": _to_json(_one_item_per_class(iris), indent=None),
        f"{MODEL_NAME}.json": _to_json(_describe(iris, version, metrics)),
        f"{MODEL_NAME}.onnx": onnx_bytes,
    }
    _write_all(folder, files)
    return TrainingReport(
        version=version,
        rows=len(iris.measurements),
        largest_difference=difference,
        model_filepath=folder / f"{MODEL_NAME}.onnx",
        label_filepath=folder / "label.json",
        sample_data_path=folder / "sample.json",
        description_filepath=folder / f"{MODEL_NAME}.json",
        **metrics,
    )


def iris_classifier() -> Any:
    """Returns the scikit-learn pipeline of the iris model, fitted on all rows."""
    iris = _load_iris()
    return _unfitted_classifier().fit(iris.measurements, iris.classes)


def training_items() -> list[str]:
    """Returns the items that the model is fitted on, each as the JSON of its values."""
    return [json.dumps(values) for values in _load_iris().measurements.tolist()]


def iris_items(count: int, seed: int) -> list[list[float]]:
    """Makes items that look like irises: real measurements with a little noise.

    Args:
        count: How many items.
        seed: The same seed gives the same items.

    Returns:
        Lists of four lengths in centimetres, to one decimal like the originals, at least 0.1.
    """
    random = np.random.default_rng(seed)
    measurements = _load_iris().measurements
    chosen = measurements[random.integers(len(measurements), size=count)]
    noisy = (chosen + random.normal(0.0, NOISE_CENTIMETRES, chosen.shape)).round(1)
    items: list[list[float]] = np.maximum(noisy, SMALLEST_CENTIMETRES).tolist()
    return items


def _load_iris() -> _Iris:
    from sklearn.datasets import load_iris  # noqa: PLC0415 - heavy: only who trains pays for it

    data = load_iris()
    features = [name.removesuffix(" (cm)").replace(" ", "_") + "_cm" for name in data.feature_names]
    return _Iris(data.data, data.target, features, [str(label) for label in data.target_names])


def _unfitted_classifier() -> Any:
    from sklearn.calibration import CalibratedClassifierCV  # noqa: PLC0415 - as above
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    calibrated = CalibratedClassifierCV(SVC(random_state=0), ensemble=False, cv=folds)
    return make_pipeline(StandardScaler(), calibrated)


def _cross_validate(iris: _Iris) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, log_loss  # noqa: PLC0415 - as above
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(
        _unfitted_classifier(), iris.measurements, iris.classes, cv=folds, method="predict_proba"
    )
    return {
        "accuracy": float(accuracy_score(iris.classes, probabilities.argmax(axis=1))),
        "log_loss": float(log_loss(iris.classes, probabilities)),
    }


def _to_onnx(classifier: Any) -> bytes:
    from skl2onnx import convert_sklearn  # noqa: PLC0415 - as above
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    with warnings.catch_warnings():
        # skl2onnx looks at two attributes that scikit-learn takes away in 1.11; here they are empty.
        warnings.filterwarnings("ignore", "Attribute `prob[AB]_` was deprecated", FutureWarning)
        model = convert_sklearn(
            classifier,
            name=MODEL_NAME,  # without a name skl2onnx makes one up, and no two files are the same
            initial_types=[("values", FloatTensorType([None, 4]))],
            options={"zipmap": False},
            target_opset=TARGET_OPSET,
        )
    serialized: bytes = model.SerializeToString()
    return serialized


def _largest_difference(onnx_bytes: bytes, classifier: Any, measurements: NDArray[np.float64]) -> float:
    """Compare ONNX Runtime with scikit-learn on all rows; raise when they disagree."""
    import onnxruntime  # noqa: PLC0415 - as above

    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    (table,) = session.run(["probabilities"], {"values": measurements.astype(np.float32)})
    difference = float(np.abs(table - classifier.predict_proba(measurements)).max())
    if not difference <= LARGEST_DIFFERENCE_ALLOWED:
        raise ModelError(
            f"The exported model {MODEL_NAME}.onnx and scikit-learn differ by {difference:.2g} in a "
            f"probability, more than {LARGEST_DIFFERENCE_ALLOWED}. Nothing was written. Try the "
            "releases of scikit-learn and skl2onnx that iris_svc.json names under trained_with."
        )
    return difference


def _one_item_per_class(iris: _Iris) -> list[list[float]]:
    first_rows = [int(np.argmax(iris.classes == index)) for index in range(len(iris.labels))]
    items: list[list[float]] = iris.measurements[first_rows].tolist()
    return items


def _describe(iris: _Iris, version: str, metrics: dict[str, float]) -> dict[str, Any]:
    return {
        "version": version,
        "features": iris.features,
        "labels": iris.labels,
        "metrics": metrics,
        "training_distribution": {
            feature: _distribution(iris.measurements[:, column]) for column, feature in enumerate(iris.features)
        },
        "trained_with": {package: installed_version(package) for package in ("scikit-learn", "skl2onnx")},
    }


def _distribution(column: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "mean": float(column.mean()),
        "std": float(column.std()),
        "min": float(column.min()),
        "max": float(column.max()),
        "quantiles": {str(quantile): float(np.quantile(column, quantile)) for quantile in QUANTILES},
    }


def _to_json(document: Any, indent: int | None = 2) -> bytes:
    return (json.dumps(document, indent=indent, allow_nan=False) + "\n").encode()


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    """Write every file beside its place first, so that a full disk leaves the old model whole."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder, files) as written:
            for temporary, path in written:
                os.replace(temporary, path)
    except OSError as error:
        raise ModelError(
            f"Cannot write the iris model into {folder}: {error.strerror}. "
            "Make the folder writable for this process, or train into another one."
        ) from None


@contextmanager
def _temporary(folder: Path, files: dict[str, bytes]) -> Iterator[list[tuple[Path, Path]]]:
    """Give the files under temporary names, each with the name it is meant for; remove what stays behind."""
    pairs = [(folder / f".{name}.{os.getpid()}", folder / name) for name in files]
    try:
        for (temporary, _), content in zip(pairs, files.values(), strict=True):
            temporary.write_bytes(content)
        yield pairs
    finally:
        for temporary, _ in pairs:
            temporary.unlink(missing_ok=True)
