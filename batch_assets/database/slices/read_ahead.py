"""Reading the next batch while the last one is looked at."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches


def read_ahead(batches: Batches) -> Generator[Batch]:
    """Yields batches, each of which a thread of its own has read while the one before was looked at.

    For those who look at them as long as the server takes to hand them over. One batch more is in memory.

    Args:
        batches: The slice, which is read once.
    """
    source = iter(batches)
    with ThreadPoolExecutor(1, "reader") as executor:
        following = executor.submit(_next, source)
        try:
            while (batch := following.result()) is not None:
                following = executor.submit(_next, source)
                yield batch
        finally:
            # By the same thread, after what it is at: two cannot use a connection at once.
            executor.submit(source.close).result()


def _next(source: Iterator[Batch]) -> Batch | None:
    return next(source, None)
