"""Customers with an age, a plan, what they have spent and whether they are active; and scikit-learn models of them."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batch_assets.settings.items import Feature
from batch_assets.settings.model import ModelFiles

FEATURES = tuple(map(Feature, ("age", "plan", "spent", "active")))
PLANS = ("basic", "silver", "gold")
TARGET_OPSET = {"": 17, "ai.onnx.ml": 3}


def customers(count: int, seed: int = 0) -> pd.DataFrame:
    """Makes customers; every number is a float32, so that both types of model get the same."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": random.integers(18, 90, count),
            "plan": random.choice(PLANS, count),
            "spent": random.gamma(2, 50, count).astype(np.float32).astype(np.float64),
            "active": random.random(count) < 0.7,
        }
    )


def as_objects(rows: pd.DataFrame) -> list[str]:
    """Writes each row as an item by name."""
    return [json.dumps(row) for row in rows.to_dict("records")]


def as_lists(rows: pd.DataFrame) -> list[str]:
    """Writes each row as an item in the order of the columns, booleans as a database hands them over."""
    return [
        json.dumps([int(value) if value is True or value is False else value for value in row])
        for row in rows.to_numpy(dtype=object).tolist()
    ]


def risks(rows: pd.DataFrame) -> np.ndarray:
    """Says of each customer how likely it is that they leave: "high", "low" or "middle"."""
    score = rows["age"] / 10 + rows["plan"].map({"basic": 3, "silver": 1, "gold": 0}) - rows["spent"] / 50
    return np.select([score > 6, score > 4], ["high", "middle"], "low")


def fitted(estimator: Any, target: Any, rows: int = 500) -> Any:
    """Fits a pipeline of preprocessing by column and an estimator.

    Args:
        estimator: The last step.
        target: Returns what is to be predicted of customers.
        rows: How many customers there are to learn from.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    preprocessing = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["age", "spent"]),
            ("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
            ("active", "passthrough", ["active"]),
        ]
    )
    known = customers(rows, seed=1)
    return make_pipeline(preprocessing, estimator).fit(known, target(known))


def write_customer_model(folder: Path, pipeline: Any, *, zipmap: bool | None = None) -> ModelFiles:
    """Exports a fitted pipeline with an input for each column, and no file of labels.

    Args:
        folder: Where `model.onnx` goes.
        pipeline: The pipeline.
        zipmap: Of a classifier: whether the probabilities are a dictionary by class.
    """
    from skl2onnx.common.data_types import (
        BooleanTensorType,
        FloatTensorType,
        Int64TensorType,
        StringTensorType,
    )

    types = (Int64TensorType, StringTensorType, FloatTensorType, BooleanTensorType)
    initial_types = [(feature.name, kind([None, 1])) for feature, kind in zip(FEATURES, types, strict=True)]
    return write_exported(folder, pipeline, initial_types, zipmap=zipmap)


def write_exported(
    folder: Path, estimator: Any, initial_types: list[tuple[str, Any]], *, zipmap: bool | None = None
) -> ModelFiles:
    """Exports a fitted estimator of any kind, and no file of labels."""
    from skl2onnx import convert_sklearn

    options = {} if zipmap is None else {"options": {"zipmap": zipmap}}
    with warnings.catch_warnings():
        # skl2onnx looks at two attributes that scikit-learn takes away in 1.11.
        warnings.filterwarnings("ignore", "Attribute `prob[AB]_` was deprecated", FutureWarning)
        model = convert_sklearn(estimator, initial_types=initial_types, target_opset=TARGET_OPSET, **options)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return ModelFiles(folder / "model.onnx", None, None)
