"""A receiver of alerts: a web server that keeps what it is sent, and can be told to take nothing."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """What a receiver has had.

    Args:
        port: Where it listens.
        messages: Each message that it took, title and body.
        refuses: Whether it answers that it cannot take any.
        on_message: Is called when a message was taken, before the sender knows.
    """

    port: int = 0
    messages: list[tuple[str, str]] = field(default_factory=list)
    refuses: bool = False
    on_message: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        """As Apprise writes it, with a password and a token in it."""
        return f"json://shop:Rigatoni3Farfalle@127.0.0.1:{self.port}/Orecchiette4Penne"

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.messages]


# What no log, no error and no table may show.
SECRETS = ("Rigatoni3Farfalle", "Orecchiette4Penne")


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a port of its own."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not kept.refuses:
                kept.messages.append((document["title"], document["message"]))
                kept.on_message()
            self.send_response(503 if kept.refuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()
