"""Settings of the kernel, as far as they can be seen from here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unlimitedws.memory import lines

Numbers = tuple[int, ...]

NAMES = (
    "fs.nr_open",
    "fs.file-max",
    "fs.file-nr",
    "fs.epoll.max_user_watches",
    "net.core.somaxconn",
    "net.core.netdev_max_backlog",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_ehash_entries",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_buckets",
    "vm.overcommit_memory",
)

NOT_THERE = "not there"

OF_A_CONTAINER = frozenset({
    "net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    "net.ipv4.ip_local_port_range", "net.ipv4.tcp_migrate_req", "net.ipv4.tcp_max_tw_buckets",
})  # fmt: skip
"""Each network namespace has its own: a container can be started with another value. All others are the host's."""


def read(root: Path) -> tuple[Mapping[str, Numbers], Mapping[str, str]]:
    """Name to its numbers; and name to why it is not known, of those that cannot be read here.

    A network namespace does not show what is not its own, and a module that is not loaded has no settings."""
    known: dict[str, Numbers] = {}
    unknown: dict[str, str] = {}
    for name in NAMES:
        try:
            known[name] = tuple(map(int, file_of(root, name).read_text().split()))
        except FileNotFoundError:
            unknown[name] = NOT_THERE
        except PermissionError:
            unknown[name] = "may not be read"
        except (OSError, ValueError) as error:
            unknown[name] = str(error)
    return known, unknown


def file_of(root: Path, name: str) -> Path:
    return root.joinpath("proc/sys", *name.split("."))


def is_sealed(root: Path) -> bool:
    """Whether /proc/sys is mounted read-only, as in most containers."""
    for line in lines(root / "proc/self/mountinfo"):
        mount = line.split()
        if len(mount) > 5 and mount[4] == "/proc/sys":
            return "ro" in mount[5].split(",")
    return False
