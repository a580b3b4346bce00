"""What every request passes: a limit of its size, and a line in the log."""

import json
import logging
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch_assets.api.metrics import Metrics

REQUEST_ID = "X-Request-ID"
LONGEST_REQUEST_ID = 64

_log = logging.getLogger("batch_assets.api.requests")


class BodyLimit:
    """Refuses a body that is too large, before it is in memory.

    Args:
        app: What the requests are for.
        max_bytes: The largest body that is taken.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        # Not to be trusted: what comes is counted too.
        declared, left = int(length) if length.isdecimal() else 0, self._max_bytes

        async def counted() -> Message:
            nonlocal left
            if declared <= self._max_bytes:
                message = await receive()
                left -= len(message.get("body", b""))
                if left >= 0:
                    return message
            # Raised where the body is read, and answered as all that the application raises.
            raise HTTPException(
                413, f"The request is larger than {self._max_bytes:,} bytes: send fewer items at a time."
            )

        await self._app(scope, counted, send)


class RequestLog:
    """Writes a line for each request, with an id that the answer has too, and measures it.

    Args:
        app: What the requests are for.
        metrics: Gets the seconds.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if given.isascii() and 0 < len(given) <= LONGEST_REQUEST_ID else str(uuid.uuid4())

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        finally:
            # The path as it is declared: ids in it would make a series of metrics each.
            path = getattr(scope.get("route"), "path_format", "(none)")
            seconds = time.perf_counter() - start
            self._metrics.observe(scope["method"], path, status, seconds)
            found = {
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "milliseconds": round(1000 * seconds, 1),
                "client": (scope.get("client") or ("",))[0],
            }
            _log.info("%s %s %s", scope["method"], json.dumps(scope["path"]), status, extra=found)
