"""The check-up when a server starts: one log line for each serious problem, and none where there is none."""

from __future__ import annotations

import logging

from unlimitedws.config import Config
from unlimitedws.doctor import machine, server
from unlimitedws.doctor.problems import problems

log = logging.getLogger("unlimitedws.doctor")


def check_up(config: Config, *, cpus: int) -> None:
    """Looks at this machine and writes the lines. What is imported for it stays in the process: run it in one that ends."""
    for problem in problems(machine.read(cpus=cpus), server.read(config, cpus=cpus)):
        if problem.serious:
            log.warning("%s", problem.text)
