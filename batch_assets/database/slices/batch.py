"""A bounded number of rows, and what could not be made a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class FailedRow(NamedTuple):
    """A row of which nothing could be made: its key, the values that were read, a code and what is wrong."""

    key: int
    values: str | bytes | None
    code: str
    message: str


@dataclass(frozen=True)
class Batch:
    """A bounded number of rows.

    Args:
        columns: The names of the columns.
        rows: A sequence of values in the order of `columns` for each row.
        failed: What could not be made a row.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    failed: Sequence[FailedRow] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[Any]:
        """Returns the values of one column."""
        position = self.columns.index(name)
        return [row[position] for row in self.rows]
