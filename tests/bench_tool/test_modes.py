"""Each mode in miniature, against both engines and the server of another library; what it counts is what the server counted."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.bench_tool.tool import LIMIT_S, Done, bench, comes, echo, load, started, websockets_server
from tests.serving import Served, eventually, served
from unlimitedws.handlers import Handlers

SCOUT = 1  # the handshake before each run

Start = Callable[..., Served]


@pytest.fixture
def start(engine_name: str) -> Iterator[Start]:
    """Starts a server on each engine: `start(handlers, setting=...)`; echo by default."""
    with ExitStack() as stack:

        def one(handlers: Handlers | None = None, **settings: Any) -> Served:
            return stack.enter_context(served(handlers or echoing(), engine=engine_name, **settings))

        yield one


def echoing() -> Handlers:
    handlers = Handlers()
    handlers.on_message = lambda conn, message: conn.send(message)
    return handlers


def gone(server: Served) -> dict[str, int]:
    """The server's counters, once the last client has left."""
    eventually(lambda: not server.counters["connections_open"])
    return server.counters


# ---- echo


def test_echo_counts_what_the_server_counts(start: Start) -> None:
    server = start()
    done = load(server.url(), "--connections", "8")
    counters = gone(server)
    assert counters["messages_in"] == counters["messages_out"] == done.counters["answered"] == done.counters["due"] > 0
    assert counters["connections_opened"] == done.counters["opened"] + SCOUT == 8 + SCOUT
    assert done.report["loop"] == "closed"
    assert "CLOSED LOOP" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--pipeline", "16"],
        ["--message-bytes", "0"],
        ["--message-bytes", "300"],
        ["--message-bytes", "100k", "--binary", "--pipeline", "3"],
        ["--connections", "3", "--processes", "3"],
        ["--sources", "5"],
        ["--rate", "200"],
    ],
    ids=" ".join,
)
def test_every_message_of_an_echo_is_answered(start: Start, arguments: list[str]) -> None:
    server = start()
    done = load(server.url(), "--connections", "8", *arguments)
    counters = gone(server)
    assert counters["messages_in"] == done.counters["answered"] == done.counters["due"] > 0


def test_an_open_loop_sends_what_is_due_and_no_more(start: Start) -> None:
    done = load(start().url(), "--connections", "4", "--rate", "100", "--measure-s", "0.5")
    assert done.report["loop"] == "open"
    assert done.counters["due"] == done.counters["answered"] == 50
    assert done.report["latency_us"]["latency"]["number"] == 50


def test_pings_of_the_server_are_answered(start: Start) -> None:
    server = start(ping_interval_s=0.1, ping_timeout_s=30.0)
    done = load(server.url(), "--mode", "idle", "--connections", "3", "--rest-s", "3", "--sample", "0")
    assert done.counters["pings"] > 0
    assert gone(server)["closes_heartbeat_lost"] == 0


# ---- idle


def test_idle_holds_all_asks_a_sample_of_them_and_lets_them_go(start: Start) -> None:
    server = start()
    done = load(server.url(), "--mode", "idle", "--connections", "60", "--processes", "2", "--sample", "20")
    counters = gone(server)
    assert done.report["connections"]["opened"] == 60
    assert counters["messages_in"] == done.counters["answered"] == 20
    assert done.report["latency_us"]["latency"]["number"] == 20
    assert (done.counters["closed"], done.counters["lost"]) == (60, 0)
    assert {"connecting_s", "leaving_s"} <= done.report["connections"].keys()


def test_idle_may_ask_by_pings_and_leave_by_resets(start: Start) -> None:
    server = start()
    done = load(server.url(), "--mode", "idle", "--connections", "10", "--sample", "10", "--probe", "ping", "--abrupt")
    counters = gone(server)
    assert (counters["messages_in"], done.counters["answered"]) == (0, 10)
    assert counters["closes_peer_reset"] == 10


# ---- connect


@pytest.mark.parametrize("manner", [[], ["--abrupt"], ["--rate", "50"]], ids=["polite", "abrupt", "paced"])
def test_a_storm_connects_and_leaves_again_and_again(start: Start, manner: list[str]) -> None:
    server = start()
    done = load(server.url(), "--mode", "connect", "--connections", "4", *manner)
    counters = gone(server)
    assert done.counters["opened"] > 4
    # Of one that is reset at once the server may never have heard.
    assert counters["connections_opened"] == done.counters["opened"] + SCOUT or "--abrupt" in manner
    assert done.report["loop"] == ("open" if "--rate" in manner else "closed")
    assert done.report["latency_us"]["latency"]["number"] == done.counters["measured"] > 0


