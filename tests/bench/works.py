"""The works: what is measured, how, and what unlimitedws is to reach."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.processes import connections_to, cpu_ticks, pss_bytes
from tests.bench.tools import BUILD
from unlimitedws.bench.server import tree

MB = 1e6
FIRST, ALL = 5_000, 15_000
SETTLE_S = 10.0  # what a server has to give memory back
# What a server does once in its first seconds (our supervisor looks at its workers after 5 s) is no cost of a connection.
REST_S = 8.0


class WorkFailed(Exception):
    """A load that could not be applied, or a server that answered it wrongly."""


@dataclass(frozen=True)
class Load:
    """One server under one load: where it is, and how long a timed measure lasts."""

    port: int
    pid: int
    cores: set[int]
    warm_s: float
    measure_s: float


@dataclass(frozen=True)
class Result:
    """One measure: the figure that is compared, and everything the load generator said."""

    value: float
    details: dict[str, Any]


@dataclass(frozen=True)
class Work:
    """A row of the table. unit: of the figure; less is better. to_reach: in words, judged by `reached`."""

    name: str
    title: str
    unit: str
    measure: Callable[[Load], Result]
    to_reach: str = ""
    most: float | None = None  # of the figure itself
    most_of_floor: float | None = None  # of its ratio to the floor
    least_per_s: float | None = None
    mode: str = "echo"
    has_ratio: bool = True  # whether a ratio to the floor says anything


# ---- the measures


def idle(load: Load) -> Result:
    """Bytes of PSS for each connection between 5,000 and 15,000, each of which has echoed one message."""
    first = start_wsload(load, f"idle --conns {FIRST} --sample {FIRST} --sample-kind echo --settle 0.2 --hold 600")
    try:
        wait_until(lambda: connections_to(load.port) == FIRST, first)
        wait_until_still(first)
        time.sleep(REST_S)
        details = wsload(load, f"idle --conns {ALL - FIRST} --connect-limit 60 --sample {ALL - FIRST} --sample-kind echo --hold 1")
        if connections_to(load.port) < FIRST or first.poll() is not None:
            raise WorkFailed(f"of the first {FIRST} connections some were lost")
    finally:
        end(first)
    return Result(details["server"]["pss_per_conn_end"], details)


def ramp(load: Load) -> Result:
    """Server CPU for one connection: accept, upgrade."""
    details = wsload(load, f"idle --conns {ALL} --connect-limit 60 --settle 0.2")
    return Result(details["server"]["cpu_us_per_handshake"], details)


def leave(load: Load) -> Result:
    """Memory kept 10 s after 15,000 have left, beyond 105% of what the empty server had, in MB (may be negative)."""
    time.sleep(REST_S)
    processes, empty = tree(load.pid), pss_bytes(load.pid)
    details = wsload(load, f"idle --conns {ALL} --connect-limit 60 --sample {ALL} --sample-kind echo --settle 0.2 --hold 0.5")
    time.sleep(SETTLE_S)
    after, full = pss_bytes(load.pid), details["server"]["pss_end"]
    if not after or tree(load.pid) != processes:
        raise WorkFailed("the server's processes are not those that were there before")
    details["memory"] = {"empty": empty, "full": full, "after": after, "kept_of_growth": (after - empty) / max(1, full - empty)}
    return Result((after - 1.05 * empty) / MB, details)


def echo(load: Load, arguments: str) -> Result:
    details = timed(load, f"echo {arguments}")
    return Result(details["server"]["cpu_us_per_msg"], details)


def fanout(load: Load, window: int) -> Result:
    details = timed(load, f"fanout --conns 1000 --size 128 --window {window}")
    return Result(details["server"]["cpu_us_per_delivery"], details)


WORKS = (
    Work("idle", f"idle connection, slope of PSS from {FIRST:,} to {ALL:,}", "bytes", idle, "<= 64 bytes", most=64),
    Work("echo-64x32", "echo, 64 connections, 32 bytes", "us/message", partial(echo, arguments="--conns 64 --size 32"),
         "<= 1.10 x floor", most_of_floor=1.10),
    Work("echo-1000x32", "echo, 1,000 connections, 32 bytes", "us/message", partial(echo, arguments="--conns 1000 --size 32"),
         "<= 1.12 x floor", most_of_floor=1.12),
    Work("echo-64x1k", "echo, 64 connections, 1 KiB", "us/message", partial(echo, arguments="--conns 64 --size 1024"),
         "<= 1.12 x floor", most_of_floor=1.12),
    Work("echo-64x16k", "echo, 64 connections, 16 KiB", "us/message", partial(echo, arguments="--conns 64 --size 16384"),
         "<= 1.12 x floor", most_of_floor=1.12),
    Work("piped-64x32", "echo, 64 connections, 32 bytes, 16 in flight on each", "us/message",
         partial(echo, arguments="--conns 64 --size 32 --pipeline 16"),
         "<= 1.20 x floor, over 1,000,000 messages/s", most_of_floor=1.20, least_per_s=1e6),
    Work("ramp", f"connect and upgrade, {ALL:,} connections", "us/connection", ramp, "<= 1.30 x floor", most_of_floor=1.30),
    Work("broadcast-1", "broadcast of 128 bytes to 1,000, one publication in flight", "us/delivery", partial(fanout, window=1),
         "<= 1.10 x floor", most_of_floor=1.10, mode="fan"),
    Work("broadcast-8", "broadcast of 128 bytes to 1,000, eight publications in flight", "us/delivery", partial(fanout, window=8),
         "<= 1.10 x floor", most_of_floor=1.10, mode="fan"),
    Work("leave", f"memory kept {SETTLE_S:.0f} s after {ALL:,} left, beyond 105% of the empty server", "MB", leave, "<= 2 MB", most=2.0,
         has_ratio=False),
)  # fmt: skip


# ---- the load generator


def wsload(load: Load, arguments: str) -> dict[str, Any]:
    """Runs the load generator to its end; its report. Raises WorkFailed when it counted a single error."""
    process = start_wsload(load, arguments)
    try:
        output, complaint = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        raise WorkFailed(f"wsload {arguments}: no end after 180 s") from None
    finally:
        end(process)
    try:
        report: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise WorkFailed(f"wsload {arguments}: no report (status {process.returncode}): {complaint[-200:]}") from None
    if not report.get("ok"):
        raise WorkFailed(f"wsload {arguments}: {report.get('errors')}: {report.get('first_error')}")
    if report["server"]["procs_changed"]:
        raise WorkFailed(f"wsload {arguments}: processes of the server came or went meanwhile")
    return report


def timed(load: Load, arguments: str) -> dict[str, Any]:
    return wsload(load, f"{arguments} --settle 0.2 --warm {load.warm_s} --secs {load.measure_s}")


def start_wsload(load: Load, arguments: str) -> subprocess.Popen[str]:
    command = [str(BUILD / "wsload"), *shlex.split(arguments), "--port", str(load.port), "--pid", str(load.pid), "--quiet"]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(os.sched_setaffinity, 0, load.cores),
    )


def end(process: subprocess.Popen[str]) -> None:
    """Ends a load generator with the processes it made; nothing to do where it ended by itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], limit_s: float = 60.0) -> None:
    """Raises WorkFailed when it does not come, or the load generator ends before."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise WorkFailed("the first connections did not come up")
        time.sleep(0.05)


def wait_until_still(process: subprocess.Popen[str], still_s: float = 1.0) -> None:
    """Waits until the load generator uses no CPU any more: its connections have had their echo."""
    since, ticks = time.monotonic(), cpu_ticks(process.pid)
    deadline = since + 60.0
    while time.monotonic() < since + still_s:
        time.sleep(0.1)
        now = cpu_ticks(process.pid)
        if now != ticks:
            since, ticks = time.monotonic(), now
        if time.monotonic() > deadline:
            raise WorkFailed("the first connections do not become idle")


def chosen(names: Sequence[str]) -> list[Work]:
    """The works of these names, in the order of the table; all where there are none. Raises KeyError."""
    known = {work.name for work in WORKS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(f"no work named {', '.join(unknown)}; there are {', '.join(work.name for work in WORKS)}")
    return [work for work in WORKS if not names or work.name in names]
