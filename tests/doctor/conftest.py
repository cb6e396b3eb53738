"""Judging a fake machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.trees import TREES
from unlimitedws.config import Config
from unlimitedws.doctor import machine, server, verdict
from unlimitedws.doctor.verdict import Verdict

Judge = Callable[..., Verdict]


def judged(root: Path, config: Config, wanted: int | None = None, *, cpus: int = 2) -> Verdict:
    return verdict.judge(machine.read(root, cpus=cpus), server.read(config, cpus=cpus, why_not_native=lambda: None), wanted)


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """`judge("plain", wanted=1000, max_connections=500)`: the verdict on one of `TREES`."""

    def judge(name: str, wanted: int | None = None, *, cpus: int = 2, **settings: Any) -> Verdict:
        root = tmp_path / name
        if not root.exists():
            root.mkdir()
            TREES[name](root)
        return judged(root, Config(**settings), wanted, cpus=cpus)

    return judge
