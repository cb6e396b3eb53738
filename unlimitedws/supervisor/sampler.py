"""What a worker cannot say of itself: memory, CPU and descriptors, from psutil and /proc.

Taken rarely (reading PSS makes the kernel walk the page tables), and only the latest is kept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVERY_S = 5.0
"""Between two samples while nobody asks."""
AT_MOST_EVERY_S = 1.0
"""... and while somebody does; and"""
AT_MOST_PART = 0.05
"""... never for a larger part of the time than this: with 128 workers the page tables alone take a tenth of a second."""

KIB = 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one time. cpu_percent: since the sample before; 100 is one CPU. None: the kernel does not tell."""

    rss_bytes: int | None
    pss_bytes: int | None
    cpu_percent: float
    cpu_seconds: float
    descriptors: int | None


class Sampler:
    """The latest sample of each process that was last asked for."""

    def __init__(self) -> None:
        self.samples: dict[int, Sample] = {}
        self.processes: dict[int, Any] = {}  # pid -> psutil.Process, which remembers its CPU time
        self.taken_at = float("-inf")
        self.took_s = 0.0

    @property
    def pause_s(self) -> float:
        """How old samples may be before new ones are taken."""
        return max(AT_MOST_EVERY_S, self.took_s / AT_MOST_PART)

    def sample(self, pids: Iterable[int], at_most_every_s: float | None = None) -> dict[int, Sample]:
        """Samples of these processes by pid, without those that are gone; not older than `at_most_every_s` (or `pause_s`)."""
        pids = set(pids)
        now = time.monotonic()
        if now - self.taken_at >= (self.pause_s if at_most_every_s is None else at_most_every_s) or not pids <= self.processes.keys():
            self.taken_at = now
            self.follow(pids)
            taken = {pid: self.take(pid) for pid in pids}
            self.samples = {pid: sample for pid, sample in taken.items() if sample is not None}
            self.took_s = time.monotonic() - now
        return self.samples

    def follow(self, pids: set[int]) -> None:
        import psutil  # when first needed: the template and the workers do without

        for pid in self.processes.keys() - pids:
            del self.processes[pid]
        for pid in pids - self.processes.keys():
            with contextlib.suppress(psutil.Error, OSError):
                self.processes[pid] = psutil.Process(pid)

    def take(self, pid: int) -> Sample | None:
        import psutil

        process = self.processes.get(pid)
        if process is None:
            return None
        try:
            percent = process.cpu_percent()
            times = process.cpu_times()
        except (psutil.Error, OSError):  # gone; or no file can be opened at the moment
            return None
        rss, pss = memory(pid)
        return Sample(rss, pss, percent, times.user + times.system, descriptors(pid))


def memory(pid: int) -> tuple[int | None, int | None]:
    """RSS and PSS in bytes; None where the kernel does not tell. (psutil reads this file too, and drops its Rss.)"""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None, None
    sizes = {line.split(":")[0]: int(line.split()[1]) * KIB for line in lines}
    return sizes.get("Rss"), sizes.get("Pss")


def descriptors(pid: int) -> int | None:
    """How many a process has open, since Linux 6.2; None before. Never by listing the folder: that costs the
    kernel about 0.9 KB for each of a million descriptors."""
    try:
        return os.stat(f"/proc/{pid}/fd").st_size or None
    except OSError:
        return None
