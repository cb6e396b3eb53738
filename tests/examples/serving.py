"""A server in a process of its own, as an operator would start it, and the same checks at the end of every one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
STOP_S = 30.0

Value = TypeVar("Value")


def eventually(look: Callable[[], Value | None], what: str, timeout_s: float = START_S) -> Value:
    """The first true value that `look` gives; fails with `what` when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := look():
            return value
        assert time.monotonic() < deadline, f"{timeout_s} s and still not: {what}"
        time.sleep(0.02)


class Serving:
    """`python ARGUMENTS` from the repository's root (or `cwd`), which must say that it listens.

    port, admin_port: what it listens on.  expected_errors: words of error lines that the test itself provokes."""

    def __init__(self, arguments: list[str], folder: Path, environ: Mapping[str, str], *, cwd: Path = ROOT) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("UNLIMITEDWS_")}
        self.expected_errors: list[str] = []
        self.log_file = folder / "server.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], cwd=cwd, stderr=log, stdout=log, env={**clean, "PYTHONPATH": str(ROOT), **environ}
            )
        try:
            self.port = self.number_after(r"listening on 127\.0\.0\.1:")
            self.admin_port = self.number_after(r"stats on http://127\.0\.0\.1:")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def number_after(self, words: str) -> int:
        def look() -> re.Match[str] | None:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
            return re.search(words + r"(\d+)", self.log)

        return int(eventually(look, f"the log says {words!r}")[1])

    def stats(self) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.admin_port}/stats", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def stop(self) -> str:
        """SIGTERM, then the end it promises: exit code 0, nothing logged as an error. Gives the log."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        finally:
            self.process.kill()
        assert code == 0, self.log
        return self.log
