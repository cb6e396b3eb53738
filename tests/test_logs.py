from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.serving import Lines
from unlimitedws import logs
from unlimitedws.config import Config
from unlimitedws.logs import ACCESS, BURST_LINES, Flood, FloodGuard, JsonFormatter, TextFormatter, clean

HOSTILE = "a\r\n2026-01-01 ERROR forged\x1b[2J\x00\x85\u2028\u202eb"


def record(message: str, *args: Any, exc_info: Any = None, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("unlimitedws.worker", logging.WARNING, "file.py", 1, message, args, exc_info)
    vars(made).update(extra)
    return made


def raised() -> BaseException:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        return error


# ---- text


def test_a_text_line_says_when_what_and_who() -> None:
    line = TextFormatter(logs.TEXT_FORMAT).format(record("worker %d is here", 5))
    assert " WARNING unlimitedws.worker [" in line
    assert line.endswith("] worker 5 is here")


def test_nothing_a_peer_sends_begins_a_new_line_of_text() -> None:
    text = TextFormatter("%(message)s").format(record("path %s", HOSTILE, exc_info=(ValueError, raised(), None)))
    first, *others = text.split("\n")
    assert first == "path a\\r"
    assert others
    assert all(line.startswith("    ") for line in others)
    assert all(char.isprintable() or char in "\n\t" for char in text)


def test_plain_text_is_left_as_it_is() -> None:
    assert clean("/café/日本 ok") == "/café/日本 ok"
    assert clean(HOSTILE) == "a\\r\\n2026-01-01 ERROR forged\\x1b[2J\\x00\\x85\\u2028\\u202eb"


# ---- JSON


def test_a_json_line_is_one_object_with_its_fields() -> None:
    line = JsonFormatter().format(record("worker %d", 5, slot=3, cause="idle"))
    fields = json.loads(line)
    assert abs(datetime.fromisoformat(fields.pop("ts")) - datetime.now(UTC)).total_seconds() < 60
    assert fields.pop("process") > 0
    assert fields == {"level": "warning", "logger": "unlimitedws.worker", "message": "worker 5", "slot": 3, "cause": "idle"}


def test_a_json_line_is_one_line_whatever_peers_send() -> None:
    error = raised()
    line = JsonFormatter().format(record("path %s", HOSTILE, exc_info=(ValueError, error, error.__traceback__), path=HOSTILE))
    assert len(line.splitlines()) == 1
    fields = json.loads(line)
    assert fields["message"] == f"path {HOSTILE}"
    assert fields["path"] == HOSTILE
    assert "Traceback" in fields["exc"]


def test_no_field_can_pass_for_one_of_ours_and_any_object_is_shown() -> None:
    fields = json.loads(JsonFormatter().format(record("m", level="forged", thing=object())))
    assert fields["level"] == "warning"
    assert fields["thing"].startswith("<object object")


# ---- set up


def output_of(program: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout == ""
    return run.stderr.splitlines()


def test_logging_is_set_up_in_the_format_and_level_of_the_settings() -> None:
    (line,) = output_of(
        "import logging; from unlimitedws import logs; from unlimitedws.config import Config\n"
        "logs.set_up(Config(log_format='json', log_level='warning'))\n"
        "logging.info('not shown'); logging.warning('shown')"
    )
    assert json.loads(line)["message"] == "shown"


def test_a_program_that_has_set_up_logging_keeps_its_own() -> None:
    lines = output_of(
        "import logging; from unlimitedws import logs; from unlimitedws.config import Config\n"
        "logging.basicConfig(format='mine: %(message)s')\n"
        "logs.set_up(Config(log_format='json'))\n"
        "logging.warning('shown')"
    )
    assert lines == ["mine: shown"]


# ---- floods


@pytest.fixture
def guard() -> Iterator[FloodGuard]:
    guard = FloodGuard(Config(access_lines_per_s=5))
    guard.start()
    yield guard
    guard.stop()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler, logger = Lines(), logging.getLogger("unlimitedws")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def fail(number: int) -> None:
    try:
        if number % 2:
            raise KeyError(number)
        raise ValueError(number)
    except Exception as error:
        logging.getLogger("unlimitedws.handlers").error("on_message of connection %d failed", number, exc_info=error)


def test_a_handler_that_always_fails_writes_some_lines_and_a_count(guard: FloodGuard, lines: list[str]) -> None:
    for i in range(0, 2000, 2):
        fail(i)
    written = len(lines)
    assert BURST_LINES <= written < BURST_LINES + 5  # a second may have gone by
    assert "ValueError: 0" in lines[0]
    guard.tell(time.monotonic() + logs.TELL_EVERY_S)
    assert lines[written:] == [f"{1000 - written} more lines like this one: on_message of connection {2 * written} failed"]
    guard.tell(time.monotonic() + 2 * logs.TELL_EVERY_S)
    assert len(lines) == written + 1


def test_a_flood_of_one_kind_does_not_hide_another(guard: FloodGuard, lines: list[str]) -> None:
    for i in range(0, 500, 2):
        fail(i)
    fail(1)
    assert "KeyError: 1" in lines[-1]
    logging.getLogger("unlimitedws.handlers").warning("something else")
    assert lines[-1] == "something else"


def test_counts_are_told_now_and_then_and_at_the_stop(lines: list[str]) -> None:
    guard = FloodGuard(Config())
    guard.start()
    for _ in range(100):
        logging.getLogger("unlimitedws.worker").warning("again")
    guard.tell(time.monotonic())
    assert set(lines) == {"again"}
    guard.stop()
    assert lines[-1].endswith(" more lines like this one: again")
    before = len(lines)
    for _ in range(100):
        logging.getLogger("unlimitedws.worker").warning("after the stop")
    assert len(lines) == before + 100


def test_access_lines_are_limited_by_their_cause(guard: FloodGuard, lines: list[str]) -> None:
    log = logging.getLogger(ACCESS)
    for _ in range(50):
        log.info("a bad client", extra={"kind": "protocol_error"})
    for _ in range(3):
        log.info("a good client", extra={"kind": "peer_closed"})
    assert 5 <= lines.count("a bad client") < 15
    assert lines.count("a good client") == 3


def test_access_lines_may_be_without_limit(lines: list[str]) -> None:
    guard = FloodGuard(Config(access_lines_per_s=0))
    guard.start()
    for _ in range(1000):
        logging.getLogger(ACCESS).info("line", extra={"kind": "idle"})
    guard.stop()
    assert lines.count("line") == 1000


def test_kinds_are_bounded(guard: FloodGuard, lines: list[str]) -> None:
    log = logging.getLogger(ACCESS)
    for i in range(3 * logs.MOST_KINDS):
        for _ in range(7):
            log.info("line", extra={"kind": str(i)})
    (flood,) = (each for each in guard.floods if each.logger is log)
    assert len(flood.buckets) <= logs.MOST_KINDS
    assert len(flood.left_out) <= logs.MOST_KINDS


def test_what_was_left_out_keeps_no_traceback_alive() -> None:
    class Held(Exception):
        pass

    flood = Flood("unlimitedws.handlers", 1, 1)
    gone = []
    for _ in range(3):
        error = Held()
        gone.append(weakref.ref(error))
        flood.filter(record("failed", exc_info=(Held, error, None)))
        del error
    gc.collect()
    assert sum(each.lines for each in flood.left_out.values()) == 2
    assert [each() for each in gone] == [None] * 3
