"""What each connection costs, in bytes, and where each figure is from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from unlimitedws import cost
from unlimitedws.doctor.machine import Machine
from unlimitedws.doctor.server import Server

MEASURED = "docs/performance.md"
TABLED = "docs/how-to/tune-for-many-connections.md"


class Part(NamedTuple):
    """source: where the figure is from, for who wants to check it."""

    what: str
    bytes: int
    source: str


class Price(NamedTuple):
    """Of one idle connection. The app's own state comes on top.

    on_top: what comes to it once there is something to do; the app's messages apart, at most."""

    parts: tuple[Part, ...]
    on_top: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


def price(machine: Machine, server: Server) -> Price:
    config = server.config
    parts = [kernel_part(machine, server), row_part(server.engine)]
    if server.has_v6 and server.engine == "native":
        parts.append(Part("its IPv6 address", cost.V6_BYTES, "engine/table.pyx"))
    if server.has_meters and server.engine == "native":
        parts.append(Part("its counts, for rates or the access log", cost.METER_BYTES, "engine/table.pxd"))
    if server.has_tls:
        parts.append(Part("TLS, of OpenSSL", cost.TLS_BYTES, MEASURED))
    if config.deflate and config.deflate_takeover:
        windows = next(size for bits, size in cost.TAKEOVER_BYTES.items() if config.deflate_window_bits <= bits)
        parts.append(Part("compression windows (deflate_takeover)", windows, "docs/how-to/compress-messages.md"))
    return Price(tuple(parts), tuple(on_top(machine, server)))


def on_top(machine: Machine, server: Server) -> Iterator[Part]:
    """While something is under way, and of a peer that does its worst."""
    config, sent, read = server.config, machine.sysctl("net.ipv4.tcp_wmem", 2), machine.sysctl("net.ipv4.tcp_rmem", 2)
    yield Part("a page, while something is under way", cost.BUSY_BYTES, TABLED)
    if config.sndbuf_bytes:  # socket(7): the kernel doubles it, for its own accounting
        yield Part(
            "at most, in the kernel, to a peer that takes nothing", 2 * config.sndbuf_bytes, "sndbuf_bytes, which the kernel doubles"
        )
    elif sent is not None:
        yield Part("at most, in the kernel, to a peer that takes nothing", sent, "net.ipv4.tcp_wmem")
    yield Part("at most, in the worker, to a peer that takes nothing", config.queue_bytes, "queue_bytes")
    if read is not None:
        yield Part("at most, in the kernel, from a peer whose reads are paused", read, "net.ipv4.tcp_rmem")
    yield Part("at most, in the worker, of a message that is not whole yet", config.message_bytes, "message_bytes")


def kernel_part(machine: Machine, server: Server) -> Part:
    what = "the kernel's slab, in no process"
    own = machine.socket_v6_bytes if server.has_v6 else machine.socket_bytes
    if own is not None:
        return Part(what, own, "/proc/slabinfo of this kernel")
    return Part(what, cost.KERNEL_BYTES, f"{TABLED}, Linux 6.18; root sees this kernel's own")


def row_part(engine: str) -> Part:
    if engine == "native":
        try:
            from unlimitedws.engine.table import ROW_BYTES

            return Part("a row of the server's table", ROW_BYTES, "the native engine's own struct")
        except ImportError:  # judged for another machine: it is not built on this one
            return Part("a row of the server's table", cost.ROW_BYTES[engine], "engine/table.pxd")
    return Part("the portable engine's objects", cost.ROW_BYTES[engine], MEASURED)
