"""`unlimitedws top`: the dashboard in a terminal, from /stats of a server that runs.

Drawn with rich, which the extra `unlimitedws[top]` installs.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from unlimitedws.errors import UnlimitedwsError
from unlimitedws.output import writing

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

Stats = dict[str, Any]

PATIENCE_S = 10.0
MOST_CAUSES = 6
WIDE = 132
"""Columns of a terminal, from which on there is room for everything; below, these are left out:"""
ONLY_WIDE = frozenset({"handshakes", "bytes in", "bytes out", "kernel", "restarts", "up"})
UNKNOWN = "-"
NEEDED = frozenset({"version", "ready", "total", "workers"})


class NoAnswer(UnlimitedwsError):
    """No server answers at that address."""


def run(url: str, every_s: float, *, once: bool) -> int:
    """Shows the server at `url` (of its admin port) until SIGINT; once: a single look without rates, for scripts.

    Raises NoAnswer, OutputFailed."""
    console, live = drawing()
    ask = asking(url)
    with writing(), contextlib.suppress(KeyboardInterrupt):
        if once:
            console.print(View(ask(), None))
        else:
            live(console, looks(ask, every_s))
    return 0


def drawing() -> tuple[Console, Callable[[Console, Iterator[RenderableType]], None]]:
    """A console, and what shows one view after the other on it. Raises UnlimitedwsError where rich is missing."""
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise UnlimitedwsError("unlimitedws top draws with rich; install it: pip install 'unlimitedws[top]'") from None

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            """rich would end the program here, with an exit code of its own."""
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def live(console: Console, views: Iterator[RenderableType]) -> None:
        if not console.is_terminal:  # where Live would show the last one only, at the end
            for one in views:
                console.print(one)
            return
        with Live(console=console, screen=True, auto_refresh=False) as screen:
            for one in views:
                screen.update(one, refresh=True)

    console = Screen()
    return console if console.is_terminal else Screen(width=WIDE), live


def asking(url: str) -> Callable[[], Stats]:
    """What asks this server for its numbers, past any proxy. Raises NoAnswer."""
    address = (url if "://" in url else f"http://{url}").rstrip("/") + "/stats"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask() -> Stats:
        try:
            with opener.open(address, timeout=PATIENCE_S) as answer:
                return stats_of(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                line = error.read().decode("utf-8", "replace").partition("\n")[0] or error.reason
            raise NoAnswer(f"no stats at {address}: {error.code}: {line}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NoAnswer(f"no stats at {address}: {said(error)}; is the server up, and is this its admin_port?") from None

    return ask


def said(error: Exception) -> object:
    """What is wrong, without the bytes of whoever answered."""
    if isinstance(error, http.client.HTTPException) and not isinstance(error, (http.client.InvalidURL, OSError)):
        return "what answers speaks no HTTP"
    why = error.reason if isinstance(error, urllib.error.URLError) else error
    return why.strerror if isinstance(why, OSError) and why.strerror else why


def stats_of(answer: object) -> Stats:
    """Raises ValueError where somebody else has answered."""
    if not isinstance(answer, dict) or not answer.keys() >= NEEDED:
        raise ValueError("what answers is no unlimitedws server")
    return answer


def looks(ask: Callable[[], Stats], every_s: float) -> Iterator[RenderableType]:
    """One view after the other. A server that was there and is gone is waited for."""
    before, now = None, ask()
    while True:
        yield View(now, before)
        time.sleep(every_s)
        try:
            before, now = now, ask()
        except NoAnswer as error:
            yield str(error)
            before = None
        else:
            if before["pid"] != now["pid"] or before["uptime_s"] >= now["uptime_s"]:
                before = None


# ---- what is shown


class View:
    """A whole screen, as wide as rich says that it is. before: the reading that rates are since; None: they are unknown."""

    def __init__(self, now: Stats, before: Stats | None) -> None:
        self.now, self.before = now, before

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now, before, wide = self.now, self.before, options.max_width >= WIDE
        yield from (headline(now), "", summary(now, before, wide=wide), "", causes(now, before), "", workers(now, before, wide=wide))


def headline(now: Stats) -> RenderableType:
    from rich.text import Text

    state = Text(" ready " if now["ready"] else " not ready ", "reverse green" if now["ready"] else "reverse red")
    about = f"  {now['version']}, {now['engine']} engine, {' '.join(now['listening'])}, up {duration(now['uptime_s'])}, pid {now['pid']}"
    return Text.assemble(("unlimitedws ", "bold"), state, about)


def summary(now: Stats, before: Stats | None, *, wide: bool = True) -> Table:
    """The whole server."""
    total = now["total"]
    cells = {
        "connections": count(total["connections_open"]),
        "room for": f"{count(now['room']['connections'])} ({now['room']['limited_by'].replace('_', ' ')})",
        **figures(total, before and before["total"], elapsed(now, before)),
        "kernel": "~" + bytes_of(now["kernel_memory_bytes"]),
        "restarts": count(now["restarts"]),
    }
    cells = {title: cell for title, cell in cells.items() if wide or title not in ONLY_WIDE}
    made = table(*cells)
    made.add_row(*cells.values(), style="bold")
    return made


def workers(now: Stats, before: Stats | None, *, wide: bool = True) -> Table:
    """A line for each process."""
    dt = elapsed(now, before)
    past = {worker["pid"]: worker for worker in before["workers"]} if before else {}
    rows = [worker_cells(worker, past.get(worker["pid"]), dt) for worker in now["workers"]]
    made = table(*(title for title in (rows[0] if rows else {"no worker runs": ""}) if wide or title not in ONLY_WIDE))
    for row in rows:
        cells = [cell for title, cell in row.items() if wide or title not in ONLY_WIDE]
        made.add_row(*cells, style="" if row["state"] == "ready" else "yellow")
    return made


def worker_cells(now: Stats, before: Stats | None, dt: float) -> dict[str, str]:
    return {
        "slot": str(now["slot"]),
        "pid": str(now["pid"]),
        "state": now["state"],
        "up": duration(now["uptime_s"]),
        "connections": count(now["connections_open"]),
        **figures(now, before, dt),
        "restarts": count(now["restarts"]),
    }


def figures(now: Stats, before: Stats | None, dt: float) -> dict[str, str]:
    """What the whole server and each worker have."""
    return {
        "handshakes": rate(now, before, dt, "connections_opened"),
        "in": rate(now, before, dt, "messages_in"),
        "out": rate(now, before, dt, "messages_out"),
        "bytes in": rate(now, before, dt, "bytes_in", bytes_of),
        "bytes out": rate(now, before, dt, "bytes_out", bytes_of),
        "CPU": cpu(now, before, dt),
        "memory": bytes_of(memory(now)),
        "lag": seconds(now["loop_lag_us"]),
    }


def causes(now: Stats, before: Stats | None) -> Table:
    """Why connections ended, the most frequent cause first."""
    total, past, dt = now["total"]["closes"], before and before["total"]["closes"], elapsed(now, before)
    made = table("closes", "now", "in all")
    for cause in sorted((cause for cause in total if total[cause]), key=lambda cause: -total[cause])[:MOST_CAUSES]:
        made.add_row(cause.replace("_", " "), rate(total, past, dt, cause), count(total[cause]))
    return made


def table(*titles: str) -> Table:
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        made.add_column(title, justify="left" if title in ("state", "closes") else "right", no_wrap=True)
    return made


# ---- numbers for people


def elapsed(now: Stats, before: Stats | None) -> float:
    return now["uptime_s"] - before["uptime_s"] if before else 0.0


def count(value: float) -> str:
    """Short, and exact while it is small."""
    return f"{value:,.0f}" if value < 100_000 else scaled(value, 1000, ("", "k", "M", "G", "T"))


def bytes_of(value: float) -> str:
    return scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < step:
            return f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"
        value /= step
    return f"{value:.3g}{units[-1]}"


def rate(now: Stats, before: Stats | None, dt: float, name: str, shown: Callable[[float], str] = count) -> str:
    if before is None or dt <= 0:
        return UNKNOWN
    per_s = (now[name] - before[name]) / dt
    return f"{per_s:.1f}/s" if shown is count and 0 < per_s < 10 else f"{shown(per_s)}/s"


def cpu(now: Stats, before: Stats | None, dt: float) -> str:
    """100 % is one core."""
    return UNKNOWN if before is None or dt <= 0 else f"{(now['cpu_us'] - before['cpu_us']) / dt / 1e4:.1f} %"


def memory(part: Stats) -> int:
    sizes = part["memory"]
    size: int = sizes["pss_bytes"] or sizes["rss_bytes"] or 0
    return size


def seconds(us: float) -> str:
    return f"{us:.0f} us" if us < 1000 else f"{us / 1e3:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"


def duration(s: float) -> str:
    minutes, hours, days = int(s // 60), int(s // 3600), int(s // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(s % 60)} s" if minutes else f"{int(s)} s"
