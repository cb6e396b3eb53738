"""npm's `ws` as a client: the one most browsers' peers are tested with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.serving import eventually, served
from unlimitedws.handlers import Handlers
from unlimitedws.wire.closing import Cause

HERE = Path(__file__).parent
INSTALL_S = 120


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and `ws` installed; skips where node is missing or npm cannot install."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (on Debian: apt-get install nodejs npm)")
    folder = tmp_path_factory.mktemp("clients")
    for name in ("package.json", "package-lock.json", "echo.mjs"):
        shutil.copy(HERE / name, folder)
    try:
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_S,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install ws (is its registry reachable? try: npm ci in tests/clients): {error.stderr!s}")
    return folder


def test_npm_ws_gets_back_what_it_sends(engine_name: str, scripts: Path) -> None:
    closes: list[Any] = []
    handlers = Handlers(subprotocols=("chat",))
    handlers.on_message = lambda conn, message: conn.send(message)
    handlers.on_close = lambda conn, close: closes.append(close)
    with served(handlers, engine=engine_name) as there:
        ran = subprocess.run(["node", "echo.mjs", there.url("/")], cwd=scripts, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        eventually(lambda: closes)
    # Our answer to its Close carries the code alone.
    assert json.loads(ran.stdout) == {
        "echoed": 15, "sent": 15, "wrong": 0, "pong": True, "protocol": "chat", "code": 4001, "reason": "",
    }  # fmt: skip
    assert (closes[0].code, closes[0].reason, closes[0].cause, closes[0].clean) == (4001, "done", Cause.PEER_CLOSED, True)
