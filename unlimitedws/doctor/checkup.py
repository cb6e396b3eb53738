"""The check-up when a server starts: one log line for each serious problem, and none where there is none."""

from __future__ import annotations

import logging
from importlib.util import find_spec

from unlimitedws.config import Config
from unlimitedws.doctor import machine, server
from unlimitedws.doctor.problems import problems

OURS = 2
"""Processes there now that are no worker's place: the supervisor, which is reckoned with anyhow, and this one."""

log = logging.getLogger("unlimitedws.doctor")


def check_up(config: Config, *, cpus: int) -> None:
    """Looks at this machine and writes the lines. What is imported for it stays in the process: run it in one that ends."""
    for problem in problems(machine.read(cpus=cpus, ours=OURS), server.read(config, cpus=cpus, why_not_native=guess)):
        if problem.serious:
            log.warning("%s", problem.text)


def guess() -> str | None:
    """Whether the native engine is there, without loading it, which would take longer than all the rest; the template says why not."""
    return None if find_spec("unlimitedws.engine.native") else "it is not built"
