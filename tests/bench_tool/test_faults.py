"""What can be wrong with a server, or with what was typed: one clear line, and the right exit code."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench_tool.tool import (
    COMMAND,
    LIMIT_S,
    SHORT,
    bench,
    comes,
    frame,
    frames,
    raw_server,
    started,
    switching,
    upgraded,
    websockets_server,
)
from tests.bench_tool.tool import echo as echo_of_library
from tests.peer import BINARY, CLOSE, PING, TEXT
from tests.serving import eventually, served
from unlimitedws.bench.command import check_folder
from unlimitedws.bench.server import tree
from unlimitedws.errors import BenchError
from unlimitedws.handlers import Handlers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which server? unlimitedws bench ws://host:port/path"),
        (["http://127.0.0.1/"], "is no WebSocket URL; did you mean ws://127.0.0.1/?"),
        (["idle", "ws://127.0.0.1/"], "'idle' is no URL; what the connections do is said by --mode idle"),
        (["ws://127.0.0.1/", "--conections", "5"], "unknown setting --conections (did you mean --connections?)"),
        (["ws://127.0.0.1/", "--rate", "fast"], "--rate: rate cannot be 'fast'; accepted: a number from 0 to"),
        (["ws://127.0.0.1/", "--plot", "x.doc"], "its name must end with one of .png"),
        (["ws://127.0.0.1/", "--pid", "999999999"], "there is no such process"),
        (["ws://127.0.0.1/", "--plot", "/no/a.svg"], "cannot write /no/a.svg: there is no folder /no"),
        (["--compare", "/no/a.json", "/no/b.json"], "cannot read /no/a.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(arguments: list[str], words: str) -> None:
    done = bench(*arguments)
    assert done.code in (1, 2)
    assert done.err.startswith("unlimitedws: ")
    assert done.err.count("\n") == 1
    assert words in done.err
    assert done.out == ""


def test_a_folder_is_no_file_to_write() -> None:
    with pytest.raises(BenchError, match=r"^cannot write /: it is a folder"):
        check_folder("/")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("unlimitedws.bench.swarm", "bench needs its compiled modules, which are not here"),
        ("hdrh.histogram", "install it: pip install 'unlimitedws[bench]'"),
    ],
)
def test_a_part_that_is_not_installed_is_one_line_that_says_how_to(module: str, words: str) -> None:
    source = f"import sys; sys.modules[{module!r}] = None; from unlimitedws.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", source, "bench", "ws://127.0.0.1:1/"], capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert words in done.stderr


def test_a_port_that_nobody_listens_on_is_one_line() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        done = bench(f"ws://127.0.0.1:{unheard.getsockname()[1]}/")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "Connection refused; does the server run" in done.err


def says(data: bytes) -> Callable[[socket.socket], None]:
    def serve(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(data)

    return serve


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the handshake was refused: HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "the handshake was refused: HTTP/1.1 200 OK"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no WebSocket server: the answer is not HTTP/1.1"),
        (b"", "it ended the connection without an answer; is it a wss:// address?"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it ended the connection without an answer; is it a wss:// address?"),
        (switching(b"another key"), "does not fit our key"),
    ],
)
def test_what_is_no_websocket_server_is_one_line(data: bytes, words: str) -> None:
    with raw_server(says(data)) as url:
        done = bench(url)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert words in done.err


def test_a_server_that_never_answers_is_one_line() -> None:
    with raw_server(lambda peer: [*iter(lambda: peer.recv(4096), b"")] and None) as url:
        done = bench(url, "--timeout-s", "0.5")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "no answer within 0.5 s" in done.err


MORTAL = """
import asyncio
from examples.echo import handlers
from unlimitedws.server import Server

