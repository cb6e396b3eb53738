"""`run`: starts servers for a test, and checks that each ends well and leaves no process behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.running import Running

Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    servers: list[Running] = []

    def start(**settings: Any) -> Running:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        servers.append(Running(folder, **settings))
        return servers[-1]

    try:
        yield start
        for server in servers:
            server.stop()
    finally:
        for server in servers:
            server.destroy()
