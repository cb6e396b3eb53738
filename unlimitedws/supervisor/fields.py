"""What each field of /stats means: docs/reference/stats.md is made from this, and a test holds a real answer to it.

Paths as `total.memory.rss_bytes`; `[]` stands for each item of a list. What workers count is in `counters`.
"""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    """unit: "" for what has none."""

    unit: str
    help: str


RESOURCES = {
    "memory.rss_bytes": About(
        "bytes", "resident memory (RSS): pages shared by several processes count in each; null: the kernel does not tell"
    ),
    "memory.pss_bytes": About("bytes", "proportional memory (PSS): shared pages are divided among those who share them; null as before"),
    "cpu.percent": About("percent", "CPU time since the sample before; 100 is one CPU"),
    "cpu.seconds": About("seconds", "CPU time since the processes began"),
    "descriptors": About("descriptors", "open descriptors; null before Linux 6.2"),
}

SERVER = {
    "version": About("", "of this package"),
    "pid": About("", "process id of the supervisor"),
    "listening[]": About("", "where it listens, with the port it got"),
    "time": About("seconds", "when this was read, since the epoch"),
    "uptime_s": About("seconds", "since the supervisor started"),
    "engine": About("", "`native` or `portable`; null before the app is imported"),
    "ready": About("", "whether a worker serves, and the server is not stopping; see /readyz"),
    "restarts": About("processes", "dead workers that were replaced; a reload does not count"),
    "reloads": About("reloads", "times the code was reloaded"),
    "upgrades": About("upgrades", "times the supervisor was replaced by a new one; everything else counts on"),
    "pressure.memory_used": About(
        "ratio", "part of the memory (of the machine, or its cgroup's limit) in use; 0 where no setting asks for it"
    ),
    "pressure.memory_stalled": About("ratio", "part of the last 10 s that some process waited for memory; 0 as before"),
    "pressure.shedding": About("", "whether new handshakes get 503 because memory is short"),
    "room.connections": About("connections", "estimate: room for so many more idle connections"),
    "room.limited_by": About("", "what ends it: `descriptors`, `files` (of the machine), `memory`, or the setting of that name"),
    "kernel_memory_bytes": About("bytes", "estimate: memory of the kernel for the sockets of open connections, 4 KiB for each; in no RSS"),
}

WORKER = {
    "slot": About("", "the listener slot it serves"),
    "pid": About("", "its process id"),
    "serial": About("", "number of this process in the server's life, the upper part of its connection ids"),
    "state": About("", "`starting`, `ready` or `draining`"),
    "engine": About("", "`native` or `portable`; null until it is ready"),
    "uptime_s": About("seconds", "since the process began"),
    "restarts": About("processes", "how often a dead process of its slot was replaced"),
}

SLOT = {
    "slot": About("", "number of the slot"),
    "restarts": About("processes", "how often a dead process of it was replaced"),
    "pids[]": About("", "its processes: the one that serves, and those that still drain"),
}

PROCESS = {
    "pid": About("", "its process id"),
    "role": About("", "`supervisor`, `template` (imports the app and forks the workers) or `worker`"),
}