async def main():
    server = Server(handlers, port=0)
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def mortal_server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its URL."""
    with subprocess.Popen([sys.executable, "-c", MORTAL], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server, f"ws://127.0.0.1:{int(server.stdout.readline())}/"
        finally:
            server.kill()


def test_a_server_that_dies_in_the_middle_is_told_with_what_it_did_to_whom(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    arguments = ["--connections", "10", "--rate", "200", "--measure-s", "10000", "--json", str(file)]
    with mortal_server() as (server, url), started(url, *arguments, "--pid", str(server.pid)) as process:
        comes(process, lambda: established(url) == 10, "they did not connect")
        server.kill()
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, err
    assert "STOPPED EARLY: every connection was lost" in out
    assert "end of the server's process (--pid)" in out
    assert "10 lost" in out
    report = json.loads(file.read_text())
    assert report["connections"]["lost"] == 10
    assert (report["server"]["memory"]["end"], report["load"]["limit"]) == (None, None)


def test_a_server_that_dies_before_it_is_besieged_is_told_as_well(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    arguments = ["--mode", "half-open", "--connections", "10", "--healthy", "3", "--warm-s", "10000", "--json", str(file)]
    with mortal_server() as (server, url), started(url, *arguments) as process:
        comes(process, lambda: established(url) == 3, "they did not connect")
        server.kill()
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, err
    assert "STOPPED EARLY: every connection was lost" in out
    assert json.loads(file.read_text())["connections"]["lost"] == 3


def test_a_storm_that_its_server_does_not_survive_says_so() -> None:
    with mortal_server() as (server, url):
        arguments = [*SHORT, "--mode", "connect", "--connections", "3", "--measure-s", "10000", "--pid", str(server.pid)]
        with started(url, *arguments) as process:
            comes(process, lambda: established(url) > 1, "they did not connect")  # before them comes one alone, to look
            server.kill()
            server.wait()
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=LIMIT_S)
    assert "INTERRUPTED" in out
    assert "end of the server's process (--pid)" in out
    assert "neither was at its limit" not in out


def test_a_storm_goes_on_whatever_the_server_does_to_one_of_it() -> None:
    def cut(peer: socket.socket) -> None:
        upgraded(peer)

    with raw_server(cut) as url:
        done = bench(url, *SHORT, "--mode", "connect", "--connections", "1", "--rate", "20")
    assert (done.code, done.report["stopped_early"]) == (1, None)  # though nobody was there between two of them


def test_a_connection_that_was_lost_does_not_shorten_the_time_after_all_have_left() -> None:
    first = threading.Lock()

    def cut_one(peer: socket.socket) -> None:
        upgraded(peer)
        for opcode, _, payload in frames(peer):
            if opcode == TEXT and first.acquire(blocking=False):
                return
            peer.sendall(frame(opcode, payload))
            if opcode == CLOSE:
                return

    with raw_server(cut_one) as url:
        done = bench(url, *SHORT, "--mode", "idle", "--connections", "3", "--sample", "3", "--after-s", "0.2")
    assert (done.report["errors"]["lost"], done.report["stopped_early"]) == (1, None)


def established(url: str) -> int:
    """Connections to a port that the kernel holds, by their clients' ends."""
    wanted = f":{int(url.rstrip('/').rpartition(':')[2]):04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[3] == "01" and row[2].endswith(wanted) for row in rows)


# ---- a server that answers, and wrongly


def answering(answer: Callable[[int, int, bytes], bytes]) -> Callable[[socket.socket], None]:
    """A server that answers each message by what `answer(its number, its opcode, its payload)` gives, and closes politely."""

    def serve(peer: socket.socket) -> None:
        upgraded(peer)
        for number, (opcode, _, payload) in enumerate(frames(peer)):
            if opcode == CLOSE:
                peer.sendall(frame(CLOSE, payload))
                return
            peer.sendall(answer(number, opcode, payload))

    return serve


def altered(payload: bytes) -> bytes:
    return payload[:-1] + bytes((payload[-1] ^ 1,))


@pytest.mark.parametrize(
    ("answer", "counter", "words"),
    [
        (lambda n, opcode, payload: frame(opcode, altered(payload) if n == 3 else payload), "wrong_content", "wrong content"),
        (lambda n, opcode, payload: frame(opcode, payload[: -1 if n == 3 else None]), "wrong_length", "wrong length"),
        (lambda n, opcode, payload: frame(opcode, payload + b"x" * (n == 3)), "wrong_length", "wrong length"),
        (lambda n, opcode, payload: frame(BINARY if n == 3 else opcode, payload), "wrong_opcode", "wrong opcode"),
        (lambda n, opcode, payload: frame(opcode, payload) * (1 + (n == 3)), "unasked", "unasked"),
        (lambda n, opcode, payload: b"" if n == 3 else frame(opcode, payload), "unanswered", "unanswered"),
    ],
    ids=["altered", "short", "long", "binary", "doubled", "lost"],
)
def test_a_wrong_answer_is_counted_for_what_it_is(answer: Any, counter: str, words: str) -> None:
    with raw_server(answering(answer)) as url:
        # Four messages and no more: what comes after a doubled one would be taken for the answers to others.
        done = bench(url, *SHORT, "--connections", "1", "--rate", "10", "--measure-s", "0.4", "--timeout-s", "2")
    assert done.counters[counter] == 1, done.counters
    assert done.code == 1
    assert f"1 {words}" in done.out


