"""Trains the two models, and fills their tables as a web service would, over the hours that have just closed.

    python prepare.py [--hours 48]

The data sets are those that come with scikit-learn. The database is that of MYSQL_SERVER, or the embedded one.
"""

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.iris.training import iris_items
from batch_assets.pipeline import ITEM_TABLE
from batch_assets.settings.database import database_settings
from batch_assets.settings.environment import environment

MODELS = Path("models")
TEXTS = ("sex",)
PATIENTS = (
    "CREATE TABLE IF NOT EXISTS patients (id INTEGER PRIMARY KEY, measurements JSON NOT NULL, "
    "created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, progression DOUBLE)"
)
BIOPSIES = (
    "CREATE TABLE IF NOT EXISTS biopsies (id INTEGER PRIMARY KEY, radius DOUBLE, texture DOUBLE, smoothness DOUBLE, "
    "created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, diagnosis VARCHAR(20), certainty DOUBLE)"
)


def patients() -> tuple[pd.DataFrame, "pd.Series[float]"]:
    """Returns what is known of each patient, and how the disease went on."""
    known = load_diabetes(as_frame=True, scaled=False)
    # The data set does not say which is which.
    sex = known.data["sex"].map({1.0: "one", 2.0: "two"})
    return known.data[["age", "bmi", "bp"]].assign(sex=sex)[["age", "sex", "bmi", "bp"]], known.target


def biopsies() -> tuple[pd.DataFrame, "pd.Series[str]"]:
    """Returns what was measured of each tumour, and what it was."""
    known = load_breast_cancer(as_frame=True)
    measured = known.data[["mean radius", "mean texture", "mean smoothness"]]
    kinds = pd.Series(known.target_names[known.target])
    return measured.set_axis(["radius", "texture", "smoothness"], axis="columns"), kinds


def diabetes_model() -> Any:
    """Returns the fitted regression."""
    rows, target = patients()
    numbers = [name for name in rows if name not in TEXTS]
    preprocessing = ColumnTransformer([("numbers", StandardScaler(), numbers), ("texts", OneHotEncoder(), [*TEXTS])])
    return make_pipeline(preprocessing, Ridge()).fit(rows, target)


def breast_cancer_model() -> Any:
    """Returns the fitted classifier."""
    rows, target = biopsies()
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows.to_numpy(), target)


def write_models() -> None:
    """Exports both models: the one with an input for each feature, the other with a matrix."""
    MODELS.mkdir(exist_ok=True)
    inputs = [
        (name, StringTensorType([None, 1]) if name in TEXTS else FloatTensorType([None, 1])) for name in patients()[0]
    ]
    for name, model, initial_types in (
        ("diabetes", diabetes_model(), inputs),
        ("breast_cancer", breast_cancer_model(), [("measured", FloatTensorType([None, 3]))]),
    ):
        onnx = convert_sklearn(model, initial_types=initial_types)
        (MODELS / f"{name}.onnx").write_bytes(onnx.SerializeToString())


def fill_tables(hours: int) -> None:
    """Inserts the rows, and as many irises as there are patients."""
    engine = engine_for(database_settings(environment()))
    initialize_database(engine, item_table(ITEM_TABLE))
    rows, measured = patients()[0], biopsies()[0]
    records: list[dict[str, object]] = [{"measurements": json.dumps(row)} for row in rows.to_dict("records")]
    columns: list[dict[str, object]] = [
        {str(name): value for name, value in row.items()} for row in measured.to_dict("records")
    ]
    irises: list[dict[str, object]] = [{"values": json.dumps(values)} for values in iris_items(len(rows), seed=1)]
    with engine.begin() as connection:
        for statement in (PATIENTS, BIOPSIES):
            connection.exec_driver_sql(statement)
        for table, created, given in (
            ("patients", "created_at", records),
            ("biopsies", "created_at", columns),
            ("items", "created_datetime", irises),
        ):
            for number, row in enumerate(given, 1):
                row |= {"id": number, created: str(_moment(number, len(given), hours))}
            connection.execute(sa.insert(sa.table(table, *map(sa.column, given[0]))), given)


def _moment(number: int, count: int, hours: int) -> datetime.datetime:
    end = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0, tzinfo=None)
    return end - datetime.timedelta(seconds=(count - number + 1) * hours * 3600 // (count + 1))


def main() -> None:
    """Does both."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--hours", type=int, default=48, help="over how many hours the rows are spread")
    hours = arguments.parse_args().hours
    write_models()
    fill_tables(hours)


if __name__ == "__main__":
    main()
