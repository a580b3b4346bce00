"""Reads a file of what came true: CSV with a header, or JSON Lines in; id, label and number of each item out."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from batch_assets.errors import ActualError

_COLUMNS = "item_id and label, or item_id and value"


def read_actuals(stream: BinaryIO, name: str) -> Iterator[tuple[int, str | None, float | None]]:
    """Yields what came true of each item: its id, its label or None, and its number or None.

    Args:
        stream: UTF-8, either CSV with the columns `item_id` and `label` or `value`, or an object with these on each
            line.
        name: What the file is called in errors.

    Raises:
        ActualError: A line cannot be read.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        for line, row in _rows(text):
            yield _actual(row, f"{name}, line {line}")
    except UnicodeDecodeError:
        raise ActualError(f"{name} is not UTF-8: save it as that. Nothing was stored.") from None
    except csv.Error as error:
        raise ActualError(f"{name} is not CSV ({error}): fix it. Nothing was stored.") from None
    finally:
        text.detach()


def _rows(text: io.TextIOWrapper) -> Iterator[tuple[int, Mapping[str, object]]]:
    first = text.readline()
    if first.lstrip().startswith("{"):
        for number, line in enumerate([first, *text], start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                yield number, row if isinstance(row, dict) else {}
        return
    columns = next(csv.reader([first]), [])
    reader = csv.DictReader(text, [column.strip() for column in columns])
    for row in reader:
        yield reader.line_num + 1, {str(key): value for key, value in row.items()}


def _actual(row: Mapping[str, object], place: str) -> tuple[int, str | None, float | None]:
    given = {key for key in ("item_id", "label", "value") if row.get(key) not in (None, "")}
    if given not in ({"item_id", "label"}, {"item_id", "value"}):
        raise ActualError(f"{place} does not have {_COLUMNS}. Nothing was stored: fix it and store the file again.")
    try:
        item_id = int(str(row["item_id"]))
        value = float(str(row["value"])) if "value" in given else None
    except ValueError:
        item_id, value = 0, math.nan
    if value is not None and not math.isfinite(value):
        raise ActualError(
            f"{place}: item_id must be a whole number and value a finite one, and they are {row.get('item_id')!r} and "
            f"{row.get('value')!r}. Nothing was stored."
        )
    return item_id, str(row["label"]) if "label" in given else None, value
