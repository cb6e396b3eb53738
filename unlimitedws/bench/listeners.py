"""Who listens where the load goes: whether the process of --pid is the server that is loaded, or figures of another would be shown."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from unlimitedws.bench.server import tree
from unlimitedws.bench.target import Target

PROC = Path("/proc")
LISTEN = "0A"  # the state, in /proc/net/tcp

MOST_FILES = 10_000
"""Of a process whose descriptors are looked at: each costs the kernel a kilobyte, which would be measured as the server's."""


def doubt(pid: int, targets: Sequence[Target]) -> str:
    """Why the memory and CPU of `pid` may be of another server than the one at these targets; empty where nothing says so."""
    try:
        if os.readlink(PROC / "self/ns/net") != os.readlink(PROC / str(pid) / "ns/net"):
            return ""  # in a container, whose ports are others
        pids = tree(pid)
        wanted = frozenset().union(*map(listening, targets))
        held = held_of(wanted, pids)
    except OSError:  # it has ended, or is not ours to look at
        return ""
    ports = ", ".join(str(port) for port in sorted({target.address[1] for target in targets}))
    if os.getpid() in pids:
        return f"process {pid} (--pid) has started this program too, whose memory and CPU are counted with the server's"
    if not wanted:
        return f"nobody on this machine listens on port {ports}, so that process {pid} (--pid) may be another than the server"
    if not held:
        return f"process {pid} (--pid) does not listen on port {ports}; `ss -ltnp` shows who does"
    if held < wanted:
        part = f"{len(held)} of {len(wanted)} sockets that listen on port {ports}"
        return f"process {pid} (--pid) holds {part}: is it a worker, and not the root?"
    return ""


def listening(target: Target) -> frozenset[str]:
    """The sockets that a connection to this target may come to, by inode."""
    there, forms = list(listeners(target.address[1])), written(target.address[0])
    everywhere = {"0" * len(form) for form in forms}
    exact, others = (frozenset(inode for address, inode in there if address in these) for these in (forms, everywhere))
    return exact or others  # as the kernel prefers them


def listeners(port: int) -> Iterator[tuple[str, str]]:
    """(address as the kernel writes it, inode) of each socket that listens on a port."""
    for file in filter(Path.exists, (PROC / "net/tcp", PROC / "net/tcp6")):
        with file.open() as rows:
            next(rows)
            for row in map(str.split, rows):
                if row[3] != LISTEN:
                    break  # they come first, and what follows may be a million lines
                address, _, number = row[1].partition(":")
                if int(number, 16) == port:
                    yield address, row[9]


def written(host: str) -> set[str]:
    """An address as /proc/net/tcp and tcp6 write it: words of 32 bits, each in the order of this machine."""
    address = ip_address(host.partition("%")[0])
    forms = [address.packed, b"\0" * 10 + b"\xff" * 2 + address.packed] if isinstance(address, IPv4Address) else [address.packed]
    return {"".join(f"{int.from_bytes(form[i : i + 4], sys.byteorder):08X}" for i in range(0, len(form), 4)) for form in forms}


def held_of(wanted: frozenset[str], pids: Iterable[int]) -> frozenset[str]:
    """Which of these sockets the processes hold. Raises OSError."""
    held: frozenset[str] = frozenset()
    for pid in pids:
        if wanted <= held:
            break
        held |= wanted & sockets(PROC / str(pid) / "fd")
    return held


def sockets(folder: Path) -> frozenset[str]:
    """The sockets of a process, by inode. Raises OSError where they may not be looked at, or are too many."""
    if folder.stat().st_size > MOST_FILES:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    found = set()
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(file))
    return frozenset(name.removeprefix("socket:[").removesuffix("]") for name in found if name.startswith("socket:["))
