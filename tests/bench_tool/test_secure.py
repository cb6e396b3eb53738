"""wss:// servers: every mode over TLS, and what is said of certificates that are not trusted."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench_tool.test_modes import SCOUT, broadcasting, echoing, gone
from tests.bench_tool.test_swarm import swarm, turn_until
from tests.bench_tool.tool import LIMIT_S, bench, comes, frame, frames, load, raw_server, started, upgraded
from tests.certificates import Authority
from tests.serving import Served, served
from unlimitedws.bench.secure import ClientTls
from unlimitedws.handlers import Handlers


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def secured(authority: Authority, engine: str, handlers: Handlers | None = None, **settings: float) -> Iterator[tuple[Served, str]]:
    """A server with a certificate for localhost, and its URL."""
    chain, key = authority.issue("localhost")
    with served(handlers or echoing(), engine=engine, certfile=str(chain), keyfile=str(key), **settings) as server:
        yield server, f"wss://localhost:{server.server.port}/"


@pytest.mark.parametrize("arguments", [[], ["--pipeline", "8"], ["--rate", "200"], ["--message-bytes", "70000"]], ids=" ".join)
def test_echo_over_tls_counts_what_the_server_counts(authority: Authority, engine_name: str, arguments: list[str]) -> None:
    with secured(authority, engine_name) as (server, url):
        done = load(url, "--cafile", str(authority.pem), "--connections", "8", *arguments)
        counters = gone(server)
    assert counters["messages_in"] == counters["messages_out"] == done.counters["answered"] == done.counters["due"] > 0
    assert counters["connections_opened"] == done.counters["opened"] + SCOUT == 8 + SCOUT
    assert counters["closes_tls_error"] == done.counters["tls_errors"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["idle", "--sample", "5"],
        ["idle", "--sample", "5", "--probe", "ping"],
        ["connect"],
        ["connect", "--abrupt"],
        ["slow", "--healthy", "2", "--stuff-bytes", "32k"],
        ["half-open", "--healthy", "2", "--stage", "tcp"],
        ["half-open", "--healthy", "2", "--stage", "silent"],
        ["reconnect"],
    ],
    ids=" ".join,
)
def test_every_mode_works_over_tls(authority: Authority, engine_name: str, arguments: list[str]) -> None:
    with secured(authority, engine_name) as (server, url):
        done = load(url, "--insecure", "--connections", "5", "--mode", *arguments)
        gone(server)
    assert done.report["ok"]


def test_a_broadcast_reaches_everybody_over_tls(authority: Authority, engine_name: str) -> None:
    handlers, members = broadcasting()
    with secured(authority, engine_name, handlers) as (server, url):
        done = load(url, "--insecure", "--mode", "broadcast", "--connections", "5", "--subscribe", "SUB", "--pipeline", "2")
        members.clear()
        gone(server)
    assert done.counters["delivered"] == 5 * done.counters["published"] > 0


def test_half_a_request_goes_over_tls_as_well(authority: Authority, engine_name: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    arguments = ["--insecure", "--mode", "half-open", "--connections", "4", "--warm-s", "0", "--measure-s", "100", "--json", str(file)]
    with secured(authority, engine_name, handshake_timeout_s=0.5) as (server, url), started(url, *arguments) as process:
        comes(process, lambda: server.counters["closes_handshake_timeout"] == 4, "they were not cut")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
        gone(server)
    report = json.loads(file.read_text())
    assert report["latency_us"]["kept"]["number"] == report["connections"]["cut"] == 4


# ---- what can be wrong


def test_a_certificate_that_is_not_trusted_is_one_line_that_says_what_to_do(authority: Authority, engine_name: str) -> None:
    with secured(authority, engine_name) as (_, url):
        unknown = bench(url)
        elsewhere = bench(url.replace("localhost", "127.0.0.1"), "--cafile", str(authority.pem))
        plain = bench(url.replace("wss:", "ws:"))
    for done in (unknown, elsewhere):
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert "its certificate is not trusted: " in done.err
        assert "--cafile names its authority, --insecure takes any" in done.err
    assert "is not valid for '127.0.0.1'" in elsewhere.err
    assert (plain.code, plain.err.count("\n")) == (1, 1)
    assert "wss://" in plain.err


def test_a_server_without_tls_is_one_line(engine_name: str) -> None:
    with served(echoing(), engine=engine_name) as server:
        done = bench(server.url().replace("ws:", "wss:"))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "no TLS" in done.err
    assert "is it a ws:// address?" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ws://127.0.0.1/", "--insecure"], "--insecure does nothing for ws://127.0.0.1/; it is for wss:// servers"),
        (["ws://127.0.0.1/", "--cafile", "x"], "--cafile does nothing"),
        (["wss://127.0.0.1/", "--cafile", "/no/ca.pem"], "--cafile /no/ca.pem: No such file or directory"),
        (["wss://127.0.0.1/", "--cafile", __file__], "it is a file of certificates (PEM)"),
        (["wss://127.0.0.1/", "ws://127.0.0.1/"], "all begin with ws://, or all with wss://"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_with_tls_is_one_line(arguments: list[str], words: str) -> None:
    done = bench(*arguments)
    assert (done.err.count("\n"), done.out) == (1, "")
    assert words in done.err


@pytest.mark.parametrize(("closes", "counted"), [(True, {"closed": 1, "eof": 0, "lost": 0}), (False, {"closed": 0, "eof": 1, "lost": 1})])
def test_the_end_of_tls_is_answered_and_is_the_end_of_the_connection(authority: Authority, closes: bool, counted: dict[str, int]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("localhost"))
    parted = threading.Event()

    def waiting_for_their_end(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as peer:
            upgraded(peer)
            if closes:
                opcode, _, payload = next(frames(peer))
                peer.sendall(frame(opcode, payload))
            peer.unwrap()  # says close_notify, and waits for the client's
            parted.set()

    client = authority.client_context()
    with raw_server(waiting_for_their_end) as url, swarm(url, make_tls=lambda: ClientTls(client, "localhost")) as (made, row):
        made.dial(0, 1, 1)
        turn_until(made, lambda: row.counters["opened"])
        if closes:
            made.leave()
        turn_until(made, lambda: parted.is_set() and not row.counters["up"] + row.counters["closing"])
    assert {name: row.counters[name] for name in counted} == counted
    assert row.counters["tls_errors"] == row.counters["timeouts"] == 0


def test_words_that_are_no_tls_are_counted_and_end_the_connection() -> None:
    def babbling(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        while peer.recv(4096):
            continue

    context = ssl.create_default_context()
    with raw_server(babbling) as url, swarm(url, 2, make_tls=lambda: ClientTls(context, "localhost")) as (made, row):
        made.dial(0, 2, 2)
        turn_until(made, lambda: row.counters["failed"] == 2)
    assert row.counters["tls_errors"] == 2
