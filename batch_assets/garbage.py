"""The collector of garbage, kept from looking again and again at what stays."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Not asked of the collector, which counts what it leaves alone, one by one: 20 ms.
_imports_are_frozen = threading.Event()


def freeze_imports() -> None:
    """Has the collector leave alone for good what is there: what was imported lives as long as the process.

    A full collection would look through all of it again, for a fifth of a second, and the loading of a project and each
    run have several.
    """
    gc.freeze()
    _imports_are_frozen.set()


@contextmanager
def collecting_what_is_new() -> Iterator[None]:
    """Has the collector leave alone what was there before.

    A batch makes so many short-lived lists that it would look at everything else, all that was imported, for each.
    """
    gc.freeze()
    try:
        yield
    finally:
        # What was frozen for good is not to be looked at again.
        if not _imports_are_frozen.is_set():
            gc.unfreeze()
