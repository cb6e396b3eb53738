"""What is wrong with a machine or with the settings on it, whatever the number of connections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from unlimitedws import cost
from unlimitedws.doctor import capacity
from unlimitedws.doctor.changes import LIFTS, STEP, Change, up
from unlimitedws.doctor.machine import Machine
from unlimitedws.doctor.server import Server

PROXIES = (
    ("HAProxy as Debian sets it up (timeout client, timeout server)", 50),
    ("Heroku", 55),
    ("nginx (proxy_read_timeout)", 60),
    ("AWS ALB (idle_timeout)", 60),
    ("Cloudflare", 100),
    ("Azure Load Balancer", 240),
    ("Envoy (stream_idle_timeout)", 300),
    ("AWS NLB", 350),
)
"""Who ends a connection after so many seconds of silence, unless told otherwise, as their manuals say."""

SAFE_PING_S = 25
"""The default of ping_interval_s: below half of them all."""

ORPHAN_S = 1.0
"""How long the end of a connection that we closed stays with the kernel, with peers that are slow but alive."""

LONG_RETURN_S = 300

PACKET_QUEUE = 16_384
"""Packets that may wait for each CPU: those of 0.1 s at 160,000 a second. Small ones take some 13 MB then; an empty queue takes nothing."""


class Problem(NamedTuple):
    """text: what is wrong and what comes of it.  serious: worth a line when a server starts; else only something that could be better.
    changes: what mends it."""

    name: str
    text: str
    serious: bool
    changes: tuple[Change, ...] = ()


def problems(machine: Machine, server: Server, wanted: int | None = None) -> list[Problem]:
    """The serious ones first. wanted: connections asked for, where some were."""
    found = [*backlog(machine, server), *too_many_let_in(machine, server), *silence(machine, server, wanted), *syn_flood(machine, server)]
    found += [*fewer_workers(machine, server), *no_room(machine, server)]
    found += [*strict_commit(machine, server), *missing(server), *slow_return(server, wanted)]
    found += [*migration(machine), *orphans(machine, server), *dropped(machine)]
    return sorted(found, key=lambda problem: not problem.serious)


def backlog(machine: Machine, server: Server) -> Iterator[Problem]:
    asked, most = server.config.backlog, machine.sysctl("net.core.somaxconn")
    if most is not None and asked > most:
        text = f"backlog is {asked:,}, but the kernel cuts it to {most:,} (net.core.somaxconn): of a crowd at once, the rest is dropped"
        yield Problem("backlog", text, True, (Change("backlog", "sysctl", "net.core.somaxconn", str(asked)),))


def too_many_let_in(machine: Machine, server: Server) -> Iterator[Problem]:
    """Settings that promise more than there is. Without such a setting there is no promise."""
    config, promised = server.config, server.limit
    each = capacity.descriptors_each(machine)
    if config.max_connections > each:
        text = f"max_connections is {config.max_connections:,}, but a worker can open {each:,} files more (RLIMIT_NOFILE)"
        yield Problem("max_connections", text, True)
    if promised is None:
        return
    for bound in capacity.bounds(machine, server):
        if bound.ends and bound.connections < promised and not (bound.name == "descriptors" and config.max_connections > each):
            text = f"settings let in {promised:,} connections, but {bound.name} ends it at {bound.connections:,}: {bound.why}"
            yield Problem(bound.name, f"{text}; see unlimitedws doctor --connections {promised}", True)


def fewer_workers(machine: Machine, server: Server) -> Iterator[Problem]:
    """Than are to run: the others cannot start."""
    for room in capacity.worker_rooms(machine, server):
        if room.workers < server.workers:
            asked = capacity.count(server.workers, "worker is", "workers are")
            text = f"{asked} to run, but there is room for {room.workers:,} only: {room.why}"
            yield Problem("workers", text, True, mending("workers", LIFTS[room.name](machine, server, 1)))


def no_room(machine: Machine, server: Server) -> Iterator[Problem]:
    """For anybody at all."""
    for bound in capacity.bounds(machine, server):
        if bound.ends and not bound.connections and bound.name not in capacity.WORKER_ROOMS:
            text = f"not one connection fits: {bound.name}: {bound.why}"
            yield Problem("no_room", text, True, mending("no_room", LIFTS[bound.name](machine, server, 1)))


def mending(problem: str, changes: Iterable[Change]) -> tuple[Change, ...]:
    """What lifts a bound, as what mends a problem; what no line changes, the problem says itself."""
    return tuple(change._replace(bound=problem) for change in changes if change.kind != "hardware")


def silence(machine: Machine, server: Server, wanted: int | None) -> Iterator[Problem]:
    """Proxies that cut whoever is silent, before a Ping of ours would have ended the silence."""
    interval_s = server.config.ping_interval_s
    cutting = [f"{name} after {idle_s} s" for name, idle_s in PROXIES if not interval_s or idle_s <= interval_s]
    if not cutting:
        return
    pings = f"ping_interval_s is {interval_s:g}" if interval_s else "pings are off (ping_interval_s = 0)"
    where = " behind a proxy" if server.is_proxied else ": a proxy in front may not wait that long"
    text = f"{pings}{where}: unless told otherwise, silent connections are cut by {', '.join(cutting)}"
    change = Change("ping_interval_s", "setting", "ping_interval_s", str(SAFE_PING_S))
    yield Problem("ping_interval_s", text, server.is_proxied, (change, *cpus_for_pings(machine, server, wanted)))


def cpus_for_pings(machine: Machine, server: Server, wanted: int | None) -> Iterator[Change]:
    """What more pings than there are would need besides."""
    pinging = replace(server, config=replace(server.config, ping_interval_s=SAFE_PING_S))
    if wanted is not None and any(bound.name == "cpu" and bound.connections < wanted for bound in capacity.slowing(machine, pinging)):
        yield from LIFTS["cpu"](machine, pinging, wanted)


def syn_flood(machine: Machine, server: Server) -> Iterator[Problem]:
    """The backlog of half-open connections counts only where there are no cookies."""
    remembered = machine.sysctl("net.ipv4.tcp_max_syn_backlog")
    if machine.sysctl("net.ipv4.tcp_syncookies") == 0:
        lines = [Change("syn_cookies", "sysctl", "net.ipv4.tcp_syncookies", "1")]
        if remembered is not None and remembered < server.config.backlog:
            lines.append(Change("syn_cookies", "sysctl", "net.ipv4.tcp_max_syn_backlog", str(server.config.backlog)))
        shown = f"beyond {remembered:,} half-open connections" if remembered is not None else "beyond its queue of half-open connections"
        yield Problem("syn_cookies", f"net.ipv4.tcp_syncookies is off: {shown} the kernel drops everybody's SYN", True, tuple(lines))


def strict_commit(machine: Machine, server: Server) -> Iterator[Problem]:
    """Under strict accounting the table's address space counts, though hardly any of it is ever touched."""
    if machine.commit_left_bytes is None or server.engine != "native":
        return
    row = cost.ROW_BYTES["native"] + (cost.V6_BYTES if server.has_v6 else 0) + (cost.METER_BYTES if server.has_meters else 0)
    needed = server.workers * row * min(machine.open_files[1], capacity.MOST_ROWS)
    if needed > machine.commit_left_bytes:
        text = (
            f"vm.overcommit_memory is 2: the workers' tables reserve {capacity.amount(needed)} of address space, and "
            f"{capacity.amount(machine.commit_left_bytes)} may still be promised; lower the limit of open files"
        )
        yield Problem("overcommit", text, True, (Change("overcommit", "sysctl", "vm.overcommit_memory", "0"),))