def test_exchanged_answers_are_both_wrong() -> None:
    held: list[bytes] = []

    def exchanged(number: int, opcode: int, payload: bytes) -> bytes:
        held.append(frame(opcode, payload))
        return b"" if number == 0 else held[1] + held[0]

    with raw_server(answering(exchanged)) as url:
        done = bench(url, *SHORT, "--connections", "1", "--rate", "10", "--measure-s", "0.2")
    assert done.counters["wrong_content"] == 2


@pytest.mark.parametrize("bad", [b"\x81\x80\0\0\0\0", b"\xf1\x00", b"\x83\x00", b"\x80\x00", b"\x09\x00"], ids=bytes.hex)
def test_frames_against_the_protocol_end_the_connection(bad: bytes) -> None:
    with raw_server(answering(lambda n, opcode, payload: bad)) as url:
        done = bench(url, *SHORT, "--connections", "2", "--timeout-s", "2")
    assert done.code == 1
    assert (done.counters["protocol_errors"], done.counters["lost"]) == (2, 2)
    assert "2 x frames against the protocol" in done.out


@pytest.mark.parametrize("code", [1001, 1011, 4999])
def test_close_codes_of_the_server_are_counted_by_code(code: int) -> None:
    with raw_server(answering(lambda n, opcode, payload: frame(CLOSE, code.to_bytes(2, "big") + b"because"))) as url:
        done = bench(url, *SHORT, "--connections", "3", "--timeout-s", "2")
    assert done.code == 1
    assert done.report["closes"] == {str(code): 3}
    assert f"3 x Close {code}" in done.out


def test_refused_handshakes_are_counted_by_status() -> None:
    handlers = Handlers()
    handlers.on_message = lambda conn, message: conn.send(message)
    # The scout is let in and leaves; then two may stay.
    with served(handlers, max_connections=2) as server:
        done = bench(server.url(), *SHORT, "--connections", "6", "--rate", "20")
        assert done.code == 1
        assert done.report["connections"]["opened"] == 2
        assert done.report["connections"]["failed"] == 4
        assert sum(done.report["statuses"].values()) + sum(map(sum, (each.values() for each in done.report["errnos"].values()))) >= 0


def test_messages_in_pieces_with_pings_in_between_are_put_together() -> None:
    def pieces(number: int, opcode: int, payload: bytes) -> bytes:
        if opcode not in (TEXT, BINARY):
            return b""
        return frame(opcode, payload[:5], fin=False) + frame(PING, b"%d" % number) + frame(0, b"", fin=False) + frame(0, payload[5:])

    with raw_server(answering(pieces)) as url:
        done = bench(url, *SHORT, "--connections", "2", "--rate", "20")
    assert done.code == 0, done
    assert done.counters["answered"] == done.counters["pings"] == 6


def test_a_greeting_is_no_error() -> None:
    def greeting(peer: socket.socket) -> None:
        upgraded(peer)
        peer.sendall(frame(TEXT, b"welcome"))
        for opcode, _, payload in frames(peer):
            peer.sendall(frame(opcode, payload))
            if opcode == CLOSE:
                return

    with raw_server(greeting) as url:
        done = bench(url, *SHORT, "--connections", "1", "--mode", "idle", "--rest-s", "1", "--sample", "1")
    assert (done.code, done.counters["other"], done.counters["answered"]) == (0, 1, 1)


# ---- where what it shows leads to