# ---- broadcast


def broadcasting() -> tuple[Handlers, list[Any]]:
    """A server that passes on to those who said SUB; and its worker, once it runs."""
    handlers, members = Handlers(), []

    @handlers.on_message
    def passed(conn: Any, message: Any) -> None:
        if message == "SUB":
            members.append(conn)
        else:
            for member in members:
                member.send(message)

    return handlers, members


@pytest.mark.parametrize("arguments", [[], ["--pipeline", "4"], ["--rate", "40"], ["--processes", "3"]], ids=" ".join)
def test_a_broadcast_reaches_everybody_once_and_in_order(start: Start, arguments: list[str]) -> None:
    handlers, members = broadcasting()
    server = start(handlers)
    done = load(server.url(), "--mode", "broadcast", "--connections", "9", "--subscribe", "SUB", "--measure-s", "1", *arguments)
    assert len(members) == 9
    assert done.counters["delivered"] == 9 * done.counters["published"] > 0
    members.clear()
    gone(server)


def test_a_server_that_passes_nothing_on_is_found_out(start: Start) -> None:
    done = bench(start().url(), "--mode", "broadcast", "--connections", "3", "--timeout-s", "1")
    assert done.code == 1
    assert "a publication reached 0 of 3 connections within 1 s" in done.err
    assert "--subscribe" in done.err


# ---- slow, half-open


def test_slow_readers_do_not_keep_others_from_their_answers(start: Start) -> None:
    server = start()
    done = load(server.url(), "--mode", "slow", "--connections", "3", "--healthy", "2", "--healthy-rate", "50", "--stuff-bytes", "64k")
    connections = done.report["connections"]
    assert connections["held"] + connections["cut"] == 3
    # They come in two parts, and the time in between is none of connecting.
    assert connections["per_s"] == pytest.approx(connections["opened"] / connections["connecting_s"], rel=0.1)
    assert done.counters["answered"] == done.counters["due"] == 30
    assert {"quiet", "latency"} <= done.report["latency_us"].keys()
    gone(server)


@pytest.mark.parametrize(
    ("stage", "cause", "settings"),
    [
        ("tcp", "closes_handshake_timeout", {"handshake_timeout_s": 0.5}),
        ("request", "closes_handshake_timeout", {"handshake_timeout_s": 0.5}),
        ("silent", "closes_heartbeat_lost", {"ping_interval_s": 0.3, "ping_timeout_s": 0.3}),
    ],
)
def test_half_open_connections_are_timed_until_the_server_cuts_them(
    start: Start, tmp_path: Path, stage: str, cause: str, settings: dict[str, float]
) -> None:
    server, file = start(**settings), tmp_path / "report.json"
    arguments = ["--mode", "half-open", "--connections", "4", "--stage", stage, "--warm-s", "0", "--measure-s", "100"]
    with started(server.url(), *arguments, "--json", str(file)) as process:
        comes(process, lambda: server.counters[cause] == 4, f"they were not cut for {cause}")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
    report = json.loads(file.read_text())
    assert report["latency_us"]["kept"]["number"] == report["connections"]["cut"] == 4
    gone(server)


# ---- reconnect


def test_all_come_back_after_they_were_lost_at_once(start: Start) -> None:
    server = start()
    done = load(server.url(), "--mode", "reconnect", "--connections", "20", "--processes", "2", "--spread-s", "0.2")
    counters = gone(server)
    assert done.report["latency_us"]["latency"]["number"] == 20
    assert counters["connections_opened"] == 40 + SCOUT
    assert "coming_back_s" in done.report["connections"]


# ---- another server


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--rate", "100"],
        ["--message-bytes", "70000"],
        ["--mode", "idle", "--sample", "5"],
        ["--mode", "idle", "--sample", "5", "--probe", "ping"],
        ["--mode", "connect"],
        ["--mode", "slow", "--healthy", "2", "--stuff-bytes", "32k"],
        ["--mode", "half-open", "--healthy", "2"],
        ["--mode", "reconnect"],
    ],
    ids=" ".join,
)
def test_every_mode_works_with_the_server_of_the_websockets_library(arguments: list[str]) -> None:
    with websockets_server(echo) as url:
        done: Done = load(url, "--connections", "5", *arguments)
    assert done.report["ok"]
