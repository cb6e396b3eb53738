"""One load process: a swarm, and the orders it gets from its parent."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from unlimitedws.output import flush

if TYPE_CHECKING:
    from unlimitedws.bench.swarm import Swarm

TURN_S = 60.0
MOST_ORDER = 64 * 1024
FAILED = 70  # the exit code of a load process that raised


@dataclass
class Process:
    """A load process, as its parent sees it. An order is a method of its swarm and what it is called with."""

    pid: int
    orders: socket.socket
    sent: int = 0

    def order(self, name: str, **arguments: Any) -> None:
        """Raises OSError when the process has ended."""
        self.orders.send(json.dumps([name, arguments]).encode())
        self.sent += 1

    def has_ended(self) -> bool:
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def end(self) -> None:
        """Ends it, and waits until it is gone: its connections are cut."""
        self.orders.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def allow_files() -> None:
    """Raises the limit of open files of this process, and of those that it starts, as far as it may be."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start(make: Callable[[int], Swarm], others: Iterable[Process] = ()) -> Process:
    """Forks a load process. make: gives it its swarm, which tells by that descriptor that there are orders.

    others: that run already; it holds nothing of theirs. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    flush()
    pid = os.fork()
    if pid == 0:
        for each in (ours, *(other.orders for other in others)):
            each.close()
        child(theirs, make)
    theirs.close()
    return Process(pid, ours)


def child(orders: socket.socket, make: Callable[[int], Swarm]) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all of us; the parent decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.freeze()
        follow(orders, make(orders.fileno()))
    except BaseException:
        traceback.print_exc()
        flush()
        os._exit(FAILED)
    os._exit(0)


def follow(orders: socket.socket, swarm: Swarm) -> None:
    """Lets the swarm turn and carries out what is ordered, until the parent has gone or says no more."""
    while True:
        if not swarm.turn(time.monotonic_ns() + int(TURN_S * 1e9)):
            continue
        order = orders.recv(MOST_ORDER)
        if not order:
            return
        name, arguments = json.loads(order)
        getattr(swarm, name)(**arguments)
        swarm.order_done()
