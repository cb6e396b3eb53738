"""Every setting, declared once.

From a field of `Config` come its command-line flag (`--ping-interval-s`), its environment variable
(`UNLIMITEDWS_PING_INTERVAL_S`), its key in a TOML file (`ping_interval_s`) and its row in the
reference. Later sources win: default < file < environment < flag < keyword argument.

`sources.load` merges what a command line has, `adapt` adds the keyword arguments of a program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unlimitedws.errors import BadValue, UnknownSetting

KIB = 1024
MIB = 1024 * KIB
TIB = 1024 * 1024 * MIB
C_INT = 2**31 - 1  # what the kernel and the native engine take for a plain number

PREFIX = "UNLIMITEDWS_"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a setting says of itself, apart from name, type and default."""

    group: str
    help: str
    minimum: float
    maximum: float
    choices: tuple[str, ...] | None = None
    zero: str = ""  #: what 0 means, where it means something special


def setting(
    default: Any,
    group: str,
    help: str,
    *,
    minimum: float = 0,
    maximum: float = C_INT,
    choices: tuple[str, ...] | None = None,
    zero: str = "",
) -> Any:
    about = Setting(group, help, minimum, maximum, choices, zero)
    return field(default=default, metadata={"setting": about})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting with its value. Frozen and checked when made; raises BadValue.

    The unit is the end of the name: `_s` seconds, `_bytes` bytes, none: a number of the thing named."""

    host: str = setting("127.0.0.1", "listening", "address to listen on; 0.0.0.0 for all of IPv4, :: for IPv6")
    port: int = setting(8000, "listening", "TCP port", maximum=65535, zero="any free port")
    backlog: int = setting(4096, "listening", "connections the kernel queues for one worker until it accepts", minimum=1)
    max_connections: int = setting(
        0, "listening", "connections one worker holds; more are closed at once", zero="as many as descriptors allow"
    )

    workers: int = setting(0, "processes", "worker processes", maximum=4096, zero="one for each usable CPU")
    engine: str = setting(
        "auto", "processes", "native (compiled), portable (pure Python), or auto: native where it is built",
        choices=("auto", "native", "portable"),
    )  # fmt: skip
    threads: int = setting(128, "processes", "threads for blocking handlers, in each worker", minimum=1, maximum=65536)
    thread_queue: int = setting(128, "processes", "blocking calls waiting for a thread; when full, reads wait")
    hang_timeout_s: float = setting(30.0, "processes", "a worker whose loop does not turn for so long is dumped and replaced", zero="never")
    restart_backoff_s: float = setting(30.0, "processes", "longest pause between restarts in a crash loop")
    stop_timeout_s: float = setting(30.0, "processes", "longest time a stop may take before connections are cut")
    drain_batch: int = setting(500, "processes", "connections each worker closes at a time when it stops", minimum=1)
    drain_pause_s: float = setting(0.05, "processes", "pause between these batches")
    reload: bool = setting(False, "processes", "development: restart the workers when a source file changes")

    admin_host: str = setting("127.0.0.1", "operations", "address of the stats endpoint")
    admin_port: int = setting(
        9000, "operations", "port of the stats endpoint; -1 switches it off", minimum=-1, maximum=65535, zero="any free port"
    )
    log_level: str = setting("info", "operations", "least severe log line shown", choices=("debug", "info", "warning", "error"))

    head_bytes: int = setting(16 * KIB, "limits", "largest request head; beyond it, 431", minimum=256, maximum=MIB)
    message_bytes: int = setting(MIB, "limits", "largest message; beyond it, close 1009", minimum=1, maximum=TIB)
    queue_bytes: int = setting(MIB, "limits", "output that may wait for a slow peer before queue_policy decides", minimum=1, maximum=TIB)
    queue_policy: str = setting(
        "close", "limits", "what happens at queue_bytes: close (1013) or drop the message", choices=("close", "drop")
    )
    high_water_bytes: int = setting(
        256 * KIB, "limits", "queued output beyond which send() returns False and reads stop", minimum=1, maximum=TIB
    )
    low_water_bytes: int = setting(64 * KIB, "limits", "queued output below which reads go on and on_drain is called", maximum=TIB)

    handshake_timeout_s: float = setting(10.0, "timeouts", "time a peer has to finish its request", minimum=0.1)
    ping_interval_s: float = setting(25.0, "timeouts", "silence after which a Ping is sent", zero="no heartbeats")
    ping_timeout_s: float = setting(20.0, "timeouts", "time a peer has to show life after a Ping", minimum=0.1)
    close_timeout_s: float = setting(5.0, "timeouts", "time a peer has to answer a Close frame", minimum=0.1)
    idle_timeout_s: float = setting(0.0, "timeouts", "close (1000) after so long without a message", zero="never")

    receive_bytes: int = setting(
        64 * KIB, "tuning", "the worker's one receive buffer; the most read at once", minimum=4 * KIB, maximum=64 * MIB
    )
    sndbuf_bytes: int = setting(
        0, "tuning", "SO_SNDBUF: kernel memory for a peer that does not read, before our queue", zero="the kernel's choice"
    )
    notsent_lowat_bytes: int = setting(
        0, "tuning", "TCP_NOTSENT_LOWAT: unsent bytes the kernel takes before we queue", zero="the kernel's choice"
    )

    def __post_init__(self) -> None:
        for name in settings():
            check(name, getattr(self, name), "Config")
        ordered = (("low_water_bytes", "high_water_bytes"), ("high_water_bytes", "queue_bytes"))
        for lower, upper in ordered:
            if getattr(self, lower) > getattr(self, upper):
                raise BadValue(lower, getattr(self, lower), "Config", f"at most {upper} ({getattr(self, upper)})")


def settings() -> dict[str, Setting]:
    """Name to description of every setting, in the order of the reference."""
    return {f.name: f.metadata["setting"] for f in fields(Config)}


def kind(name: str) -> type:
    """int, float, bool or str."""
    return type(DEFAULTS[name])


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def accepted(name: str) -> str:
    """What a setting accepts, as words for an error and for the reference."""
    about = settings()[name]
    if about.choices:
        return ", ".join(about.choices)
    if kind(name) is bool:
        return "true or false (in text also yes/no, on/off, 1/0)"
    if kind(name) is str:
        return "text, not empty"
    number = "a whole number" if kind(name) is int else "a number"
    size = "; in text also as 64k, 1MiB, 2g (powers of 1024)" if name.endswith("_bytes") else ""
    return f"{number} from {plain(about.minimum)} to {plain(about.maximum)}{size}"


def plain(number: float) -> str:
    """A limit without an exponent: 65535 and 1099511627776, not 1.1e+12."""
    return str(int(number)) if number == int(number) else str(number)


def check(name: str, value: object, source: str) -> None:
    """Raises BadValue unless the setting accepts `value`: exactly its type (an int will do for a float), in its range."""
    about, wanted = settings()[name], kind(name)
    fits = type(value) is wanted or (wanted is float and type(value) is int)
    if fits and isinstance(value, str):
        fits = value in about.choices if about.choices else bool(value.strip())
    elif fits and isinstance(value, int | float) and wanted is not bool:
        fits = about.minimum <= value <= about.maximum  # neither NaN nor an infinity passes
    if not fits:
        raise BadValue(name, value, source, accepted(name))


def adapt(config: Config | None, keywords: Mapping[str, object]) -> Config:
    """`config` (or the defaults) with the keyword arguments of a program over it. Raises ConfigError."""
    for name in keywords:
        if name not in DEFAULTS:
            raise UnknownSetting(name, "keyword argument", DEFAULTS)
    base = config if config is not None else Config()
    return dataclasses.replace(base, **keywords) if keywords else base  # type: ignore[arg-type]  # checked when made


DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Config)}
