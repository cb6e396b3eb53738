"""`unlimitedws ctl VERB`: asks a server that runs on this machine, over its control socket (supervisor/control.py)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlimitedws.controlfile import AUTO, candidates, is_socket
from unlimitedws.errors import ConfigError, UnlimitedwsError
from unlimitedws.output import show

PATIENCE_S = 10.0
"""Longest wait for the first line; what follows takes its time."""
REPLACED_S = 60.0
"""Longest wait for a program that replaces another to answer."""
TELL_EVERY_S = 2.0
LOOK_EVERY_S = 0.2
"""While a program is being replaced by another, and nobody is there to say when it is through."""

Message = dict[str, Any]


class NoServer(UnlimitedwsError):
    """No server is there to be asked, or more than one."""


class Failed(UnlimitedwsError):
    """The server could not do it, and says why."""


def run(verb: str, number: str | None, *, control_socket: str, wait: bool, as_json: bool) -> int:
    """Has a server do something, and shows how it ends. Raises NoServer, Failed, ConfigError, OutputFailed.

    control_socket: as the setting.  number: as it was typed."""
    request = request_of(verb, number, wait=wait)
    with found(control_socket) as sock:
        path = Path(os.fsdecode(sock.getpeername()))

        def say(progress: str) -> None:
            if not as_json:
                show(progress)

        done = answer(sock, request, say)
    if "upgrading" in done:
        say(f"upgrading to {done['upgrading']}")
        done = upgraded_from(done, path, say)
    show(json.dumps(done, indent=1) if as_json else SHOWN[verb](done))
    return 0


def answer(sock: socket.socket, request: Message, say: Callable[[str], None]) -> Message:
    """What the server has done. Raises NoServer, Failed."""
    for message in conversation(sock, request):
        if "failed" in message:
            raise Failed(message["failed"])
        if "progress" in message:
            say(message["progress"])
        else:
            done: Message = message["done"]
    return done


def settled(path: Path) -> Message:
    """What a server says of itself whose program may be replaced at this moment. Raises NoServer where none is there any more."""
    deadline = time.monotonic() + REPLACED_S
    while True:
        try:
            sock = connected(path)  # the listener is there all the time, unless the settings have changed
        except OSError:
            raise NoServer(
                f"the upgrade has begun, but nobody listens on {path} any more: where the new program has its control socket, "
                "and how the upgrade went, the server's log says"
            ) from None
        with sock:
            try:
                return answer(sock, {"verb": "status"}, lambda _: None)
            except NoServer:
                if time.monotonic() > deadline:
                    raise
        time.sleep(LOOK_EVERY_S)


def upgraded_from(begun: Message, path: Path, say: Callable[[str], None]) -> Message:
    """How an upgrade ended that has begun. Raises NoServer, Failed."""
    told = time.monotonic()
    while (now := settled(path))["state"] == "changing":
        if time.monotonic() - told > TELL_EVERY_S and now.get("doing"):
            told = time.monotonic()
            say(now["doing"])
        time.sleep(LOOK_EVERY_S)
    if now["upgrades"] == begun["upgrades"]:
        raise Failed("not upgraded; the server's log says why")
    if now["reloads"] == begun["reloads"]:
        raise Failed("the supervisor is the new one, but its workers go on with the code they had; the server's log says why")
    return {"upgraded": True, "version": now["version"], "workers": len([each for each in now["workers"] if each["state"] == "ready"])}


def request_of(verb: str, number: str | None, *, wait: bool) -> Message:
    """Raises ConfigError."""
    if verb not in SHOWN:
        raise ConfigError(f"ctl cannot {verb!r}; it can {', '.join(SHOWN)}")
    request: Message = {"verb": verb, "wait": wait}
    if verb in NUMBERED:
        if number is None or not (number.isascii() and number.isdigit() and len(number) < 19 and int(number)):
            raise ConfigError(f"ctl {verb} wants a number from 1 on" + (f", not {number!r}" if number else f": unlimitedws ctl {verb} 4"))
        request["number"] = int(number)
    elif number is not None:
        raise ConfigError(f"ctl {verb} takes no number; {number!r} is one argument too many")
    return request


# ---- the way there


def found(control_socket: str) -> socket.socket:
    """A connection to the server at this path, or with `auto` to the only one that answers here. Raises NoServer."""
    if not control_socket:
        raise NoServer("control_socket is empty, so the server has none; set it to a path, or to auto, and restart the server")
    if control_socket != AUTO:
        return reached(Path(control_socket))
    return the_only_one(candidates(os.environ, os.geteuid()))


def reached(path: Path) -> socket.socket:
    """Raises NoServer, which says what to do."""
    try:
        return connected(path)
    except OSError as error:
        raise NoServer(f"no server at {path}: {reason(path, error)}") from None


def the_only_one(paths: Sequence[Path]) -> socket.socket:
    """Raises NoServer where none of these answers, or several do."""
    answering, refused = [], []
    with contextlib.ExitStack() as stack:
        for path in paths:
            try:
                answering.append((path, stack.enter_context(connected(path))))
            except PermissionError as error:
                refused.append(f"{path}: {reason(path, error)}")
            except OSError:
                continue  # what a server left that was killed
        if len(answering) == 1:
            stack.pop_all()
            return answering[0][1]
    if answering:
        raise NoServer(
            f"{len(answering)} servers run here; choose one with --control-socket: {', '.join(str(path) for path, _ in answering)}"
        )
    if refused:
        raise NoServer(f"no server that this user may control; {'; '.join(refused)}")
    raise NoServer("no server was found here; if one runs, its log says `unlimitedws ctl` on PATH: name that with --control-socket PATH")


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENCE_S)
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock


def reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "there is no such file; is the server up, and is this its control_socket?"
    if error.errno == errno.ECONNREFUSED and not is_socket(path):
        return "it is no socket; the log of the server says where its socket is"
    if error.errno == errno.ECONNREFUSED:
        return "nobody listens there; the server is gone"
    if error.errno == errno.EACCES:
        return f"permission denied; try it as {owner(path)}, or as root"
    return error.strerror or str(error)


def owner(path: Path) -> str:
    try:
        uid = path.stat().st_uid
    except OSError:
        return "the user of the server"
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def conversation(sock: socket.socket, request: Message) -> Iterator[Message]:
    """What the server says, line by line; the last one is `done` or `failed`. Raises NoServer."""
    try:
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile("rb") as lines:
            for line in lines:
                sock.settimeout(None)  # it lives
                message = message_of(line)
                yield message
                if "progress" not in message:
                    return
    except TimeoutError:
        raise NoServer(f"the server does not answer within {PATIENCE_S:g} s; its log may say why") from None
    except (OSError, ValueError) as error:
        raise NoServer(f"the server was lost: {error}") from None
    raise NoServer("the server ended before it answered; its log says why")


def message_of(line: bytes) -> Message:
    """Raises ValueError where somebody else has answered."""
    message = json.loads(line)
    if not isinstance(message, dict) or not message.keys() & {"progress", "done", "failed"}:
        raise ValueError("what answers is no unlimitedws server")
    return message


# ---- what is shown


def status(done: Message) -> str:
    """A few lines: the server, and a table of its workers."""
    state = f"{done['state']} ({done['doing']})" if done.get("doing") else done["state"]
    head = (
        f"unlimitedws {done['version']}, {done['engine'] or 'no'} engine, {state}, pid {done['pid']}, "
        f"up {duration(done['uptime_s'])}, on {', '.join(done['listening'])}"
    )
    rows = [("slot", "pid", "state", "connections", "age"), *map(worker, done["workers"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join([head, *("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)])


def worker(about: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(about["slot"]), str(about["pid"]), about["state"], f"{about['connections']:,}", duration(about["uptime_s"]))


def duration(s: float) -> str:
    minutes, hours, days = int(s // 60), int(s // 3600), int(s // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(s % 60)} s" if minutes else f"{int(s)} s"


def reloaded(done: Message) -> str:
    if "workers" not in done:
        return "the reload has begun"
    return f"the new code serves in {counted(done['workers'], 'worker')}{lost(done)}"


def upgraded(done: Message) -> str:
    if "upgraded" not in done:
        return "the upgrade has begun"
    return f"{counted(done['workers'], 'worker')} of unlimitedws {done['version']}"


def scaled(done: Message) -> str:
    if "workers" not in done:
        return "the change has begun"
    moved = f"; {counted(done['moved'], 'connection')} moved" if done["moved"] else ""
    return f"{counted(done['workers'], 'worker')}, {done['before']} before{moved}{lost(done)}"


def lost(done: Message) -> str:
    closed = done.get("closed")  # a server of an older release does not say
    return f"; {counted(closed, 'connection')} that could not move closed with 1012" if closed else ""


def rebalanced(done: Message) -> str:
    if "moved" not in done:
        return "the rebalance has begun"
    return f"{counted(done['moved'], 'connection')} moved between {counted(done['workers'], 'worker')}"


def stopped(done: Message) -> str:
    return "stopped" if done["stopped"] else "the stop has begun"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


SHOWN: dict[str, Callable[[Message], str]] = {
    "status": status,
    "reload": reloaded,
    "upgrade": upgraded,
    "workers": scaled,
    "rebalance": rebalanced,
    "stop": stopped,
}
"""Every verb, and how its end is told."""
NUMBERED = ("workers",)
"""Those that want a number."""
