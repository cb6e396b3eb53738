"""Everything that is read of a machine, once."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unlimitedws.doctor import cgroup, slab, sysctls
from unlimitedws.doctor.cgroup import Limit
from unlimitedws.doctor.sysctls import Numbers
from unlimitedws.memory import lines, table

ENDLESS = 1 << 30
"""A limit that is not there, as a number: more descriptors than any process can have (sysctl fs.nr_open)."""

CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 21, 24


@dataclass(frozen=True, slots=True)
class Machine:
    """The kernel, and what holds this process in it. Whatever a kernel or a container does not tell is None, empty or in `unknown`.

    open_files: RLIMIT_NOFILE, soft and hard.  processes: RLIMIT_NPROC, hard; None where it does not hold us.
    user_tasks: processes and threads of this user, which count against that.
    available_bytes: of memory, for new use.
    tcp_pages: that all buffers of TCP take now.  sealed: /proc/sys is read-only.
    dropped_packets: since the machine started, of those that waited for a busy CPU.
    surroundings: `machine`, `docker`, `kubernetes`, `container` or `wsl`.
    commit_left_bytes: address space that may still be promised; None unless that is limited (vm.overcommit_memory = 2).
    socket_bytes, socket_v6_bytes: slab for the server's end of a connection."""

    kernel: str
    surroundings: str
    cpus: int
    open_files: tuple[int, int]
    processes: int | None
    user_tasks: int
    sysctls: Mapping[str, Numbers]
    unknown: Mapping[str, str]
    sealed: bool
    memory_bytes: int | None
    available_bytes: int | None
    memory_limits: tuple[Limit, ...]
    memory_highs: tuple[Limit, ...]
    process_limits: tuple[Limit, ...]
    tcp_pages: int
    dropped_packets: int
    huge_pages: str
    commit_left_bytes: int | None
    socket_bytes: int | None
    socket_v6_bytes: int | None

    def sysctl(self, name: str, position: int = 0) -> int | None:
        """One number of a setting of the kernel; None where it is not known."""
        numbers = self.sysctls.get(name, ())
        return numbers[position] if position < len(numbers) else None

    @property
    def has_own_network(self) -> bool:
        """Whether this is a network namespace beside the host's, as of containers: only the host's shows what is of the whole kernel."""
        return self.unknown.get("net.ipv4.tcp_mem") == sysctls.NOT_THERE and "net.core.somaxconn" in self.sysctls

    @property
    def tracks(self) -> bool:
        """Whether a firewall keeps a note of each connection: the module alone, which may be there, is no rule that uses it.

        The rules for a container are mostly its host's, which are not to be seen from here."""
        loaded = self.sysctl("net.netfilter.nf_conntrack_max") is not None
        return loaded and (bool(self.sysctl("net.netfilter.nf_conntrack_count")) or self.has_own_network)


def read(root: Path = Path("/"), *, cpus: int, ours: int = 0) -> Machine:
    """The machine under `root`: "/", or a folder that looks like it. Never raises for what it finds.

    cpus: that this process may use.  ours: processes there now that a server would not find, or that are its own."""
    known, unknown = sysctls.read(root)
    memory = table(root / "proc/meminfo")
    kernel = "".join(lines(root / "proc/sys/kernel/osrelease"))
    promised = known.get("vm.overcommit_memory") == (2,)
    may_have = None if is_above_nproc(root) else limit(root, "processes", 1)
    return Machine(
        kernel=kernel,
        surroundings=surroundings(root, kernel),
        cpus=cpus,
        open_files=(limit(root, "open files", 0) or ENDLESS, limit(root, "open files", 1) or ENDLESS),
        processes=may_have,
        user_tasks=0 if may_have is None else max(0, tasks_of(root, os.getuid()) - ours),
        sysctls=known,
        unknown={**unknown, **untold(root)},
        sealed=sysctls.is_sealed(root),
        memory_bytes=memory.get("MemTotal:"),
        available_bytes=memory.get("MemAvailable:"),
        memory_limits=cgroup.memory_limits(root),
        memory_highs=cgroup.memory_highs(root),
        process_limits=cgroup.process_limits(root, ours),
        tcp_pages=tcp_pages(root),
        dropped_packets=dropped_packets(root),
        huge_pages=chosen(lines(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        commit_left_bytes=max(0, memory.get("CommitLimit:", 0) - memory.get("Committed_AS:", 0)) if promised else None,
        socket_bytes=slab.socket_bytes(root, v6=False),
        socket_v6_bytes=slab.socket_bytes(root, v6=True),
    )


def untold(root: Path) -> dict[str, str]:
    """Files without which a bound is not known at all, where they tell nothing."""
    return {f"/{name}": "tells nothing" for name in ("proc/meminfo", "proc/self/limits") if not lines(root / name)}


def limit(root: Path, name: str, position: int) -> int | None:
    """The soft (0) or hard (1) limit of this process; None: none, or not told."""
    for line in lines(root / "proc/self/limits"):
        if found := re.match(rf"Max {name}\s+(\S+)\s+(\S+)", line):
            text = found[position + 1]
            return int(text) if text.isdigit() else None
    return None


def is_above_nproc(root: Path) -> bool:
    """Whether RLIMIT_NPROC does not hold us: by a capability that counts for the whole machine (copy_process in kernel/fork.c)."""
    told = re.search(r"^CapEff:\s*([0-9a-f]+)$", "\n".join(lines(root / "proc/self/status")), re.MULTILINE)
    effective = int(told[1], 16) if told else 0
    of_the_machine = [line.split() for line in lines(root / "proc/self/uid_map")] == [["0", "0", "4294967295"]]
    return of_the_machine and bool(effective & (1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE))


def tasks_of(root: Path, user: int) -> int:
    """Processes and threads that are to be seen here; another container's of the same user may count as well, and are not."""
    found = 0
    for process in (root / "proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if process.stat().st_uid == user:
                found += table(process / "status").get("Threads:", 1)
    return found


def surroundings(root: Path, kernel: str) -> str:
    if (root / "var/run/secrets/kubernetes.io").exists() or any("kubepods" in line for line in lines(root / "proc/self/cgroup")):
        return "kubernetes"
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists() or (root / "run/systemd/container").exists():
        return "container"
    return "wsl" if "microsoft" in kernel.lower() else "machine"


def tcp_pages(root: Path) -> int:
    """Pages of 4,096 bytes (of this machine's size) in the buffers of all its TCP sockets."""
    for line in lines(root / "proc/net/sockstat"):
        if line.startswith("TCP:") and (found := re.search(r"\bmem (\d+)", line)):
            return int(found[1])
    return 0


def dropped_packets(root: Path) -> int:
    """Of all CPUs, in every network namespace: the second column, in hexadecimal digits."""
    rows = (line.split() for line in lines(root / "proc/net/softnet_stat"))
    return sum(int(row[1], 16) for row in rows if len(row) > 1 and re.fullmatch(r"[0-9a-f]{8}", row[1]))


def chosen(choices: list[str]) -> str:
    """The one in brackets of `always [madvise] never`."""
    found = re.search(r"\[(\w+)\]", "".join(choices))
    return found[1] if found else ""
