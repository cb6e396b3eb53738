"""Room for how many more connections, and what ends it: an estimate for idle ones."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from unlimitedws.config import Config
from unlimitedws.cost import KERNEL_BYTES, ROW_BYTES
from unlimitedws.memory import Memory

PROCESS_BYTES = ROW_BYTES["native"]


class Held(NamedTuple):
    """What one worker holds. descriptors: all that it has open; None: the kernel does not tell."""

    connections: int
    descriptors: int | None


class Room(NamedTuple):
    """connections: room for so many more, idle.  limited_by: `descriptors`, `files` (of the machine), `memory` or the
    setting that ends it first."""

    connections: int
    limited_by: str


def room(workers: Iterable[Held], config: Config, memory: Memory, file_nr: Path = Path("/proc/sys/fs/file-nr")) -> Room:
    """The room that is left in all workers together."""
    workers = tuple(workers)
    held = sum(worker.connections for worker in workers)
    ends = {"descriptors": descriptors_left(workers)}
    if config.max_connections:
        ends["max_connections"] = sum(max(0, config.max_connections - worker.connections) for worker in workers)
    if config.max_connections_total:
        ends["max_connections_total"] = max(0, config.max_connections_total - held)
    if (files := files_left(file_nr)) is not None:
        ends["files"] = files
    if (available := memory.available_bytes()) is not None:
        ends["memory"] = max(0, available) // (KERNEL_BYTES + PROCESS_BYTES)
    return nearest(ends)


def nearest(ends: Mapping[str, int]) -> Room:
    limited_by = min(ends, key=lambda name: ends[name])
    return Room(ends[limited_by], limited_by)


def descriptors_left(workers: Iterable[Held]) -> int:
    """Of the workers' own limits, which are that of the supervisor they come from."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    in_use = (worker.connections if worker.descriptors is None else worker.descriptors for worker in workers)
    return sum(max(0, limit - each) for each in in_use)


def files_left(file_nr: Path) -> int | None:
    """Of fs.file-max, for all processes of the machine; None where the kernel does not tell."""
    try:
        in_use, _, most = map(int, file_nr.read_text().split())
    except (OSError, ValueError):
        return None
    return max(0, most - in_use)
