"""What would be served: the settings, on which engine, with how many workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from unlimitedws import engine
from unlimitedws.config import Config
from unlimitedws.listener import EVERYWHERE, wanted
from unlimitedws.place import Systemd, Tcp, Unix
from unlimitedws.trust import Trusted


@dataclass(frozen=True, slots=True)
class Server:
    """workers: processes that serve.  engine: `native` or `portable`.  why_not_native: where it is not there.
    uvloop: whether it is installed; without it no worker can start."""

    config: Config
    workers: int
    engine: str
    why_not_native: str | None
    uvloop: bool

    @property
    def is_proxied(self) -> bool:
        """Whether somebody stands in front who passes connections on."""
        return bool(Trusted(self.config.trusted_proxies))

    @property
    def has_v6(self) -> bool:
        """Whether its listeners are of IPv6, so that all of its sockets are; systemd's may well be."""
        return any(isinstance(each, Systemd) or (isinstance(each, Tcp) and is_v6(each.host)) for each in wanted(self.config))

    @property
    def has_tcp(self) -> bool:
        """Whether anybody can come by TCP: of Unix sockets the kernel keeps no such account. systemd's may be either."""
        return not all(isinstance(each, Unix) for each in wanted(self.config))

    @property
    def has_tls(self) -> bool:
        return bool(self.config.certfile)

    @property
    def has_meters(self) -> bool:
        config = self.config
        return bool(config.messages_per_s or config.bytes_per_s or config.access_log)

    @property
    def limit(self) -> int | None:
        """The most connections that its settings let in; None: they set no limit."""
        config = self.config
        each = config.max_connections * self.workers
        return min(filter(None, (each, config.max_connections_total)), default=None)


def is_v6(host: str) -> bool:
    return host == EVERYWHERE or ":" in host


def read(config: Config, *, cpus: int, why_not_native: Callable[[], str | None] = engine.why_not_native) -> Server:
    """The server as it would start here. why_not_native: why that engine cannot be had; None: it can."""
    why = why_not_native() if config.engine != "portable" else None
    chosen = "portable" if config.engine == "portable" or why is not None else "native"
    return Server(config, config.workers or cpus, chosen, why, find_spec("uvloop") is not None)
