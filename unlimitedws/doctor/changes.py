"""What has to be another value so that a number of connections fits: exact, and never less than it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from unlimitedws import cost
from unlimitedws.doctor import capacity
from unlimitedws.doctor.capacity import MOST_ROWS, MOST_WORKERS, OTHER_PROCESSES, PORTS
from unlimitedws.doctor.machine import Machine
from unlimitedws.doctor.price import price
from unlimitedws.doctor.server import Server
from unlimitedws.listener import wanted as places_of
from unlimitedws.place import MOST as MOST_PLACES
from unlimitedws.place import Tcp
from unlimitedws.trust import Trusted

STEP = 65_536
"""Numbers of descriptors and pages are rounded up to this, as people write them."""
MEMORY_STEP = 64 << 20
PROCESS_STEP = 64
TRACKED = 1.5
"""Ended connections stay in the table of a firewall for another two minutes (nf_conntrack_tcp_timeout_time_wait)."""
MOST_CHAINS = 1 << 24
"""Of the hash that a network namespace has of its own (Documentation/networking/ip-sysctl.rst)."""


class Change(NamedTuple):
    """bound: what it lifts.  kind: one of ORDER; `hardware` is what no line changes.
    key: the setting, the sysctl, the file of a cgroup, or what is missing.  value: as it is written; of hardware, how much more.
    instead_of: the key of a change that this one replaces."""

    bound: str
    kind: str
    key: str
    value: str
    instead_of: str = ""


def changes(machine: Machine, server: Server, wanted: int) -> list[Change]:
    """What lifts every bound that is below `wanted`."""
    short = [bound.name for bound in capacity.bounds(machine, server) if bound.connections < wanted]
    return together([change for name in short for change in LIFTS[name](machine, server, wanted)])


def together(changes: Sequence[Change]) -> list[Change]:
    """One change for each thing, the furthest; of what is missing one for each bound, since less of it may do."""
    found: dict[tuple[str, ...], Change] = {}
    for change in changes:
        key = (change.kind, change.key, change.bound if change.kind == "hardware" else "")
        if key not in found or (change.value.isdigit() and int(change.value) > int(found[key].value)):
            found[key] = change
    return sorted(found.values(), key=lambda change: ORDER.index(change.kind))


ORDER = ("setting", "open_files", "sysctl", "boot", "memory", "memory_high", "processes", "user_processes", "hardware")


def power_of_2(number: float) -> int:
    """The least that is no less."""
    return 1 << (int(number) - 1).bit_length()


def up(number: float, step: int) -> int:
    return -(-int(number + 0.5) // step) * step


def lift_descriptors(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    """More for each worker; or, where nothing is in the way of it, more workers."""
    each = -(-wanted // server.workers)
    if each > MOST_ROWS:  # more than the table of one worker has rows
        yield Change("descriptors", "setting", "workers", str(-(-wanted // MOST_ROWS)))
    yield from open_files("descriptors", machine, up(min(each, MOST_ROWS) + cost.WORKER_DESCRIPTORS, STEP))
    more = workers_instead(machine, server, wanted)
    if more > server.workers and each <= MOST_ROWS:
        yield Change("descriptors", "setting", "workers", str(more), instead_of="RLIMIT_NOFILE")


def open_files(bound: str, machine: Machine, limit: int) -> Iterator[Change]:
    yield Change(bound, "open_files", "RLIMIT_NOFILE", str(limit))
    if limit > (machine.sysctl("fs.nr_open") or limit):
        yield Change(bound, "sysctl", "fs.nr_open", str(limit))


def workers_instead(machine: Machine, server: Server, wanted: int) -> int:
    """So many workers hold `wanted` with the descriptors that each has; those there are where more would lack something else for it.

    Where memory is short they are no way out, since each takes some; nor where the limit of each has to be raised anyway."""
    each = capacity.descriptors_each(machine)
    workers = -(-wanted // each) if each else MOST_WORKERS + 1
    if not server.workers < workers <= MOST_WORKERS:
        return server.workers

    def lacking(server: Server) -> set[str]:
        return {bound.name for bound in capacity.bounds(machine, server) if bound.connections < wanted}

    now, then = lacking(server), lacking(replace(server, workers=workers))
    in_the_way = then - now or then & {"memory", "memory_busy", "memory_high"} or "max_connections" in now
    return server.workers if in_the_way or workers > capacity.supervised(machine, places_for(machine, server, wanted)) else workers


def own_descriptors(machine: Machine, server: Server, wanted: int) -> int:
    """Of the workers, however many of those there come to be."""
    return workers_instead(machine, server, wanted) * cost.WORKER_DESCRIPTORS


def lift_max_connections(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    yield Change("max_connections", "setting", "max_connections", str(-(-wanted // server.workers)))


def lift_max_connections_total(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    yield Change("max_connections_total", "setting", "max_connections_total", str(wanted))


def lift_files(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    needed = wanted + (machine.sysctl("fs.file-nr") or 0) + own_descriptors(machine, server, wanted)
    yield Change("files", "sysctl", "fs.file-max", str(up(needed, STEP)))


def lift_epoll_watches(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    needed = wanted + own_descriptors(machine, server, wanted)
    yield Change("epoll_watches", "sysctl", "fs.epoll.max_user_watches", str(up(needed, STEP)))


def lift_conntrack(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    needed = TRACKED * (wanted + (machine.sysctl("net.netfilter.nf_conntrack_count") or 0))
    yield Change("conntrack", "sysctl", "net.netfilter.nf_conntrack_max", str(power_of_2(needed)))


def lift_conntrack_buckets(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    """As many as notes, which is the kernel's own proportion; 8 bytes each."""
    yield Change("conntrack_buckets", "sysctl", "net.netfilter.nf_conntrack_buckets", str(power_of_2(TRACKED * wanted)))


