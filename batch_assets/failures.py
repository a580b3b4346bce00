"""What becomes of a fault in Dagster: a failed step that opens with the sentence, retried only where it helps."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from batch_assets.errors import BatchAssetsError


@contextmanager
def explained() -> Iterator[None]:
    """Makes a `dg.Failure` of a fault that has a sentence; also a decorator.

    Whether Dagster may retry is the fault's own `transient`. Everything else goes on as the error it is.
    """
    try:
        yield
    except BatchAssetsError as error:
        raise dg.Failure(str(error), metadata={"fault": type(error).__name__}, allow_retries=error.transient) from error
