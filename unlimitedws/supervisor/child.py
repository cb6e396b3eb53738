"""One worker process, as the supervisor sees it (its own side is process.py)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from unlimitedws.errors import UnlimitedwsError
from unlimitedws.listener import Listener
from unlimitedws.supervisor import failure
from unlimitedws.supervisor.channel import Channel, Message
from unlimitedws.supervisor.ending import ProcessGone, describe
from unlimitedws.supervisor.order import Order
from unlimitedws.wire.closing import SERVICE_RESTART

log = logging.getLogger("unlimitedws.supervisor")

STATUS_WAIT_S = 0.5
"""How long the template may take to report how a worker ended, before nobody can. Its slot waits for that, and is to be
served again within a second however busy the machine is."""

ASK_S = 2.0
"""How long a worker may take to answer a question."""

GIVE_S = 120.0
"""How long it may take to give connections: a million of them take some fifteen seconds."""

GIVE_UP_S = 3.0
"""How long its on_start may take to end once it is told to; a worker waits 2 s for that."""


FACTS = ("state", "engine", "handover", "status", "doom", "started_at", "ready_at", "questions")
"""What an upgrade passes on as it is. Times are of CLOCK_MONOTONIC, which all processes of a machine share."""


class Child:
    """A worker process from its order to its end.

    ready: done when it serves; fails with the app's error, or ProcessGone where it ended before.
    ended: done when it is gone and nothing is left to be heard of it.
    state: starting, ready or draining.  status: how it ended, None while unknown.
    doom: why we ended it, where we did.  on_draining: called when it accepts no more.
    handover: what it can hand its connections over to (`handover.FORMAT`).
    handed_over: done when it has given its connections to its successor, or is gone; None while nobody asked it.
    left: how many of them could not move."""

    def __init__(self, order: Order, channel: Channel, on_draining: Callable[[Child], None]) -> None:
        self.order, self.channel, self.on_draining = order, channel, on_draining
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.handed_over: asyncio.Future[bool] | None = None
        self.state = "starting"
        self.engine = self.handover = ""
        self.pid, self.pidfd = 0, -1
        self.status: int | None = None
        self.doom = ""
        self.is_dead = False
        self.started_at = time.monotonic()
        self.asked: dict[int, asyncio.Future[Message]] = {}
        self.questions = self.left = 0
        self.ready_at: float | None = None

    def watch(self, pid: int, pidfd: int) -> None:
        """The process is there. Its pidfd becomes readable when it ends, whoever its parent is by then."""
        self.pid, self.pidfd = pid, pidfd
        self.channel.setblocking(False)
        self.loop.add_reader(self.channel.fileno(), self.hear)
        self.loop.add_reader(pidfd, self.dead)

    def pack(self) -> Message:
        """Everything about it for the supervisor after an upgrade, which has the same descriptors."""
        return {
            "order": asdict(self.order),
            "pid": self.pid,
            "inherited": {"pidfd": self.pidfd, "channel": self.channel.fileno()},
            "facts": {name: getattr(self, name) for name in FACTS},
            "handed_over": None if self.handed_over is None else self.handed_over.result() if self.handed_over.done() else "pending",
        }

    @classmethod
    def adopt(cls, packed: Message, on_draining: Callable[[Child], None]) -> Child:
        """The same worker, watched by this process from now on. One that is still in its start comes as one whose start failed."""
        inherited = packed["inherited"]
        child = cls(Order.unpack({"spawn": packed["order"]}), Channel.adopt(inherited["channel"]), on_draining)
        vars(child).update(packed["facts"])
        if packed["handed_over"] is not None:
            child.handed_over = child.loop.create_future()
            if packed["handed_over"] != "pending":
                child.handed_over.set_result(packed["handed_over"])
        if child.state == "starting":
            child.fail(ProcessGone("the supervisor was replaced while it started"))
        else:
            child.ready.set_result(None)
        child.watch(packed["pid"], inherited["pidfd"])
        return child

    @property
    def served_s(self) -> float:
        """Seconds since it became ready; 0 where it never did."""
        return 0.0 if self.ready_at is None else time.monotonic() - self.ready_at

    @property
    def is_forsaken(self) -> bool:
        """Whether the worker is gone that was to have its connections: it still has those that were not taken over."""
        return not self.ended.done() and self.handed_over is not None and self.handed_over.done() and not self.handed_over.result()

    def describe(self) -> str:
        """Which process it was and why it is gone, for a log line."""
        why = f"{describe(self.status)} ({self.doom})" if self.doom else describe(self.status)
        return f"worker {self.pid} of slot {self.order.slot} {why}"

    def hand_over_to(self, successor: Child) -> None:
        """Gives all connections that can move to `successor`, and stops then; where the two speak differently, it drains."""
        if self.handover != successor.handover:
            log.warning("worker %d closes its connections: it is of another release than worker %d", self.pid, successor.pid)
            self.stop(SERVICE_RESTART, "server is restarting")
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.handed_over = self.loop.create_future()
        with ours, theirs:
            if not (
                successor.channel.send({"take_over": True}, [theirs.fileno()]) and self.channel.send({"hand_over": True}, [ours.fileno()])
            ):
                self.handed_over.set_result(False)

    def stop(self, code: int, reason: str) -> None:
        self.channel.send({"stop": code, "reason": reason})

    def leave(self) -> None:
        self.channel.send({"leave": True})

    def listen(self, listener: Listener) -> None:
        """Has it accept from this one too, now or as soon as it accepts at all."""
        if not self.channel.send({"listen": [listener.proxied, listener.tls]}, [listener.sock.fileno()]):
            self.kill("it takes no orders")  # its successor accepts there from its start

    def unlisten(self, listener: Listener) -> None:
        """Has it accept no more from this one, and let go of it."""
        self.channel.send({"unlisten": listener.inode})

    def share(self, workers: int) -> None:
        """So many workers share the limits of the server from now on."""
        self.channel.send({"workers": workers})

    def cut(self) -> None:
        self.channel.send({"cut": True})

    async def give(self, to: Child, count: int | None = None, *, accepting: bool = True) -> int:
        """Has it give `count` of its connections, or all, to another worker that serves; how many have moved.

        Both go on serving. What cannot move stays, and so does what has no room there, or was not taken over when `to` died. 0 where
        this one dies: whom `to` had taken over by then lives on there; and where it is of a release that hands over in another
        way. accepting: False: it accepts no more from now on."""
        if self.handover != to.handover:
            return 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            if not to.channel.send({"take_over": True}, [theirs.fileno()]):
                return 0
            number, answer = self.question({"give": count, "accepting": accepting}, [ours.fileno()])
        try:
            futures: tuple[asyncio.Future[Any], ...] = (answer, self.ended)
            await asyncio.wait(futures, timeout=GIVE_S, return_when=asyncio.FIRST_COMPLETED)
            return int(answer.result()["moved"]) if answer.done() else 0
        finally:
            del self.asked[number]

    async def ask(self, question: Message, timeout_s: float = ASK_S) -> Message:
        """The worker's answer (asking.py). Raises TimeoutError where there is none in time, as of one that hangs or is gone."""
        number, answer = self.question(question)
        try:
            return await asyncio.wait_for(answer, timeout_s)
        finally:
            del self.asked[number]

    def question(self, question: Message, fds: Sequence[int] = ()) -> tuple[int, asyncio.Future[Message]]:
        """Asks; who does so deletes it from `asked` at the end."""
        self.questions += 1
        number = self.questions
        self.asked[number] = answer = self.loop.create_future()
        self.channel.send({"ask": number, **question}, fds)
        return number, answer

    def signal(self, number: signal.Signals) -> None:
        """Sent through the pidfd: never to a stranger who got its pid."""
        if self.pidfd >= 0 and not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def give_up(self, doom: str) -> None:
        """Ends one that does not come to the end of its start, whatever it does there."""
        self.doom = self.doom or doom
        self.stop(SERVICE_RESTART, "server is restarting")
        self.loop.call_later(GIVE_UP_S, self.kill, doom)

    def kill(self, doom: str) -> None:
        self.doom = self.doom or doom
        self.signal(signal.SIGKILL)

    def hear(self) -> bool:
        try:
            received = self.channel.receive()
        except BlockingIOError:
            return False
        if received is None:
            self.loop.remove_reader(self.channel.fileno())
            return False
        self.handle(received[0])
        return True

    def handle(self, message: Message) -> None:
        if "ready" in message:
            self.state, self.ready_at = "ready", time.monotonic()
            self.engine, self.handover = message["ready"]["engine"], message["ready"]["handover"]
            if not self.ready.done():
                self.ready.set_result(None)
        elif "failed" in message:
            self.fail(failure.unpack(message["failed"]))
        elif "draining" in message:
            self.state = "draining"
            self.on_draining(self)
        elif "handed_over" in message and self.handed_over is not None and not self.handed_over.done():
            self.left = message.get("left", 0)  # a worker from before an upgrade may not say so
            self.handed_over.set_result(message["handed_over"])
        elif "answer" in message and (asked := self.asked.get(message["answer"])) is not None and not asked.done():
            asked.set_result(message)

    def fail(self, error: UnlimitedwsError | ProcessGone) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # whether or not anybody still waits for it

    def dead(self) -> None:
        """It is a zombie, or gone. How it ended comes from the template, from the reaper, or from here."""
        self.is_dead = True
        self.loop.remove_reader(self.pidfd)
        if self.status is None:
            self.status = self.wait()
        if self.status is None:
            self.loop.call_later(STATUS_WAIT_S, self.end)
        else:
            self.end()

    def wait(self) -> int | None:
        """Its status, where it is our child by now because its template is gone."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def exited(self, status: int) -> None:
        """Told by the template or the reaper."""
        self.status = status
        if self.is_dead:
            self.end()

    def end(self) -> None:
        if self.ended.done():
            return
        while self.channel.fileno() >= 0 and self.hear():
            pass
        self.close()
        if self.handed_over is not None and not self.handed_over.done():
            self.handed_over.set_result(True)
        self.fail(ProcessGone(self.describe()))
        self.ended.set_result(None)

    def close(self) -> None:
        if self.channel.fileno() >= 0:
            self.loop.remove_reader(self.channel.fileno())
            self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