def lift_memory(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    yield from more_memory("memory", machine, server, wanted * price(machine, server).bytes)


def lift_memory_busy(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    yield from more_memory("memory_busy", machine, server, wanted * (price(machine, server).bytes + cost.BUSY_BYTES))


def more_memory(bound: str, machine: Machine, server: Server, connections_bytes: int) -> Iterator[Change]:
    needed, shed = connections_bytes + capacity.fixed_bytes(server), server.config.shed_memory or 1.0
    if machine.memory_bytes is not None and machine.available_bytes is not None:
        missing = needed - (machine.available_bytes - int(machine.memory_bytes * (1 - shed)))
        if missing > 0:  # of more memory, too, a part is kept free
            yield Change(bound, "hardware", "memory_bytes", str(up(missing / shed, MEMORY_STEP)))
    for limit in machine.memory_limits:
        enough = (limit.used + needed) / shed
        if enough > limit.limit:
            yield Change(bound, "memory", limit.path, str(up(enough, MEMORY_STEP)))


def lift_memory_high(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    needed = wanted * price(machine, server).bytes + capacity.fixed_bytes(server)
    for limit in machine.memory_highs:
        if limit.left < needed:
            yield Change("memory_high", "memory_high", limit.path, str(up(limit.used + needed, MEMORY_STEP)))


def lift_supervisor_files(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    """For as many workers as the settings say; where more would be needed, each has to hold more, which `lift_descriptors` says."""
    needed = cost.SUPERVISOR_DESCRIPTORS + capacity.slot_descriptors(places_for(machine, server, wanted)) * server.workers
    yield from open_files("supervisor_files", machine, up(needed, STEP))


def lift_pids(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    for limit in machine.process_limits:
        if limit.left < processes_for(machine, server, wanted):
            yield Change("pids", "processes", limit.path, str(up(limit.used + processes_for(machine, server, wanted), PROCESS_STEP)))


def lift_user_processes(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    needed = machine.user_tasks + processes_for(machine, server, wanted)
    yield Change("user_processes", "user_processes", "RLIMIT_NPROC", str(up(needed, PROCESS_STEP)))


def processes_for(machine: Machine, server: Server, wanted: int) -> int:
    """Processes and threads of so many workers as hold `wanted` with the descriptors that they have."""
    workers = max(server.workers, -(-wanted // max(1, capacity.descriptors_each(machine))))
    return OTHER_PROCESSES + min(workers, MOST_WORKERS) * (1 + server.config.threads)


def lift_tcp_mem(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    """Three, four and six parts, which are the kernel's own proportions (tcp_init_mem)."""
    pressure = up(wanted + machine.tcp_pages, STEP)
    yield Change("tcp_mem", "sysctl", "net.ipv4.tcp_mem", f"{pressure * 3 // 4} {pressure} {pressure * 3 // 2}")


def lift_tcp_ehash(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    """A chain for each socket, 8 bytes each: of the whole kernel only at its start, of a network namespace when that is made."""
    needed = power_of_2(wanted * capacity.ends_here(server))
    if machine.has_own_network:
        yield Change("tcp_ehash", "sysctl", "net.ipv4.tcp_child_ehash_entries", str(min(needed, MOST_CHAINS)))
    else:
        yield Change("tcp_ehash", "boot", "thash_entries", str(needed))


def lift_cpu(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    needed = -(-int(wanted * cost.PING_S * 1e6) // int(server.config.ping_interval_s * 1e6))
    yield Change("cpu", "hardware", "cpus", str(max(1, needed - machine.cpus)))


def lift_proxy_ports(machine: Machine, server: Server, wanted: int) -> Iterator[Change]:
    """All the ports of each proxy; and, where these are not enough, more ports to connect to."""
    hosts, places = Trusted(server.config.trusted_proxies).hosts, places_of(server.config)
    if any(map(capacity.is_loopback, hosts)):
        yield Change("proxy_ports", "sysctl", "net.ipv4.ip_local_port_range", "1024 65535")
    more = -(-wanted // (PORTS * len(hosts))) - len(places)
    last = places[-1]
    if more + len(places) > MOST_PLACES:
        yield Change("proxy_ports", "hardware", "proxies", str(-(-wanted // (PORTS * MOST_PLACES)) - len(hosts)))
    elif more > 0 and isinstance(last, Tcp) and 0 < last.port <= 65535 - more:
        added = [last._replace(port=last.port + number) for number in range(1, more + 1)]
        listen = server.config.listen or str(last)
        yield Change("proxy_ports", "setting", "listen", ", ".join([listen, *map(written, added)]))


def places_for(machine: Machine, server: Server, wanted: int) -> int:
    """Places of TCP that it listens at once `lift_proxy_ports` has been followed."""
    proxied, hosts = capacity.ports(machine, server), len(Trusted(server.config.trusted_proxies).hosts)
    places = capacity.tcp_places(server)
    return places if proxied is None or proxied.connections >= wanted else min(MOST_PLACES, max(places, -(-wanted // (PORTS * hosts))))


def written(place: Tcp) -> str:
    return f"{place}{'?proxy' if place.proxied else ''}"


LIFTS: dict[str, Callable[[Machine, Server, int], Iterator[Change]]] = {
    "descriptors": lift_descriptors,
    "max_connections": lift_max_connections,
    "max_connections_total": lift_max_connections_total,
    "files": lift_files,
    "epoll_watches": lift_epoll_watches,
    "conntrack": lift_conntrack,
    "conntrack_buckets": lift_conntrack_buckets,
    "memory": lift_memory,
    "memory_high": lift_memory_high,
    "memory_busy": lift_memory_busy,
    "supervisor_files": lift_supervisor_files,
    "pids": lift_pids,
    "user_processes": lift_user_processes,
    "tcp_mem": lift_tcp_mem,
    "cpu": lift_cpu,
    "tcp_ehash": lift_tcp_ehash,
    "proxy_ports": lift_proxy_ports,
}
"""Of each bound, what lifts it."""
