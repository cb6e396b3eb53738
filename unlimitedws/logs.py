"""How log lines are written: as text or JSON, one event each whatever peers send, and never a flood of them.

Everything goes through the standard `logging`. `set_up` does nothing where the program has set up logging itself; the
limits (`FloodGuard`) hold there too, because they sit on our loggers, not on handlers.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Hashable
from datetime import UTC, datetime

from unlimitedws.buckets import Buckets, Rate
from unlimitedws.config import Config

ACCESS = "unlimitedws.access"
CAUSED_BY_PEERS = ("unlimitedws.handlers", "unlimitedws.worker", "unlimitedws.threads", "unlimitedws.checks")
"""Loggers to which a peer can cause lines: by what it sends to a handler that raises, above all."""

TEXT_FORMAT = "%(asctime)s %(levelname)-7s %(name)s [%(process)d] %(message)s"

LINES_PER_S = 1.0
BURST_LINES = 10
"""Of one kind: enough to see what is wrong, and 170 MB a day at most of tracebacks of 2 KB."""

MOST_KINDS = 1024
TELL_EVERY_S = 10.0
LABEL_CHARACTERS = 200

PATH_CHARACTERS = 500
"""Of a path in a line: a head is 16 KiB long and more, and however few the lines, they would fill a disk."""

STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "kind", "is_summary"}


def set_up(config: Config) -> None:
    """Log lines on stderr, in the format of the settings; nothing where the program has set up logging."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if config.log_format == "json" else TextFormatter(TEXT_FORMAT))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])


class TextFormatter(logging.Formatter):
    """A line for each event; further lines of it (tracebacks) are indented, so that none can pass for another event."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if text.isprintable() else "\n    ".join(map(clean, text.split("\n")))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts (ISO 8601, UTC), level, logger, process, message, exc where there is one, and what `extra` held."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["exc"] = self.formatException(record.exc_info)
        extra = {name: value for name, value in vars(record).items() if name not in STANDARD}
        return json.dumps({**extra, **fields}, default=str)  # ASCII alone: nothing in it can end a line


def clean(text: str) -> str:
    """Text from outside with everything escaped that a terminal or a reader of lines might obey."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode() for char in text)


class FloodGuard:
    """Bounds the lines that peers can cause, from `start` to `stop`, for one worker.

    Of each kind (a handler's failing line, say) some are written at once and then one a second; of access lines so many a
    second with the same cause as the setting says. What was left out is counted, and `tell` writes the number."""

    def __init__(self, config: Config) -> None:
        self.floods = [Flood(name, LINES_PER_S, BURST_LINES) for name in CAUSED_BY_PEERS]
        if config.access_lines_per_s:
            self.floods.append(Flood(ACCESS, config.access_lines_per_s, config.access_lines_per_s))
        self.told_at = time.monotonic()

    def start(self) -> None:
        for flood in self.floods:
            flood.logger.addFilter(flood)

    def stop(self) -> None:
        for flood in self.floods:
            flood.tell()
            flood.logger.removeFilter(flood)

    def tell(self, now: float) -> None:
        """Called often; says every `TELL_EVERY_S` how much was left out since."""
        if now - self.told_at >= TELL_EVERY_S:
            self.told_at = now
            for flood in self.floods:
                flood.tell()


class Flood(logging.Filter):
    """Lets some lines of each kind pass, on one logger, and counts the rest."""

    def __init__(self, name: str, per_s: float, burst: float) -> None:
        super().__init__()
        self.logger = logging.getLogger(name)
        self.buckets = Buckets(Rate(per_s, burst / per_s), most=MOST_KINDS)
        self.left_out: dict[Hashable, LeftOut] = {}
        self.lock = threading.Lock()  # blocking handlers log too

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "is_summary"):
            return True
        kind = kind_of(record)
        with self.lock:
            if self.buckets.take(kind, time.monotonic()):
                return True
            left_out = self.left_out.get(kind)
            if left_out is None and len(self.left_out) < MOST_KINDS:
                left_out = self.left_out[kind] = LeftOut(record)
            if left_out is not None:
                left_out.lines += 1
        return False

    def tell(self) -> None:
        """A line for each kind of which some were left out since the last time."""
        with self.lock:
            left_out, self.left_out = self.left_out, {}
        for each in left_out.values():
            self.logger.log(each.level, "%d more lines like this one: %s", each.lines, each.label, extra={"is_summary": True})


class LeftOut:
    """How many lines of one kind were left out, and what the first of them said. Keeps no traceback: it would keep frames."""

    def __init__(self, record: logging.LogRecord) -> None:
        self.lines = 0
        self.level = record.levelno
        self.label = record.getMessage()[:LABEL_CHARACTERS]


def kind_of(record: logging.LogRecord) -> Hashable:
    """What counts as the same line again: what the call says it is, or the place that raised, or the place that logged."""
    if hasattr(record, "kind"):
        return str(record.kind)
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.pathname, record.lineno
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    raised_at = (at.tb_frame.f_code.co_filename, at.tb_lineno) if at is not None else ()
    return record.pathname, record.lineno, type(error), raised_at
