"""Rows as pandas DataFrames and back. The types come from the table, never from the rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from batch_assets.database.slices.batch import Batch
from batch_assets.errors import TableError


def frame_of(columns: Sequence[str], rows: Iterable[Sequence[Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Makes a DataFrame of rows.

    Args:
        columns: The names of the columns.
        rows: A sequence of values in the order of `columns` for each row.
        dtypes: The pandas type of each column.

    Raises:
        TableError: A value does not fit the type of its column.
    """
    values = list(zip(*rows, strict=True)) or [() for _ in columns]
    return pd.DataFrame(
        {name: _series(name, column, dtypes.get(name, "object")) for name, column in zip(columns, values, strict=True)},
        columns=list(columns),
    )


def _series(name: str, values: Sequence[Any], dtype: str) -> "pd.Series[Any]":
    try:
        if dtype == "datetime64[us]":  # by way of numpy: pandas would parse each, and not before 1677
            return pd.Series(np.array(values, dtype=dtype))
        if dtype == "bool":  # pandas itself would take a 2 for true
            return pd.Series(values, dtype="boolean").astype("bool")
        return pd.Series(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise TableError(
            f"The column {name} cannot be loaded as {dtype}, which is what its type in the table says ({error}): "
            "fix the rows or the type of the column."
        ) from error


def batch_of(frame: pd.DataFrame) -> Batch:
    """Makes a batch of a DataFrame; its index is left out, and NaN, NaT and NA become NULL.

    Raises:
        TableError: A column stands in the DataFrame twice.
    """
    columns = tuple(str(name) for name in frame.columns)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise TableError(f"The DataFrame has the column {', '.join(twice)} twice: rename or drop one of them.")
    # Column by column: as one block of objects, pandas would turn whole numbers beside fractions into those.
    values = [_plain(frame.iloc[:, position]) for position in range(len(columns))]
    return Batch(columns, list(zip(*values, strict=True)))


def _plain(series: "pd.Series[Any]") -> list[Any]:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "M":
        times: list[Any] = series.to_numpy().astype("datetime64[us]").tolist()
        return times
    missing = series.isna().tolist()
    return [
        None if absent else value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
        for value, absent in zip(series.astype(object).tolist(), missing, strict=True)
    ]
