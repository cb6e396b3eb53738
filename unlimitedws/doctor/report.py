"""A verdict as a document for programs and as text for people. fields.py says what each field means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import Any

from unlimitedws.doctor.capacity import Bound, amount, count
from unlimitedws.doctor.cgroup import Limit
from unlimitedws.doctor.changes import LIFTS, Change
from unlimitedws.doctor.lines import WHERE, lines
from unlimitedws.doctor.machine import Machine
from unlimitedws.doctor.server import Server
from unlimitedws.doctor.verdict import Verdict
from unlimitedws.doctor.versions import versions

Document = dict[str, Any]

SETTINGS = (
    "backlog", "max_connections", "max_connections_total", "ping_interval_s", "ping_timeout_s", "shed_memory", "max_handshakes_pending",
    "handshake_timeout_s", "handshakes_per_s", "trusted_proxies", "threads",
)  # fmt: skip
"""Those that a verdict depends on, or that bear on what it says."""


MOST_NARROW = 80

# ---- for programs


def document(verdict: Verdict) -> Document:
    return {
        "wanted": verdict.wanted,
        "enough": verdict.is_enough,
        "connections": verdict.held,
        "limited_by": verdict.bound.name,
        "best": verdict.best._asdict(),
        "bounds": [bound._asdict() for bound in verdict.bounds],
        "bytes_each": verdict.price.bytes,
        "price": [part._asdict() for part in verdict.price.parts],
        "on_top": [part._asdict() for part in verdict.price.on_top],
        "problems": [{"name": each.name, "text": each.text, "serious": each.serious} for each in verdict.problems],
        "changes": [change._asdict() for change in verdict.changes],
        "lines": lines(verdict.changes),
        "server": server(verdict.server),
        "machine": machine(verdict.machine),
    }


def server(server: Server) -> Document:
    about = {"workers": server.workers, "engine": server.engine, "why_not_native": server.why_not_native, "uvloop": server.uvloop}
    return {**about, "versions": versions(), "settings": {name: getattr(server.config, name) for name in SETTINGS}}


def machine(machine: Machine) -> Document:
    soft, hard = machine.open_files
    return {
        "kernel": machine.kernel,
        "surroundings": machine.surroundings,
        "own_network": machine.has_own_network,
        "sealed": machine.sealed,
        "cpus": machine.cpus,
        "open_files": {"soft": soft, "hard": hard},
        "user_processes": machine.processes,
        "user_tasks": machine.user_tasks,
        "memory_bytes": machine.memory_bytes,
        "available_bytes": machine.available_bytes,
        "memory_limits": [limit._asdict() for limit in machine.memory_limits],
        "memory_highs": [limit._asdict() for limit in machine.memory_highs],
        "process_limits": [limit._asdict() for limit in machine.process_limits],
        "tcp_pages": machine.tcp_pages,
        "dropped_packets": machine.dropped_packets,
        "huge_pages": machine.huge_pages,
        "tracks": machine.tracks,
        "sysctls": {name: list(numbers) for name, numbers in machine.sysctls.items()},
        "unknown": dict(machine.unknown),
    }


# ---- for people


def text(verdict: Verdict, columns: int = 1000) -> str:
    """columns: of the terminal; reasons that are longer go on below. Lines to copy stay whole."""
    parts = [headline(verdict), table(verdict.bounds, columns), costs(verdict), around(verdict, columns)]
    parts += [found(verdict, columns), advice(verdict)]
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part)


def headline(verdict: Verdict) -> Iterator[str]:
    about, best = verdict.server, verdict.best
    served = f"{count(about.workers, 'worker', 'workers')}, {about.engine} engine"
    yield f"{verdict.held:,} connections ({served}): {verdict.bound.name} ends it first"
    if best.connections > verdict.held:
        yield f"{best.connections:,} with {count(best.workers, 'worker', 'workers')} and the machine as it is"
    if verdict.wanted is not None:
        yield f"{verdict.wanted:,} are wanted: {'enough' if verdict.is_enough else 'not enough'}"


def table(bounds: Sequence[Bound], columns: int) -> Iterator[str]:
    for title, shown in (("ends it at", [b for b in bounds if b.ends]), ("gets worse beyond", [b for b in bounds if not b.ends])):
        yield f"{title:>18}"
        for bound in shown:
            yield filled(f"{bound.connections:>18,}  {bound.name:<22} {bound.why}", columns, " " * 20)


def costs(verdict: Verdict) -> Iterator[str]:
    yield f"An idle connection costs {verdict.price.bytes:,} bytes, without the app's own:"
    yield from (f"{part.bytes:>18,}  {part.what} ({part.source})" for part in verdict.price.parts)
    yield "and more, where there is something to do:"
    yield from (f"{part.bytes:>18,}  {part.what} ({part.source})" for part in verdict.price.on_top)


def around(verdict: Verdict, columns: int) -> Iterator[str]:
    """What would run, where this was read, what was read, and what could not be."""
    machine, installed = verdict.machine, versions()
    uvloop = f"uvloop {installed['uvloop']}" if installed["uvloop"] else "no uvloop"
    yield f"unlimitedws {installed['unlimitedws']}, {verdict.server.engine} engine, {uvloop}, Python {installed['python']}"
    size = f", {amount(machine.memory_bytes)}" if machine.memory_bytes is not None else ""
    yield f"Linux {machine.kernel or 'of some release'}, {count(machine.cpus, 'CPU', 'CPUs')} to use{size}, {machine.surroundings}"
    yield from (used(limit, amount) for limit in (*machine.memory_limits, *machine.memory_highs))
    yield from (used(limit, "{:,}".format) for limit in machine.process_limits)
    known = ", ".join(f"{name} {' '.join(map(str, numbers))}" for name, numbers in machine.sysctls.items())
    if known:
        yield filled(f"The kernel says: {known}", columns, "  ")
    if machine.has_own_network:
        yield "A network namespace of its own: settings of the whole kernel and the firewall of the host are not to be seen from here."
    if machine.sealed:
        yield "/proc/sys is read-only here: set its values where the container is started, or on its host."
    if machine.unknown:
        yield f"Not known here: {', '.join(f'{name} ({why})' for name, why in machine.unknown.items())}"


def used(limit: Limit, show: Any) -> str:
    return f"{limit.path}: {show(limit.used)} of {show(limit.limit)} in use"


def found(verdict: Verdict, columns: int) -> Iterator[str]:
    for each in verdict.problems:
        yield filled(f"{'problem' if each.serious else 'could be better'}: {each.text}", columns, "  ")


def filled(text: str, columns: int, indent: str) -> str:
    """A line of a terminal, and what is too long for it on further ones; words stay whole."""
    return fill(text, max(MOST_NARROW, columns), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def advice(verdict: Verdict) -> Iterator[str]:
    """What makes the number fit, and apart from it what mends the problems."""
    lifting = [change for change in verdict.changes if change.bound in LIFTS]
    mending = [change for change in verdict.changes if change.bound not in LIFTS]
    manner = " and slow nobody down" if verdict.is_enough else ""
    yield from to_change(f"To hold {verdict.wanted or 0:,}{manner}, change:", lifting)
    yield from to_change("To mend this, change:" if not lifting else "And to mend the problems:", mending)


def to_change(title: str, changes: Sequence[Change]) -> Iterator[str]:
    if not changes:
        return
    yield title
    yield from (f"  {lacking(change)}" for change in changes if change.kind == "hardware")
    for section, written in lines(changes).items():
        yield f"  {section}: {WHERE[section]}"
        yield from (f"    {line}" for line in written)


def lacking(change: Change) -> str:
    size = int(change.value)
    what = {
        "memory": f"{amount(size)} of memory more",
        "memory_busy": f"{amount(size)} of memory more, for a message to everybody at once",
        "cpu": f"{count(size, 'CPU', 'CPUs')} more, for the heartbeats",
        "proxy_ports": f"{count(size, 'address', 'addresses')} of proxies more, or a Unix socket, which needs no ports",
    }
    return f"no line does it: {what[change.bound]}"
