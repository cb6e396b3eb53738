"""What is wrong with this machine or with the settings on it, as log lines at the start (see doctor/problems.py)."""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

from unlimitedws.config import Config
from unlimitedws.supervisor import forking


def check_up(config: Config, cpus: int) -> None:
    """Has a process of its own look and log, and waits for it: what it imports, the supervisor would keep.

    Before anything listens, so that it holds nothing of ours. cpus: that this process may use."""
    with contextlib.suppress(OSError):  # no process left, which the first fork of a worker will say; or somebody else has waited for it
        os.waitpid(forking.fork(lambda: examine(config, cpus)), 0)


def examine(config: Config, cpus: int) -> NoReturn:
    from unlimitedws.doctor.checkup import check_up

    check_up(config, cpus=cpus)
    forking.end(0)
