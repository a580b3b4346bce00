"""Rows on their way: what an asset gets and gives when it does not want the whole slice in memory."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from batch_assets.database.slices.batch import Batch
from batch_assets.errors import TableError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Batches:
    """A slice of a table as a stream of batches, read or made one at a time.

    An asset that annotates an input with it gets the slice lazily; an asset that returns one has it stored
    batch by batch. Iterate over it for `Batch` objects or over `frames()` for pandas DataFrames.

    Args:
        source: The batches, as `Batch` objects or DataFrames, or a function without arguments that gives
            them, so that they can be read more than once.
        dtypes: The pandas type of each column, for `frames()`.
        in_transaction: Called after each batch is written, in the transaction that writes it, for what must
            be stored together with it or not at all. With `update_columns`, by another thread than the one that makes
            the batches.
        metadata: Called after the last batch, for what is then known about all of them.
        scope: Entered before the first batch is read and left after the last one is written: a lock, for example.
        before_write: With `update_columns`: called with the number of rows before a transaction is begun that writes
            them, to have it wait.
        after_write: With `update_columns`: called with the seconds of each transaction when it has ended, be it by a
            fault; by another thread than the one that makes the batches.
        at_once: With `update_columns`: readers see the old values of all rows until they see the new ones of all.
        select: Gives the same slice with a further condition in SQL, or one partition of it.
    """

    source: "Iterable[Batch | pd.DataFrame] | Callable[[], Iterable[Batch | pd.DataFrame]]"
    dtypes: Mapping[str, str] = field(default_factory=dict)
    in_transaction: Callable[[sa.Connection, Batch], None] | None = None
    metadata: Callable[[], Mapping[str, Any]] | None = None
    scope: Callable[[], AbstractContextManager[object]] = nullcontext
    before_write: Callable[[int], None] | None = None
    after_write: Callable[[float], None] | None = None
    at_once: bool = False
    select: "Callable[[str | None, str | None], Batches] | None" = None

    def where(self, condition: str) -> "Batches":
        """Returns the rows of a slice that was loaded for which a condition in SQL holds; read when they are used."""
        return self._select(None, condition)

    def of_partition(self, key: str) -> "Batches":
        """Returns the rows of one of the partitions that were loaded; read when they are used."""
        return self._select(key, None)

    def _select(self, key: str | None, condition: str | None) -> "Batches":
        if self.select is None:
            raise TableError("Only Batches that an asset was given can be select: filter the rows of your own.")
        return self.select(key, condition)

    def __iter__(self) -> Generator[Batch]:
        source = self.source() if callable(self.source) else self.source
        try:
            for batch in source:
                yield batch if isinstance(batch, Batch) else _batch_of(batch)
        finally:
            # Whatever happens: it holds a connection, which a traceback would keep open.
            if isinstance(source, Generator):
                source.close()

    def frames(self) -> "Generator[pd.DataFrame]":
        """Yields the batches as DataFrames, each column of the same type in every one of them."""
        from batch_assets.database.slices.frames import frame_of  # noqa: PLC0415 - imports pandas

        with closing(iter(self)) as batches:
            for batch in batches:
                yield frame_of(batch.columns, batch.rows, self.dtypes)


@dataclass(frozen=True)
class BatchesByPartition:
    """The partitions of a run, each stored by itself and recorded as materialised the moment that it is.

    One that cannot be stored does not keep the others from it: the step fails after the last one.

    Args:
        parts: The key of each partition and its rows, made when it is its turn.
        on_failure: Called with the keys of those that are stored, before the step fails for the others.
    """

    parts: Iterable[tuple[str, Batches]]
    on_failure: Callable[[Sequence[str]], None] | None = None


def is_frame(kind: Any) -> bool:
    """Whether a type is pandas' DataFrame, asked without importing pandas."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.startswith("pandas") for base in getattr(kind, "__mro__", ())
    )


def _batch_of(batch: Any) -> Batch:
    if not is_frame(type(batch)):
        raise TableError(
            f"A batch is {type(batch).__name__}, which cannot be stored in a table: make it a Batch or a pandas "
            "DataFrame."
        )
    from batch_assets.database.slices.frames import batch_of  # noqa: PLC0415 - imports pandas, which batches do without

    return batch_of(batch)
