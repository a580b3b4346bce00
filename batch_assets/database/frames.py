"""Rows as pandas DataFrames and back. The types come from the table, never from the rows."""

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from batch_assets.database.batches import Batch
from batch_assets.errors import TableError


def frame_of(columns: Sequence[str], rows: Iterable[Sequence[Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Makes a DataFrame of rows.

    Args:
        columns: The names of the columns.
        rows: A sequence of values in the order of `columns` for each row.
        dtypes: The pandas type of each column.
    """
    values = list(zip(*rows, strict=True)) or [() for _ in columns]
    return pd.DataFrame(
        {name: _series(column, dtypes.get(name, "object")) for name, column in zip(columns, values, strict=True)},
        columns=list(columns),
    )


def _series(values: Sequence[Any], dtype: str) -> "pd.Series[Any]":
    if dtype == "datetime64[us]":
        return pd.to_datetime(pd.Series(values, dtype=object)).astype("datetime64[us]")
    return pd.Series(values, dtype=dtype)


def batch_of(frame: pd.DataFrame) -> Batch:
    """Makes a batch of a DataFrame; its index is left out.

    NaN, NaT and NA become NULL, times with a zone UTC, lists and dictionaries JSON.

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
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    missing = series.isna().tolist()
    return [
        None if absent else _plain_value(value)
        for value, absent in zip(series.astype(object).tolist(), missing, strict=True)
    ]


def _plain_value(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)
    if isinstance(value, datetime.datetime) and value.tzinfo:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    return value
