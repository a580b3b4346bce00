"""What the rivals share: the database, the hour and the model. Nothing of the package, which must not help them."""

import functools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import orjson
import pymysql
import sqlalchemy as sa
from numpy.typing import NDArray

BATCH_ROWS = 10_000
START, END = "2026-11-01 05:00:00", "2026-11-01 06:00:00"
WITHIN_HOUR = f"created_datetime >= '{START}' AND created_datetime < '{END}'"
IN_UTC = "SET time_zone = '+00:00'"


def connect() -> pymysql.Connection:
    """Returns a connection to the database of the MYSQL_ variables."""
    return pymysql.connect(
        host=os.environ["MYSQL_SERVER"],
        port=int(os.environ["MYSQL_PORT"]),
        user=os.environ["MYSQL_USER"],
        password=os.environ["MYSQL_PASSWORD"],
        database=os.environ["MYSQL_DATABASE"],
        charset="utf8mb4",
        init_command=IN_UTC,
    )


def engine() -> sa.Engine:
    """Returns an SQLAlchemy engine of the same database."""
    return sa.create_engine("mysql+pymysql://", creator=connect)


class Scorer:
    """The model as ONNX Runtime runs it.

    Args:
        model_filepath: The ONNX file; that of MODEL_FILEPATH without it.
    """

    def __init__(self, model_filepath: str | None = None) -> None:
        self._session = onnxruntime.InferenceSession(
            model_filepath or os.environ["MODEL_FILEPATH"], providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[-1].name

    def probabilities(self, rows: Sequence[Sequence[float]]) -> NDArray[np.float32]:
        """Returns the class probabilities, a row for each list of values."""
        features = np.array(rows, dtype=np.float32)
        table: NDArray[np.float32] = self._session.run([self._output], {self._input: features})[0]
        return table

    def predictions(self, texts: Sequence[str]) -> list[str]:
        """Returns predictions as JSON for values as JSON, of all of them in batches of 10,000."""
        answers: list[str] = []
        for start in range(0, len(texts), BATCH_ROWS):
            rows = [orjson.loads(text) for text in texts[start : start + BATCH_ROWS]]
            table = self.probabilities(rows)
            answers += [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() for row in table]
        return answers


@functools.cache
def loaded_scorer() -> Scorer:
    """Returns the model of MODEL_FILEPATH, loaded once in a process."""
    return Scorer()


def report(**seconds: Any) -> None:
    """Prints what was measured, as the last line of the program."""
    print(json.dumps(seconds))
