"""What systemd is told: sd_notify(3), without its library.

Datagrams of NAME=value lines to the socket that NOTIFY_SOCKET names; without that variable nothing is sent.

    READY=1, STOPPING=1, STATUS=...      the state, as `systemctl status` shows it
    RELOADING=1, MONOTONIC_USEC=...      then READY=1: Type=notify-reload waits for it
    WATCHDOG=1                           twice in each WATCHDOG_USEC, from the supervisor's loop
    FDSTORE=1, FDNAME=... + descriptor   listeners that outlive the supervisor (see stored.py)
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence

log = logging.getLogger("unlimitedws.supervisor")

SEND_S = 1.0
"""Longest wait for a manager whose queue is full: a few datagrams, where net.unix.max_dgram_qlen is small."""

Address = str | bytes


class Notifier:
    """Tells the service manager; does nothing where there is none.

    address: as in NOTIFY_SOCKET: a path, or @ and an abstract name.  watchdog_s: how often it wants a sign of
    life at least; 0: never."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self.address, self.watchdog_s = address, watchdog_s
        self.status_shown = ""
        self.failed = False

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Notifier:
        """As the manager has set it up in the environment of this process."""
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog_s(environ))

    @property
    def is_there(self) -> bool:
        """Whether anybody listens."""
        return bool(self.address)

    def ready(self) -> None:
        self.send("READY=1")

    def reloading(self) -> None:
        # Not before the signal that asked for it: systemd compares it with its own clock.
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self.send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for the operator; sent where it has changed."""
        text = " ".join(text.split())
        if text != self.status_shown:
            self.status_shown = text
            self.send(f"STATUS={text}")

    def store(self, name: str, fd: int) -> None:
        """Has the manager keep a descriptor for the next start, under a name without colons."""
        self.send("FDSTORE=1", f"FDNAME={name}", fds=[fd])

    def forget(self, name: str) -> None:
        """Has the manager close what it keeps under that name."""
        self.send("FDSTOREREMOVE=1", f"FDNAME={name}")

    async def go_on_living(self) -> None:
        """Says that this loop turns, as often as the manager wants to hear it."""
        while self.is_there and self.watchdog_s:
            self.send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def send(self, *lines: str, fds: Sequence[int] = ()) -> None:
        if not self.address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0 if self.failed else SEND_S)  # the loop does not wait again and again
                sock.connect(kernel_name(self.address))
                socket.send_fds(sock, ["\n".join(lines).encode()], list(fds))
        except (OSError, ValueError) as error:
            if not self.failed:  # the service goes on without; one line is enough
                log.warning("cannot notify the service manager at %s: %s", self.address, error)
            self.failed = True
        else:
            self.failed = False


def kernel_name(address: str) -> Address:
    """A NOTIFY_SOCKET as bind(2) and connect(2) want it: abstract names begin with a zero byte.

    Raises ValueError for one of another kind (vsock:...), of which a Unix socket knows nothing."""
    if address.startswith("@"):
        return b"\0" + os.fsencode(address[1:])
    if address.startswith("/"):
        return address
    raise ValueError("NOTIFY_SOCKET is neither a path nor an abstract name")


def watchdog_s(environ: Mapping[str, str]) -> float:
    """How often the manager wants a sign of life of this process; 0: never, or of another process."""
    every_us, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not every_us.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(every_us) / 1e6
