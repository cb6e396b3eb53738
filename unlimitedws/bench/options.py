"""Every option of `unlimitedws bench`, declared once: its flag, its help and its row in the reference come from here."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from unlimitedws.config import C_INT, MIB, flag
from unlimitedws.errors import BadValue, ConfigError
from unlimitedws.sources import parse_float, parse_int

MODES = ("echo", "idle", "connect", "broadcast", "slow", "half-open", "reconnect")
ONE_AFTER_THE_OTHER = {
    "echo": "every connection sends messages and checks the answers",
    "idle": "connections come, are held at rest, a sample of them is asked, all leave; memory before, meanwhile and after",
    "connect": "a storm: connect, upgrade, close, again and again",
    "broadcast": "one connection publishes, the others receive",
    "slow": "slow readers ask for answers that they hardly read, while others are timed",
    "half-open": "connections that never finish their handshake, or say nothing more, while others are timed",
    "reconnect": "all connections are lost at once and come back",
}


@dataclass(frozen=True, slots=True)
class About:
    """What an option says of itself, apart from name, type and default."""

    group: str
    help: str
    minimum: float = 0
    maximum: float = C_INT
    choices: tuple[str, ...] = ()
    zero: str = ""  #: what 0 (or an empty text) means, where it means something special
    metavar: str = ""
    modes: tuple[str, ...] = MODES  #: elsewhere it would do nothing, and is an error


def option(default: Any, group: str, help: str, **about: Any) -> Any:
    return field(default=default, metadata={"about": About(group, help, **about)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one run, checked when made; raises BadValue. Units are the ends of the names."""

    mode: str = option("echo", "load", "what the connections do", choices=MODES)
    connections: int = option(64, "load", "connections; slow and half-open ones in these modes", minimum=1)
    rate: float = option(
        0.0, "load", "messages, publications or (connect) connections a second in all, sent when they are due whatever the server does: an "
        "open loop; latencies count from then", maximum=1e9, zero="the next when the last is answered: a closed loop",
        modes=("echo", "connect", "broadcast"),
    )  # fmt: skip
    pipeline: int = option(
        1,
        "load",
        "messages (publications) in flight in a closed loop, on each connection",
        minimum=1,
        maximum=4096,
        modes=("echo", "broadcast"),
    )
    message_bytes: int = option(32, "load", "bytes of a message; of a publication at least 32, of a Ping at most 125", maximum=1024 * MIB)
    binary: bool = option(False, "load", "binary messages instead of text")
    probe: str = option(
        "echo",
        "load",
        "what is timed in idle, slow, half-open: a message that is echoed, or a Ping",
        choices=("echo", "ping"),
        modes=("idle", "slow", "half-open"),
    )

    warm_s: float = option(1.0, "times", "time of the load before it is measured", maximum=86400)
    measure_s: float = option(
        5.0, "times", "time that is measured; idle: over which the sample is spread", minimum=0.05, maximum=86400 * 30
    )
    rest_s: float = option(
        5.0, "times", "idle: time at rest, over which the server's CPU is measured; reconnect: before the loss", maximum=86400
    )
    after_s: float = option(5.0, "times", "idle: time after all have left, before the server's memory is read again", maximum=86400)
    timeout_s: float = option(10.0, "times", "longest time for a handshake or an answer", minimum=0.1, maximum=3600)
    ramp_timeout_s: float = option(300.0, "times", "longest time until all are connected", minimum=0.1, maximum=86400)

    connect_rate: float = option(
        0.0, "connecting", "connections a second while they come up", maximum=1e7, zero="as fast as they are accepted"
    )
    inflight: int = option(0, "connecting", "handshakes at a time, of all processes", zero="64 for each load process, and 256 at least")
    abrupt: bool = option(False, "connecting", "connections end by a reset, without closing handshakes")
    header: tuple[str, ...] = option((), "connecting", "'Name: value' for every upgrade request; may be given again", metavar="HEADER")
    subprotocol: tuple[str, ...] = option((), "connecting", "a subprotocol to offer; may be given again", metavar="NAME")

    cafile: str = option(
        "", "connecting", "wss: trust the authorities in this file (PEM)", zero="those that this system trusts", metavar="FILE"
    )
    insecure: bool = option(False, "connecting", "wss: take any certificate")

    sample: int = option(1000, "idle", "messages or Pings, each to another connection, while all are held", zero="none", modes=("idle",))
    subscribe: str = option(
        "", "broadcast", "what each receiver says once it is connected", zero="nothing", metavar="TEXT", modes=("broadcast",)
    )
    read_bytes_per_s: int = option(0, "slow", "what a slow reader reads", zero="nothing, ever", modes=("slow",))
    stuff_bytes: int = option(4 * MIB, "slow", "the most that a slow reader sends", minimum=1, modes=("slow",))
    healthy: int = option(16, "slow", "connections beside them that are timed (half-open as well)", minimum=1, modes=("slow", "half-open"))
    healthy_rate: float = option(
        200.0, "slow", "messages a second of theirs, in all (half-open as well)", minimum=0.1, maximum=1e7, modes=("slow", "half-open")
    )
    stage: str = option(
        "request", "half-open", "where they stop: tcp (connected), request (half of it sent), silent (open, but neither read nor answer)",
        choices=("tcp", "request", "silent"), modes=("half-open",))  # fmt: skip
    spread_s: float = option(
        0.0, "reconnect", "time over which the clients spread their first attempts to come back", maximum=3600, modes=("reconnect",)
    )

    pid: int = option(0, "server", "its root process, if it runs here: memory (PSS) and CPU of its whole tree", zero="unknown")

    processes: int = option(0, "load processes", "how many", maximum=4096, zero="as few as their limits of open files allow")
    sources: str = option(
        "", "load processes", "source addresses: how many of 127.0.0.2 and up, or a list with commas",
        zero="as many as the connections need of a loopback server's", metavar="N|ADDRESS,...",
    )  # fmt: skip
    cpus: str = option("", "load processes", "CPUs to run on, as 1 or 1,3 or 2-5", zero="any", metavar="LIST")

    json: str = option("", "results", "write everything that was measured to this file", zero="nowhere", metavar="FILE")
    plot: str = option("", "results", "draw the latencies into this file, PNG or SVG", zero="nowhere", metavar="FILE")
    quiet: bool = option(False, "results", "no progress lines")

    def __post_init__(self) -> None:
        for name in about():
            check(name, getattr(self, name))
        if self.mode == "broadcast" and self.message_bytes < 32:
            object.__setattr__(self, "message_bytes", 32)  # room for its time and number

    @property
    def opcode(self) -> int:
        return 2 if self.binary else 1

    @property
    def is_open_loop(self) -> bool:
        """Whether latencies are free of coordinated omission. In reconnect all are due at the loss, and latencies count from it."""
        return self.rate > 0 or self.mode in ("idle", "slow", "half-open", "reconnect")


