"""Chromium, told over the DevTools protocol what to open, and what it shows."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from batch_assets_tests.support.instance import running_process
from batch_assets_tests.support.programs import find_program

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60


class Browser:
    """A page in Chromium.

    Args:
        socket: The connection to the page.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requested: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Opens an address, and waits until all of it is there."""
        self.requested.clear()
        self.complaints.clear()
        self._call("Page.navigate", url=url)
        self._await("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Returns what an expression of JavaScript is on the page, whatever the page itself may run."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def follow(self, selector: str) -> None:
        """Clicks on a link as a mouse does, and waits until the next page is there."""
        self.value(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = self.value(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
        self._await("Page.loadEventFired")

    def prefer(self, scheme: str) -> None:
        """Has the user prefer the `light` or the `dark` theme."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int = 900) -> None:
        """Gives the window a size in pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self, file: Path) -> None:
        """Writes what is on the page to a PNG file."""
        answer = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))

    def await_text(self, text: str) -> None:
        """Waits until a script of the page has written a text."""
        end = time.monotonic() + SECONDS
        while text not in (shown := str(self.value("document.body.innerText"))):
            assert time.monotonic() < end, shown
            time.sleep(0.2)

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = self._next()
            if message.get("id") == number:
                assert "result" in message, message
                result: dict[str, Any] = message["result"]
                return result

    def _await(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(SECONDS))
        found = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(found["request"]["url"])
        elif message.get("method") == "Log.entryAdded":
            self.complaints.append(found["entry"]["text"])
        return message


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Starts Chromium, and ends it.

    Args:
        folder: Gets its profile and its log.
    """
    name = next(filter(shutil.which, NAMES), NAMES[0])
    program = find_program(name, "install it (on Debian: apt-get install chromium)")
    profile = folder / "profile"
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    with running_process(command, {**os.environ, "HOME": str(folder)}, folder / "chromium.log"):
        port, end = profile / "DevToolsActivePort", time.monotonic() + SECONDS
        while not (port.exists() and port.read_text()):
            assert time.monotonic() < end, (folder / "chromium.log").read_text()
            time.sleep(0.1)
        targets = httpx.get(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list").json()
        page = next(target for target in targets if target["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Browser(socket)