@pytest.mark.parametrize(("where", "code"), [(">/dev/full", 74), (">&-", 74), (">&- 2>&-", 74), ("2>&-", 0)])
def test_a_table_that_cannot_be_shown_does_not_cost_the_file(where: str, code: int, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with websockets_server(echo_of_library) as url:
        arguments = [*COMMAND, url, *SHORT, "--connections", "2", "--json", str(file)]
        done = subprocess.run(["bash", "-c", f'"$@" {where}', "bash", *arguments], capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert json.loads(file.read_text())["ok"]


def test_a_file_that_cannot_be_written_does_not_cost_the_table() -> None:
    with websockets_server(echo_of_library) as url:
        arguments = [*COMMAND, url, *SHORT, "--connections", "2", "--json", "/dev/full", "--quiet"]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stderr) == (1, "unlimitedws: cannot write /dev/full: No space left on device\n")
    assert "messages" in done.stdout


STALL_S, LATE_US, RATE = 1.0, 250_000, 200


# ---- interrupted


def test_sigint_shows_what_there_is_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with websockets_server(echo_of_library) as url:
        with started(url, "--connections", "4", "--processes", "2", "--measure-s", "100", "--json", str(file)) as process:
            comes(process, lambda: established(url) == 4, "they did not connect")
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
        assert "INTERRUPTED" in out
        report = json.loads(file.read_text())
        assert (report["interrupted"], report["connections"]["opened"]) == (True, 4)
        eventually(lambda: established(url) == 0, "connections were left")


def test_load_processes_end_with_their_parent() -> None:
    with websockets_server(echo_of_library) as url, started(url, "--connections", "4", "--processes", "2", "--measure-s", "100") as process:
        comes(process, lambda: established(url) == 4, "they did not connect")
        process.kill()
        eventually(lambda: established(url) == 0, "they are still there")


def test_an_interruption_in_the_middle_of_a_stall_shows_how_long_it_was(tmp_path: Path) -> None:
    file, is_silent, goes_on = tmp_path / "report.json", threading.Event(), threading.Event()

    def stalling(number: int, opcode: int, payload: bytes) -> bytes:
        if number == 20 and opcode == TEXT:
            is_silent.set()
            goes_on.wait(LIMIT_S)
        return frame(opcode, payload)

    arguments = ["--connections", "1", "--rate", "100", "--warm-s", "0", "--measure-s", "1000", "--json", str(file)]
    with raw_server(answering(stalling)) as url, started(url, *arguments) as process:
        comes(process, is_silent.is_set, "it sent nothing")
        time.sleep(STALL_S)  # what is measured, and no synchronisation
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
        goes_on.set()
    report = json.loads(file.read_text())
    assert report["errors"].keys() == {"unanswered"}
    assert report["latency_us"]["latency"]["longest"] >= STALL_S * 1e6
    assert report["latency_us"]["latency"]["number"] == report["counters"]["due"]


def test_a_load_process_holds_nothing_of_the_others() -> None:
    with websockets_server(echo_of_library) as url, started(url, "--connections", "3", "--processes", "3", "--measure-s", "100") as process:
        comes(process, lambda: established(url) == 3, "they did not connect")
        held = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in tree(process.pid)[1:]]
    assert len(held) == 3
    assert len(set(held)) == 1, held


def test_processes_that_cannot_be_started_are_one_line_that_says_what_to_do() -> None:
    with websockets_server(echo_of_library) as url:
        few = ["sh", "-c", 'ulimit -n 210; exec "$@"', "sh", *COMMAND]
        done = subprocess.run([*few, url, "--connections", "300", "--processes", "300"], capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert "of 300: Too many open files; fewer --processes, or a higher limit" in done.stderr
    assert "process 1 of" not in done.stderr


# ---- the open loop


def test_a_stall_of_the_server_shows_in_an_open_loop_for_every_message_that_was_due_meanwhile() -> None:
    stalled: list[bool] = []

    def stalling(number: int, opcode: int, payload: bytes) -> bytes:
        if number == 100 and opcode == TEXT:
            stalled.append(True)
            time.sleep(STALL_S)
        return frame(opcode, payload)

    with raw_server(answering(stalling)) as url:
        done = bench(url, *SHORT, "--connections", "1", "--rate", str(RATE), "--measure-s", "3")
    assert stalled == [True]
    assert done.code == 0, done
    # Those that were due in the first 0.75 s of the stall waited 0.25 s at least, however busy this machine was.
    assert late(done.report["latency_us"]["latency"]["histogram_ns"]) >= RATE * (STALL_S - LATE_US / 1e6)
    assert done.report["latency_us"]["latency"]["number"] == RATE * 3


def late(histogram: str) -> int:
    from unlimitedws.bench.latency import decoded

    return sum(
        each.count_at_value_iterated_to for each in decoded(histogram).get_recorded_iterator() if each.value_iterated_to >= LATE_US * 1000
    )
