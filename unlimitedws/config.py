"""Every setting, declared once.

From a field of `Config` come its command-line flag (`--ping-interval-s`), its environment variable
(`UNLIMITEDWS_PING_INTERVAL_S`), its key in a TOML file (`ping_interval_s`) and its row in the
reference. Later sources win: default < file < environment < flag < keyword argument.

`sources.load` merges what a command line has, `adapt` adds the keyword arguments of a program.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unlimitedws.errors import BadValue, UnknownSetting
from unlimitedws.hostnames import Hostnames
from unlimitedws.place import UNIX_PREFIX, path_of, places
from unlimitedws.trust import Trusted

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
    empty: str = ""  #: what an empty text means; "": it is not accepted
    parse: Callable[[str], object] | None = None  #: raises ValueError for a text that is not accepted


def setting(
    default: Any,
    group: str,
    help: str,
    *,
    minimum: float = 0,
    maximum: float = C_INT,
    choices: tuple[str, ...] | None = None,
    zero: str = "",
    empty: str = "",
    parse: Callable[[str], object] | None = None,
) -> Any:
    about = Setting(group, help, minimum, maximum, choices, zero, empty, parse)
    return field(default=default, metadata={"setting": about})


def http_path(text: str) -> None:
    """Raises ValueError unless `text` is empty or can be the path of a request, decoded."""
    if text and not text.startswith("/"):
        raise ValueError(f"a path starts with a slash: /{text}")
    if "?" in text or "#" in text:
        raise ValueError("paths are matched without their query")


def folder(text: str) -> None:
    """Raises ValueError unless `text` is empty or names a folder."""
    if text and not os.path.isdir(text):
        raise ValueError(f"there is no folder {os.path.abspath(text)}")


def socket_path(text: str) -> None:
    """Raises ValueError unless `text` is empty or can be the path of a Unix socket."""
    if text:
        path_of(UNIX_PREFIX + text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting with its value. Frozen and checked when made; raises BadValue.

    The unit is the end of the name: `_s` seconds, `_per_s` a number each second, `_bytes` bytes, none: a number of the
    thing named."""

    host: str = setting("127.0.0.1", "listening", "address to listen on; 0.0.0.0 for all of IPv4, :: for IPv6, * for both")
    port: int = setting(8000, "listening", "TCP port", maximum=65535, zero="any free port")
    listen: str = setting(
        "", "listening", "HOST:PORT, unix:PATH or systemd[:NAME], several of them with commas; see docs/how-to/listen-in-several-places.md",
        empty="host and port", parse=places,
    )  # fmt: skip
    backlog: int = setting(4096, "listening", "connections the kernel queues for one worker until it accepts", minimum=1)
    max_connections: int = setting(
        0, "listening", "connections one worker holds; more are closed at once", zero="as many as descriptors allow"
    )

    trusted_proxies: str = setting(
        "", "proxies", "addresses and networks of proxies whose word is believed, with commas; unix: all peers of Unix sockets",
        empty="none", parse=Trusted,
    )  # fmt: skip
    forwarded_header: str = setting(
        "none", "proxies", "the header in which trusted proxies name the client; the other one is never looked at",
        choices=("none", "forwarded", "x-forwarded-for"),
    )  # fmt: skip

    certfile: str = setting("", "tls", "PEM file with the certificate and its chain, and perhaps its key", empty="no TLS")
    keyfile: str = setting("", "tls", "PEM file with the certificate's private key", empty="it is in certfile")
    keyfile_password_file: str = setting("", "tls", "file whose first line is the password of the keys", empty="they have none")
    sni_dir: str = setting(
        "", "tls", "folder of further certificates: NAME.pem with the key in it, or NAME/fullchain.pem and NAME/privkey.pem",
        empty="certfile for everybody",
    )  # fmt: skip
    client_ca: str = setting("", "tls", "PEM file with the authorities that client certificates must come from", empty="none")
    client_certs: str = setting(
        "none", "tls", "whether clients are asked for a certificate, and whether they need one", choices=("none", "optional", "required")
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
    handover_timeout_s: float = setting(
        5.0, "processes", "at a reload: time that pending handlers get before their connections, which cannot move, are closed"
    )
    drain_batch: int = setting(500, "processes", "connections each worker closes at a time when it stops", minimum=1)
    drain_pause_s: float = setting(0.05, "processes", "pause between these batches")
    drain_delay_s: float = setting(
        0.0, "processes", "after SIGTERM: how long the server goes on accepting, not ready any more, so that load balancers turn away first"
    )
    retry_window_s: int = setting(
        60, "processes", "longest time over which clients closed by a stop are asked to spread their return, as in 'retry in 7 s'; "
        "a second for each 1000 clients of the worker is enough", maximum=86400, zero="no hint in the close reason",
    )  # fmt: skip
    max_worker_age_s: float = setting(
        0.0, "processes", "age at which a worker is replaced, 10% more or less, one worker at a time", zero="never"
    )
    max_worker_memory_bytes: int = setting(
        0, "processes", "memory (PSS) beyond which a worker is replaced, one worker at a time", maximum=TIB, zero="no limit"
    )
    reload: bool = setting(False, "processes", "development: restart the workers when a source file changes")

    admin_host: str = setting("127.0.0.1", "operations", "address of the stats endpoint")
    admin_port: int = setting(
        9000, "operations", "port of the stats endpoint; -1 switches it off", minimum=-1, maximum=65535, zero="any free port"
    )
    admin_token_file: str = setting(
        "", "operations", "file whose first line is the token that lets its bearer close connections through the stats endpoint",
        empty="nobody can",
    )  # fmt: skip
    admin_names: str = setting(
        "", "operations", "host names under which the stats endpoint is asked, with commas, besides admin_host, localhost and addresses; "
        "under others it gives only /metrics, /healthz and /readyz", empty="none", parse=Hostnames,
    )  # fmt: skip
    control_socket: str = setting(
        "auto", "operations", "Unix socket for `unlimitedws ctl`; auto: unlimitedws-PORT.sock in the runtime directory of the unit or user",
        empty="none", parse=socket_path,
    )  # fmt: skip
    log_level: str = setting("info", "operations", "least severe log line shown", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("text", "operations", "log lines as text, or as json: one object a line", choices=("text", "json"))
    access_log: bool = setting(
        False, "operations", "one line for each WebSocket at its end, and for each HTTP request, refused handshakes too"
    )
    access_lines_per_s: float = setting(
        200.0, "operations", "access lines of one cause a worker writes a second; more are only counted", zero="no limit"
    )

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

    handshakes_deciding: int = setting(
        1000, "limits", "async and blocking on_upgrade hooks that run at once in each worker; the rest wait their turn", minimum=1
    )

    http_running: int = setting(
        1000, "http", "async and blocking HTTP routes that run at once in each worker; the rest wait their turn", minimum=1
    )
    http_body_bytes: int = setting(MIB, "http", "largest body of an HTTP request; beyond it, 413", maximum=TIB)
    http_timeout_s: float = setting(
        60.0, "http", "time a peer has to send the body of an HTTP request (408), or to take the next part of a streamed response",
        minimum=0.1,
    )  # fmt: skip
    health_path: str = setting(
        "", "http", "path that answers 200 (503 once the worker is told to stop), for load balancers", empty="none", parse=http_path
    )
    static_dir: str = setting("", "http", "folder whose files are served", empty="none", parse=folder)
    static_path: str = setting("/static/", "http", "path under which static_dir is served", parse=http_path)

    messages_per_s: float = setting(0.0, "rates", "messages one connection may send a second, over rate_burst_s", zero="no limit")
    bytes_per_s: float = setting(
        0.0, "rates", "bytes one connection may send a second, framing included, over rate_burst_s", maximum=TIB, zero="no limit"
    )
    rate_burst_s: float = setting(
        1.0, "rates", "seconds of these rates that a connection may save up and use at once", minimum=0.01, maximum=3600
    )
    rate_policy: str = setting("delay", "rates", "what happens beyond a rate: delay its reads, or close (1008)", choices=("delay", "close"))

    max_connections_total: int = setting(0, "shedding", "connections all workers hold together; more are closed at once", zero="no limit")
    max_connections_per_address: int = setting(
        0, "shedding", "connections from one address (see address_prefix_v4) to all workers; more are closed at once", zero="no limit"
    )
    max_handshakes_pending: int = setting(
        0, "shedding", "connections of one worker that have not finished their request; more are closed at once", zero="no limit"
    )
    handshakes_per_s: float = setting(
        0.0, "shedding", "handshakes all workers accept a second, and TLS handshakes as many; beyond it, 503 or the end", zero="no limit"
    )
    handshakes_per_s_per_address: float = setting(
        0.0, "shedding", "handshakes accepted a second from one address; beyond it likewise", zero="no limit"
    )
    handshake_burst_s: float = setting(
        2.0, "shedding", "seconds of these two rates that may be saved up and used at once", minimum=0.01, maximum=3600
    )
    address_prefix_v4: int = setting(32, "shedding", "leading bits of an IPv4 address that count as one address", minimum=1, maximum=32)
    address_prefix_v6: int = setting(
        64, "shedding", "the same of an IPv6 address; 64 bits are one customer's network", minimum=1, maximum=128
    )
    shed_memory: float = setting(
        0.95, "shedding", "part of the memory (of the machine, or its cgroup's limit) in use beyond which handshakes get 503",
        maximum=1, zero="never",
    )  # fmt: skip
    shed_stall: float = setting(
        0.0, "shedding", "part of the last 10 s that some process waited for memory (PSI) beyond which handshakes get 503",
        maximum=1, zero="never",
    )  # fmt: skip
    retry_after_s: int = setting(
        30, "shedding", "whoever gets 503 is told to come back after a random time of up to so many seconds", minimum=1, maximum=86400
    )

    deflate: bool = setting(False, "compression", "permessage-deflate (RFC 7692) with clients that offer it")
    deflate_threshold_bytes: int = setting(
        KIB, "compression", "messages shorter than this are sent as they are: a packet holds about as much", maximum=TIB
    )
    deflate_level: int = setting(
        3, "compression", "1 (fastest) to 9 (smallest); on JSON 3 saves 4/5 of the bytes, and 6 saves 2% more for half as much CPU again",
        minimum=1, maximum=9,
    )  # fmt: skip
    deflate_window_bits: int = setting(
        12, "compression", "base-2 logarithm of the largest window; more helps long messages, and costs with deflate_takeover",
        minimum=9, maximum=15,
    )  # fmt: skip
    deflate_takeover: bool = setting(
        False, "compression", "keep the windows of each connection from message to message: smaller messages for 32 KiB a connection"
    )

    handshake_timeout_s: float = setting(
        10.0, "timeouts", "time a peer has to finish its request, and on_upgrade to answer it", minimum=0.1
    )
    ping_interval_s: float = setting(
        25.0, "timeouts", "silence after which a Ping is sent, or up to an eighth of it less, by chance", zero="no heartbeats"
    )
    ping_timeout_s: float = setting(20.0, "timeouts", "time a peer has to show life after a Ping", minimum=0.1)
    close_timeout_s: float = setting(5.0, "timeouts", "time a peer has to answer a Close frame", minimum=0.1)
    idle_timeout_s: float = setting(0.0, "timeouts", "close (1000) after so long without a message", zero="never")
    stuck_timeout_s: float = setting(60.0, "timeouts", "waiting output of which the peer takes nothing for so long is cut", zero="never")

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
        self._check_listening()

    def _check_listening(self) -> None:
        """Refuses what would be silently without effect: nobody would notice a server in the open."""
        needs = (
            ("forwarded_header", self.forwarded_header != "none", "trusted_proxies"),
            ("listen", any(place.proxied for place in places(self.listen)), "trusted_proxies"),
            ("listen", any(place.tls for place in places(self.listen)), "certfile"),
            *((name, bool(getattr(self, name)), "certfile") for name in ("keyfile", "keyfile_password_file", "sni_dir", "client_ca")),
            ("client_certs", self.client_certs != "none", "client_ca"),
            ("client_ca", bool(self.client_ca), "client_certs"),
        )
        for name, is_set, needed in needs:
            if is_set and getattr(self, needed) in ("", "none"):
                raise BadValue(name, getattr(self, name), "Config", accepted(name), why=f"it needs {needed}, which is not set")


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
        return f"text; empty: {about.empty}" if about.empty else "text, not empty"
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
        fits = value in about.choices if about.choices else bool(value.strip() or about.empty)
        if fits and about.parse:
            try:
                about.parse(value)
            except ValueError as error:
                raise BadValue(name, value, source, accepted(name), why=str(error)) from None
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
