"""Each limit as a number of connections. The least of those that end it is what a machine holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from unlimitedws import cost
from unlimitedws.config import settings
from unlimitedws.doctor.cgroup import Limit
from unlimitedws.doctor.machine import Machine
from unlimitedws.doctor.price import price
from unlimitedws.doctor.server import Server
from unlimitedws.listener import wanted
from unlimitedws.place import Tcp
from unlimitedws.trust import Trusted

MOST_ROWS = 1 << 24
"""Of one worker's table (table.pyx)."""
PORTS = 64_512
"""That one address can connect from to one address and port: 1024 to 65535."""
MOST_WORKERS = int(settings()["workers"].maximum)
SOCKETS_A_CHAIN = 2
"""Of the kernel's hash of connections. At 7.6 heartbeats cost 1.6 times what they cost at 0.5 (docs/performance.md): the sockets that
a packet's search walks over are cold."""
OTHER_PROCESSES = 2
"""The supervisor and the template."""
WORKER_ROOMS = frozenset({"supervisor_files", "pids", "user_processes"})
"""What more workers run into."""
OF_EACH_WORKER = frozenset({"descriptors", "max_connections"})
"""What more workers lift."""


class Bound(NamedTuple):
    """The whole server holds at most so many connections because of `name`.

    ends: beyond it connections are refused, dropped or cut; else something only gets worse.
    why: the arithmetic, in words."""

    name: str
    connections: int
    ends: bool
    why: str


class Best(NamedTuple):
    """With so many workers it would hold most, as the kernel is set now; with more of them no more."""

    workers: int
    connections: int


def bounds(machine: Machine, server: Server) -> list[Bound]:
    """Every limit that is known, the least first; those that end it before those that slow it down."""
    found = [*descriptors(machine, server), *settings_of(server), *of_the_kernel(machine, server), *memory(machine, server)]
    found += [*processes(machine, server), *slowing(machine, server)]
    return sorted(found, key=lambda bound: (not bound.ends, bound.connections))


def nearest(found: Sequence[Bound]) -> Bound:
    """What ends it first. There is always one: descriptors."""
    return next(bound for bound in found if bound.ends)


def best(machine: Machine, server: Server) -> Best:
    """The fewest workers that hold as many connections as any number of them could, up to what the setting takes."""

    def ending(workers: int) -> Bound:
        return nearest(bounds(machine, replace(server, workers=workers)))

    # More workers hold more as long as it is their own limits that end it, and then less, since each costs memory.
    low, high = 1, MOST_WORKERS
    while low < high:
        middle = (low + high) // 2
        if ending(middle).name in OF_EACH_WORKER:
            low = middle + 1
        else:
            high = middle
    found = [Best(workers, ending(workers).connections) for workers in (1, max(1, low - 1), low)]
    return max(found, key=lambda one: (one.connections, -one.workers))


def descriptors_each(machine: Machine) -> int:
    """Connections of one worker."""
    return min(max(0, machine.open_files[1] - cost.WORKER_DESCRIPTORS), MOST_ROWS)


def descriptors(machine: Machine, server: Server) -> Iterator[Bound]:
    each = descriptors_each(machine)
    why = f"{times(server)} ({machine.open_files[1]:,} open files of RLIMIT_NOFILE, {cost.WORKER_DESCRIPTORS} of them its own)"
    if each == MOST_ROWS:
        why = f"{times(server)} {MOST_ROWS:,} rows of a worker's table"
    yield Bound("descriptors", each * server.workers, True, why)


def settings_of(server: Server) -> Iterator[Bound]:
    config = server.config
    if config.max_connections:
        yield Bound("max_connections", config.max_connections * server.workers, True, f"{times(server)} {config.max_connections:,}")
    if config.max_connections_total:
        yield Bound("max_connections_total", config.max_connections_total, True, "the setting")