def about() -> dict[str, About]:
    """Each option's name and what it says of itself."""
    return {each.name: each.metadata["about"] for each in fields(Options)}


KINDS = get_type_hints(Options)
DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(Options)}


def check(name: str, value: object) -> None:
    """Raises BadValue unless the option accepts this value."""
    its = about()[name]
    if its.choices and value not in its.choices:
        raise BadValue(name, value, flag(name), ", ".join(its.choices))
    if isinstance(value, int | float) and not isinstance(value, bool) and not its.minimum <= value <= its.maximum:
        raise BadValue(name, value, flag(name), accepted(name))


def accepted(name: str) -> str:
    its = about()[name]
    if its.choices:
        return ", ".join(its.choices)
    kind = {int: "a whole number", float: "a number"}.get(KINDS[name])
    return f"{kind} from {its.minimum:g} to {its.maximum:.12g}" if kind else "text"


# ---- the command line


def add_flags(into: argparse.ArgumentParser) -> None:
    """A flag for each option, in the groups that they name."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, its in about().items():
        group = groups.setdefault(its.group, into.add_argument_group(its.group))
        words = help_of(name).replace("%", "%%")
        if KINDS[name] is bool:
            group.add_argument(flag(name), action="store_true", default=argparse.SUPPRESS, help=words)
        else:
            action = "append" if isinstance(DEFAULTS[name], tuple) else "store"
            group.add_argument(flag(name), metavar=metavar(name), action=action, default=argparse.SUPPRESS, help=words)


def help_of(name: str) -> str:
    its, default = about()[name], DEFAULTS[name]
    zero = f"; {'0' if isinstance(default, int | float) else 'without'}: {its.zero}" if its.zero else ""
    shown = (
        f" (default: {default if isinstance(default, int) else f'{default:g}'})"
        if isinstance(default, int | float) and not isinstance(default, bool) and (default or not its.zero)
        else ""
    )
    return its.help + zero + (f" (default: {default})" if its.choices else shown)


def metavar(name: str) -> str:
    its = about()[name]
    if its.metavar or its.choices:
        return its.metavar or "{" + ",".join(its.choices) + "}"
    return {"s": "SECONDS", "bytes": "BYTES"}.get("" if name.endswith("_per_s") else name.rpartition("_")[2], "N")


def parse(given: dict[str, Any]) -> Options:
    """Options from the text of flags. Raises BadValue, and ConfigError for one that its mode has no use for."""
    options = Options(**{name: value_of(name, text) for name, text in given.items() if name in DEFAULTS})
    for name in given:
        if name in DEFAULTS and options.mode not in (modes := about()[name].modes):
            raise ConfigError(f"{flag(name)} does nothing in --mode {options.mode}; it is for {', '.join(modes)}")
    return options


def value_of(name: str, text: Any) -> Any:
    if isinstance(text, list):
        return tuple(text)
    value: object = text
    if KINDS[name] is float:
        value = parse_float(text)
    elif KINDS[name] is int:
        value = parse_int(text, size=name.endswith("_bytes"))
    if value is None:
        raise BadValue(name, text, flag(name), accepted(name))
    return value


def to_json(options: Options) -> dict[str, Any]:
    return dataclasses.asdict(options)
