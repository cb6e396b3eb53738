"""Headless Chromium, driven by the DevTools protocol: enough of it to look at a page and type into it."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.examples.serving import eventually

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
]


def program() -> str | None:
    """The browser of this machine; None when it has none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One browser process with a fresh profile in `folder`; a context manager."""

    def __init__(self, folder: Path) -> None:
        found = program()
        assert found is not None
        self.profile = folder / "profile"
        self.tabs = ExitStack()
        # A sanitizer that is preloaded into our own processes has no business in this one.
        environ = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        self.log_file = folder / "chromium.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [found, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"], stdout=log, stderr=log, env=environ
            )

    def port_file(self) -> str:
        file = self.profile / "DevToolsActivePort"
        return file.read_text().split("\n")[0] if file.exists() else ""

    def open(self, url: str) -> Tab:
        """A new tab on `url`, loaded."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?{url}", method="PUT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            target = json.load(answer)
        tab = Tab(self.tabs.enter_context(connect(target["webSocketDebuggerUrl"], proxy=None, max_size=None, compression=None)))
        tab.until("document.readyState + ' ' + location.href", f"complete {url}")
        return tab

    def __enter__(self) -> Browser:
        try:
            self.port = int(eventually(self.port_file, "chromium writes the port of its DevTools"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.tabs.close()
        finally:
            self.end()

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Tab:
    """One page."""

    def __init__(self, devtools: ClientConnection) -> None:
        self.devtools = devtools
        self.numbers = itertools.count(1)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.devtools.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.devtools.recv(timeout=30))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str, expected: Any) -> None:
        """Waits until the expression has the value."""
        eventually(lambda: self.evaluate(script) == expected, f"{script} is {expected!r}, not {self.evaluate(script)!r}")

    def size(self, width: int, height: int) -> None:
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))