def missing(server: Server) -> Iterator[Problem]:
    if not server.uvloop:
        yield Problem("uvloop", "uvloop is not installed, and workers run on it: pip install uvloop", True)
    if server.engine == "portable" and server.why_not_native is not None:
        text = f"the portable engine serves, since the native one is not available ({server.why_not_native}): a message costs twice the CPU"
        yield Problem("engine", text, False)


def slow_return(server: Server, wanted: int | None) -> Iterator[Problem]:
    """Of everybody after an outage. Without a number of clients there is nothing to say."""
    clients, per_s = wanted or server.limit, server.config.handshakes_per_s
    if clients and per_s and clients / per_s > LONG_RETURN_S:
        text = f"handshakes_per_s is {per_s:g}: after an outage {clients:,} clients take {clients / per_s / 60:,.0f} minutes to come back"
        yield Problem("handshakes_per_s", text, False)


def migration(machine: Machine) -> Iterator[Problem]:
    if machine.sysctl("net.ipv4.tcp_migrate_req") == 0:
        text = "net.ipv4.tcp_migrate_req is off: when there come to be fewer workers, clients in the queues of those that go are reset"
        yield Problem("migration", text, False, (Change("migration", "sysctl", "net.ipv4.tcp_migrate_req", "1"),))


def orphans(machine: Machine, server: Server) -> Iterator[Problem]:
    """Of a stop, which closes so many at a time."""
    config, most = server.config, machine.sysctl("net.ipv4.tcp_max_orphans")
    held = capacity.nearest(capacity.bounds(machine, server)).connections
    closing = min(held, int(server.workers * config.drain_batch / max(config.drain_pause_s, 0.01) * ORPHAN_S))
    if most is not None and closing > most:
        text = (
            f"a stop closes {closing:,} connections a second; with more than {most:,} on their way (tcp_max_orphans) the kernel resets them"
        )
        yield Problem("orphans", text, False, (Change("orphans", "sysctl", "net.ipv4.tcp_max_orphans", str(up(closing, STEP))),))


def dropped(machine: Machine) -> Iterator[Problem]:
    """Loopback, the interfaces of containers and cards with RPS queue packets for a CPU, which may be busy with others."""
    if not machine.dropped_packets:
        return
    queue = machine.sysctl("net.core.netdev_max_backlog")
    text = (
        f"{machine.dropped_packets:,} packets for busy CPUs were dropped since the machine started (column 2 of /proc/net/softnet_stat): "
        "each costs its connection 200 ms at least"
    )
    if queue is None:
        yield Problem("dropped_packets", f"{text}; on the host, net.core.netdev_max_backlog = {PACKET_QUEUE} makes room", False)
    elif queue < PACKET_QUEUE:
        lines = (Change("dropped_packets", "sysctl", "net.core.netdev_max_backlog", str(PACKET_QUEUE)),)
        yield Problem("dropped_packets", f"{text}; net.core.netdev_max_backlog is {queue:,}", False, lines)
    else:
        yield Problem("dropped_packets", f"{text}; if it still grows with a queue of {queue:,}, the CPUs are too few", False)