def of_the_kernel(machine: Machine, server: Server) -> Iterator[Bound]:
    own = server.workers * cost.WORKER_DESCRIPTORS
    most, open_now = machine.sysctl("fs.file-max"), machine.sysctl("fs.file-nr") or 0
    if most is not None:
        yield Bound(
            "files", max(0, most - open_now - own), True, f"{most:,} of fs.file-max, {open_now:,} open now, {own:,} for the workers"
        )
    watches = machine.sysctl("fs.epoll.max_user_watches")
    if watches is not None:
        yield Bound("epoll_watches", max(0, watches - own), True, f"{watches:,} of fs.epoll.max_user_watches for each user")
    tracked, noted = machine.sysctl("net.netfilter.nf_conntrack_max"), machine.sysctl("net.netfilter.nf_conntrack_count") or 0
    if tracked is not None and machine.tracks and server.has_tcp:
        now = f"{noted:,} in it now" if not machine.has_own_network else "the host's, whose count is not to be seen here"
        yield Bound("conntrack", max(0, tracked - noted), True, f"{tracked:,} of nf_conntrack_max, {now}")


def memory(machine: Machine, server: Server) -> Iterator[Bound]:
    yield from throttled(machine, server)
    rooms = memory_rooms(machine, server)
    if not rooms:
        return
    room, of = min(rooms, key=lambda each: each[0])
    each = price(machine, server).bytes
    fixed = fixed_bytes(server)
    left = max(0, room - fixed)
    why = f"{amount(room)} left {of}, less {amount(fixed)} for {count(server.workers, 'empty worker', 'empty workers')} and the supervisor"
    yield Bound("memory", left // each, True, f"{why}; {each:,} bytes each")
    busy = each + cost.BUSY_BYTES
    yield Bound("memory_busy", left // busy, False, f"the same with something under way to everybody: a page more, {busy:,} bytes each")


def throttled(machine: Machine, server: Server) -> Iterator[Bound]:
    """Beyond memory.high the kernel takes memory back and slows down everybody in the cgroup, instead of killing somebody."""
    if machine.memory_highs:
        high = min(machine.memory_highs, key=lambda limit: limit.left)
        left = max(0, high.left - fixed_bytes(server))
        why = f"{amount(high.left)} left of {high.path}, less {amount(fixed_bytes(server))}; beyond, all of the cgroup is slowed down"
        yield Bound("memory_high", left // price(machine, server).bytes, False, why)


def memory_rooms(machine: Machine, server: Server) -> list[tuple[int, str]]:
    """Bytes that may still be used, and of what: the machine and each cgroup with a limit."""
    shed = server.config.shed_memory or 1.0
    rooms = []
    if machine.memory_bytes is not None and machine.available_bytes is not None:
        kept = int(machine.memory_bytes * (1 - shed))
        rooms.append((max(0, machine.available_bytes - kept), "of the machine" + until(shed)))
    for limit in machine.memory_limits:
        rooms.append((max(0, int(limit.limit * shed) - limit.used), f"of {limit.path}{until(shed)}"))
    return rooms


def until(shed: float) -> str:
    return f" (up to shed_memory, {shed:.0%})" if shed < 1 else ""


def fixed_bytes(server: Server) -> int:
    """What the processes take without a connection, the app's own apart."""
    return cost.BASE_BYTES + server.workers * cost.WORKER_BYTES


class Room(NamedTuple):
    """There can be so many workers because of `name`, one of WORKER_ROOMS.  why: the arithmetic, in words."""

    name: str
    workers: int
    why: str


def worker_rooms(machine: Machine, server: Server) -> Iterator[Room]:
    """The supervisor and the template come first."""
    files, own = machine.open_files[1], slot_descriptors(tcp_places(server))
    workers = supervised(machine, tcp_places(server))
    yield Room("supervisor_files", workers, f"{files:,} open files of RLIMIT_NOFILE for the supervisor, {own} of them for each worker")
    limits: list[Limit] = sorted(machine.process_limits, key=lambda limit: limit.left)
    rooms = [("pids", limits[0].left, limits[0].path)] if limits else []
    if machine.processes is not None:
        left = max(0, machine.processes - machine.user_tasks)
        rooms.append(("user_processes", left, f"{machine.processes:,} of RLIMIT_NPROC, which counts all of the user's"))
    yield from (Room(name, max(0, left - OTHER_PROCESSES), f"{left:,} left of {of}") for name, left, of in rooms)


def supervised(machine: Machine, places: int) -> int:
    """Workers of one supervisor that listen at so many places of TCP."""
    return max(0, machine.open_files[1] - cost.SUPERVISOR_DESCRIPTORS) // slot_descriptors(places)


def slot_descriptors(places: int) -> int:
    """Of the supervisor, for each worker."""
    return cost.SLOT_DESCRIPTORS + places


def tcp_places(server: Server) -> int:
    """Each worker has a listener of its own for each; Unix and systemd's listeners all of them share."""
    return sum(isinstance(place, Tcp) for place in wanted(server.config))


def processes(machine: Machine, server: Server) -> Iterator[Bound]:
    """What those workers hold that there can be."""
    for room in worker_rooms(machine, server):
        if room.workers < MOST_WORKERS:
            why = f"{room.why}: {count(room.workers, 'worker', 'workers')} at most"
            yield Bound(room.name, room.workers * descriptors_each(machine), True, why)


def slowing(machine: Machine, server: Server) -> Iterator[Bound]:
    pages = machine.sysctl("net.ipv4.tcp_mem", 1)
    if pages is not None and server.has_tcp:
        why = (
            f"{pages:,} pages of net.ipv4.tcp_mem before windows shrink, {machine.tcp_pages:,} in use; a page for each connection under way"
        )
        yield Bound("tcp_mem", max(0, pages - machine.tcp_pages), False, why)
    if server.config.ping_interval_s:
        held = int(machine.cpus * server.config.ping_interval_s / cost.PING_S)
        each = f"{cost.PING_S * 1e6:.0f} us for each Ping and Pong, every {server.config.ping_interval_s:g} s"
        yield Bound("cpu", held, False, f"all of {count(machine.cpus, 'CPU', 'CPUs')} busy with heartbeats alone: {each}")
    yield from chains(machine, server)
    buckets = machine.sysctl("net.netfilter.nf_conntrack_buckets")
    if buckets and machine.tracks and server.has_tcp:
        why = f"a connection's note is in two of {buckets:,} nf_conntrack_buckets; beyond, every packet's search is longer"
        yield Bound("conntrack_buckets", buckets, False, why)
    if (proxied := ports(machine, server)) is not None:
        yield proxied


def chains(machine: Machine, server: Server) -> Iterator[Bound]:
    """The kernel looks for each packet's socket in one chain of a hash; a negative number: of the hash that it shares with its host."""
    entries = machine.sysctl("net.ipv4.tcp_ehash_entries")
    if entries and server.has_tcp:
        ends = ends_here(server)
        sockets = f"{SOCKETS_A_CHAIN} sockets" if ends == 1 else f"{SOCKETS_A_CHAIN} sockets, both ends of a connection here,"
        shared = ", shared with the host" if entries < 0 else ""
        why = f"{sockets} in each of {abs(entries):,} chains (net.ipv4.tcp_ehash_entries{shared}); beyond, every packet's search is longer"
        yield Bound("tcp_ehash", abs(entries) * SOCKETS_A_CHAIN // ends, False, why)


def ends_here(server: Server) -> int:
    """Sockets of this machine for each connection: 2 where all clients come through proxies on it."""
    trusted = Trusted(server.config.trusted_proxies)
    return 2 if trusted.hosts and not any(trusted.nets.values()) and all(map(is_loopback, trusted.hosts)) else 1


def is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def ports(machine: Machine, server: Server) -> Bound | None:
    """Where all clients come through proxies with known addresses: a proxy needs a port of its own for each connection."""
    trusted = Trusted(server.config.trusted_proxies)
    places = wanted(server.config)
    if not trusted.hosts or trusted.unix or any(trusted.nets.values()) or not all(isinstance(place, Tcp) for place in places):
        return None
    low, high = machine.sysctl("net.ipv4.ip_local_port_range"), machine.sysctl("net.ipv4.ip_local_port_range", 1)
    here = high - low + 1 if low is not None and high is not None else PORTS
    of_each = [here if is_loopback(host) else PORTS for host in trusted.hosts]
    ways = f"{count(len(of_each), 'address', 'addresses')} of proxies, {count(len(places), 'port', 'ports')} to connect to"
    why = f"{ways}, {max(of_each):,} ports of theirs for each pair"
    return Bound("proxy_ports", sum(of_each) * len(places), False, why)


def times(server: Server) -> str:
    return f"{count(server.workers, 'worker', 'workers')} x"


def count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def amount(size: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
