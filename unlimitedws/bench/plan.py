"""How a load is spread: over how many processes, from which source addresses. Decided from the limits of this machine."""

from __future__ import annotations

import math
import os
import re
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from unlimitedws.bench.options import Options
from unlimitedws.bench.target import Target, pack
from unlimitedws.errors import BadValue, BenchError

SPARE_FILES = 200
"""Descriptors that a process has besides its connections."""

FULLNESS = 0.15
"""The part of a port range that is used from one source address to one port of the server. The kernel finds a free port by trying:
with 48 addresses for a million connections (0.7) it slows to a crawl, with 240 (0.15) it is not to be noticed."""

LEAST_INFLIGHT = 256
INFLIGHT_EACH = 64
"""Handshakes at a time of one process. Where processes are many more than CPUs each has its turn now and then, and gets no further in it
than its handshakes under way allow: with 5 of them (256 shared out among 51) a million connections would mostly wait for turns."""

FIRST_SOURCE = IPv4Address("127.0.0.2")
MOST_SOURCES = 65_000
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class Plan:
    """shares: connections of each process.  sources: packed addresses to connect from; none: whichever the kernel takes.

    inflight: handshakes at a time of each process."""

    shares: list[int]
    sources: list[bytes]
    cpus: frozenset[int]
    inflight: int = LEAST_INFLIGHT

    @property
    def first_numbers(self) -> list[int]:
        """The number of each process's first connection, over all processes."""
        return [sum(self.shares[:i]) for i in range(len(self.shares))]


def make(options: Options, targets: Sequence[Target], files: int | None = None) -> Plan:
    """The plan of a load. files: open files that a process may have; this one's hard limit by default. Raises BenchError."""
    total = options.connections + (options.healthy if options.mode in ("slow", "half-open") else 0) + (options.mode == "broadcast")
    room = (hard_limit() if files is None else files) - SPARE_FILES
    if room < 1:
        raise BenchError(f"the hard limit of open files is {room + SPARE_FILES}: too few to load anything; raise it (ulimit -Hn)")
    least = math.ceil(total / room)
    processes = options.processes or least
    if processes < least:
        raise BenchError(
            f"{total} connections need {least} processes of {room} each (the hard limit of open files); --processes is {processes}"
        )
    shares = [total // processes + (i < total % processes) for i in range(processes)]
    shares = [share for share in shares if share]
    sources, cpus = choose_sources(options, targets, total), parse_cpus(options.cpus)
    return Plan(shares, sources, cpus, inflight_each(options.inflight, len(shares)))


def inflight_each(given: int, processes: int) -> int:
    return max(1, (given or max(LEAST_INFLIGHT, INFLIGHT_EACH * processes)) // processes)


def hard_limit() -> int:
    """Open files a process may have, after it raised its soft limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


# ---- source addresses


def choose_sources(options: Options, targets: Sequence[Target], connections: int) -> list[bytes]:
    """Raises BenchError where there are not enough ports, BadValue for addresses that are none."""
    given, ports = options.sources.strip(), port_range()
    if given and not given.isdigit():
        found = [packed_source(each.strip(), targets[0].family) for each in given.split(",")]
    else:
        found = loopback_sources(given, options, targets, math.ceil(connections / (len(targets) * ports * FULLNESS)))
    addresses = max(1, len(found))
    if connections > (room := addresses * len(targets) * ports):
        raise BenchError(
            f"{connections} connections do not fit: source addresses ({addresses}) times their ports ({ports}) times ports of the server "
            f"({len(targets)}) are {room}; give more URLs with other ports, or --sources ADDRESS,ADDRESS,..."
        )
    return found


def loopback_sources(given: str, options: Options, targets: Sequence[Target], needed: int) -> list[bytes]:
    """Addresses of 127.0.0.0/8, as many as are given or needed; none where the server is elsewhere, or one will do. Raises BenchError."""
    wanted = int(given) if given else needed
    if options.mode in ("connect", "reconnect") and not given:
        wanted = max(wanted, 16)  # a port that was just used rests for a minute
    if wanted > MOST_SOURCES:
        raise BadValue("sources", given, "--sources", f"a number up to {MOST_SOURCES}, or addresses with commas")
    if wanted < 2:
        return []
    if all(target.family == socket.AF_INET and target.is_loopback for target in targets):
        return [packed_source(str(FIRST_SOURCE + i), socket.AF_INET) for i in range(wanted)]
    if given:
        raise BenchError(
            f"--sources {given}: only a server on 127.0.0.0/8 can be reached from any number of addresses; list this machine's own"
        )
    return []


def packed_source(text: str, family: int) -> bytes:
    try:
        address = ip_address(text)
    except ValueError:
        raise BadValue("sources", text, "--sources", "a number, or IP addresses of this machine with commas") from None
    if (address.version == 4) != (family == socket.AF_INET):
        raise BenchError(f"--sources {text}: the server's address is of the other IP version")
    return pack(family, (text, 0))


def port_range() -> int:
    """How many ports the kernel gives to one source address."""
    low, high = map(int, PORT_RANGE.read_text().split())
    return high - low + 1


def parse_cpus(text: str) -> frozenset[int]:
    """`1,3` or `2-5`; none where there is no text. Raises BadValue."""
    found: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if not match:
            raise BadValue("cpus", text, "--cpus", "CPUs, as 1 or 1,3 or 2-5")
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    usable = os.sched_getaffinity(0)
    if found and not found <= usable:
        raise BadValue("cpus", text, "--cpus", f"CPUs that this process may use: {', '.join(map(str, sorted(usable)))}")
    return frozenset(found)
