"""The progress line: what happens now, rewritten in place on a terminal; elsewhere, as in a log, a line now and then."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TextIO

EVERY_S = 0.25
LINE_EVERY_S = 10.0  # where each line stays


class Progress:
    """Shows a run on stderr while it goes on."""

    def __init__(self, *, quiet: bool, to: TextIO | None = None) -> None:
        self.to: TextIO | None = to or sys.stderr  # None: closed before we began (2>&-)
        self.quiet = quiet
        self.is_live = not quiet and self.to is not None and self.to.isatty()
        self.began = self.last = time.monotonic()
        self.before: Counter[str] = Counter()
        self.width = 0

    def show(self, doing: str, now: Counter[str]) -> None:
        """At most every EVERY_S, or LINE_EVERY_S; the rates are since the last time."""
        at = time.monotonic()
        if self.quiet or at - self.last < (EVERY_S if self.is_live else LINE_EVERY_S):
            return
        self.tell(f"{at - self.began:6.1f} s  {doing:10}  {self.figures(now, at - self.last)}")
        self.before, self.last = Counter(now), at

    def figures(self, now: Counter[str], dt: float) -> str:
        def per_s(*names: str) -> float:
            return sum(now[name] - self.before[name] for name in names) / dt

        parts = [f"{now['up'] + now['held']:,} up"]
        if rate := per_s("opened"):
            parts.append(f"{rate:,.0f} connects/s")
        if rate := per_s("answered", "delivered"):
            parts.append(f"{rate:,.0f} messages/s")
        if waiting := now["due"] - now["answered"] - wrong(now) - now["unanswered"]:
            parts.append(f"{waiting:,} in flight")
        bad = {"failed": now["failed"], "lost": now["lost"], "wrong": wrong(now), "cut": now["cut"]}
        return "  ".join(parts + [f"{number:,} {name}" for name, number in bad.items() if number])

    def tell(self, line: str) -> None:
        if self.is_live:
            line = line[: shutil.get_terminal_size().columns - 1]  # one that is wrapped could not be rewritten
        self.write("\r" + line.ljust(self.width) if self.is_live else line + "\n")
        self.width = len(line)

    def say(self, line: str) -> None:
        """A line that stays, whoever wants no others."""
        self.clear()
        self.write(line + "\n")

    def clear(self) -> None:
        """Makes room for what is printed next."""
        if self.is_live and self.width:
            self.write("\r" + " " * self.width + "\r")
            self.width = 0

    def write(self, text: str) -> None:
        if self.to is not None:
            with suppress(OSError):  # a full disk, a reader that has gone: no reason to end a run
                self.to.write(text)
                self.to.flush()


def wrong(now: Counter[str]) -> int:
    """Answers that were not what they should have been."""
    return now["wrong_content"] + now["wrong_length"] + now["wrong_opcode"]
