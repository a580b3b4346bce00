"""One server for all workers of pytest-xdist: the process that started them starts it when the first one asks.

That process lives longest, so the server ends when the last test has ended, and its watchdog sees to it otherwise.
"""

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Listener

from batch_assets_tests.support.servers import Server

# It may have to be installed first.
SECONDS = 900

# Where the process answers, and the key to it.
Address = tuple[str, bytes]


@contextlib.contextmanager
def answering_workers(start: Callable[[], Server]) -> Iterator[Address]:
    """Answers workers who ask for the server, one after the other: the first one's question starts it.

    Args:
        start: Starts the server, unless it runs already.
    """
    key = secrets.token_bytes(16)
    with Listener(authkey=key) as listener:
        threading.Thread(target=_answer, args=(listener, start), daemon=True).start()
        assert isinstance(listener.address, str)
        yield listener.address, key


def _answer(listener: Listener, start: Callable[[], Server]) -> None:
    while True:
        try:
            connection = listener.accept()
        except OSError:  # closed: the run is over
            return
        with connection, contextlib.suppress(BrokenPipeError):
            try:
                connection.send(start())
            except (OSError, RuntimeError) as fault:
                connection.send(fault)


def server_of_run(address: Address) -> Server:
    """Returns the server that all workers share.

    Raises:
        MissingProgramError: There is none to be had.
        RuntimeError: It could not be started, or has not been within a quarter of an hour.
    """
    where, key = address
    with Client(where, authkey=key) as connection:
        if not connection.poll(SECONDS):
            raise RuntimeError(f"the server for this run of the tests has not been started within {SECONDS} s")
        answer = connection.recv()
    if isinstance(answer, Server):
        return answer
    raise answer
