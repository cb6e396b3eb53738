from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.certificates import Authority
from tests.peer import TEXT, pack, request
from tests.serving import WAIT_S, descriptors, eventually, head, masked, served, upgrade
from unlimitedws import Config, Handlers, ListenError, Server, StartFailed, UnknownSetting
from unlimitedws.errors import AppInvalid, BadCertificate, BadValue

ROOT = Path(__file__).parent.parent


def echoing(**options: Any) -> Handlers:
    handlers = Handlers(**options)
    handlers.on_message = lambda conn, message: conn.send(message)
    return handlers


MESSAGES: list[str | bytes] = ["hello", "", "né ☃ 𝄞", b"", b"\x00\xff", "x" * 125, "x" * 126, b"y" * 65535, b"y" * 65536, "z" * 1_000_000]


def test_websockets_gets_back_what_it_sends(engine_name: str) -> None:
    with served(echoing(), engine=engine_name) as there, there.client() as client:
        for message in MESSAGES:
            client.send(message)
            assert client.recv(timeout=WAIT_S) == message
        client.send(["frag", "ment", "ed"])
        assert client.recv(timeout=WAIT_S) == "fragmented"
        assert client.ping().wait(WAIT_S)


def test_the_asyncio_client_of_websockets_gets_back_what_it_sends(engine_name: str) -> None:
    async def main() -> None:
        async with (
            Server(echoing(), port=0, engine=engine_name) as server,
            websockets.connect(f"ws://127.0.0.1:{server.port}/", max_size=None) as client,  # it offers compression
        ):
            for message in MESSAGES:
                await client.send(message)
                assert await client.recv() == message
            await asyncio.gather(*(client.send(str(i)) for i in range(1000)))
            assert sorted([int(await client.recv()) for _ in range(1000)]) == list(range(1000))
            await (await client.ping())

    asyncio.run(asyncio.wait_for(main(), 30))


def test_aiohttp_gets_back_what_it_sends(engine_name: str) -> None:
    async def main() -> None:
        async with (
            Server(echoing(subprotocols=("chat",)), port=0, engine=engine_name) as server,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{server.port}/", protocols=("chat",), max_msg_size=0, compress=15) as client,
        ):
            assert client.protocol == "chat"
            for message in MESSAGES:
                if isinstance(message, str):
                    await client.send_str(message)
                    assert await client.receive_str() == message
                else:
                    await client.send_bytes(message)
                    assert await client.receive_bytes() == message
            await client.close(code=4000, message=b"bye")
            assert client.close_code == 4000

    asyncio.run(asyncio.wait_for(main(), 30))


def test_several_paths_lead_to_several_handlers_and_any_other_to_404(engine_name: str) -> None:
    def saying(word: str) -> Handlers:
        handlers = Handlers()
        handlers.on_connect = lambda conn: conn.send(f"{word} {conn.path}")
        return handlers

    with served({"/chat": saying("chat"), "/café": saying("news")}, engine=engine_name) as there:
        with there.client("/chat?room=1") as one, there.client("/caf%C3%A9") as other:
            assert [client.recv(timeout=WAIT_S) for client in (one, other)] == ["chat /chat", "news /café"]
        for path in ("/", "/chat/", "/Chat", "/chatter"):
            with pytest.raises(InvalidStatus) as caught, there.client(path):
                pass
            assert caught.value.response.status_code == 404
        # Counted a moment after the answer has left.
        eventually(lambda: there.counters["closes_handshake_refused"] == 4)
        assert there.counters["handshake_failures"] == 4


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["v1", "v2"], "v2"), (["v1"], "v1"), (["other"], None), (None, None)],
)
def test_the_subprotocol_is_ours_to_choose(engine_name: str, offered: Any, chosen: str | None) -> None:
    handlers = Handlers(subprotocols=("v2", "v1"))
    handlers.on_connect = lambda conn: conn.send(f"{conn.subprotocol}")
    subprotocols = offered and [Subprotocol(name) for name in offered]
    with served(handlers, engine=engine_name) as there, there.client(subprotocols=subprotocols) as client:
        assert (client.subprotocol, client.recv(timeout=WAIT_S)) == (chosen, str(chosen))


def test_a_page_is_served_on_the_same_port(engine_name: str, tmp_path: Path) -> None:
    handlers = echoing()
    style = tmp_path / "style.css"
    style.write_text("p {}")
    handlers.get("/")(lambda: "<p>né")
    handlers.get("/style.css")(lambda: style)
    handlers.get("/broken")(lambda: 1 / 0)
    big = os.urandom(3_000_000)
    handlers.get("/big")(lambda: big)

    async def main(base: str) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as session:
            async with session.get(base + "/?x=1") as answer:
                assert (answer.status, answer.content_type, await answer.text()) == (200, "text/html", "<p>né")
            async with session.get(base + "/style.css") as answer:
                assert (answer.status, answer.content_type, await answer.text()) == (200, "text/css", "p {}")
            async with session.get(base + "/big") as answer:
                assert (answer.status, await answer.read() == big) == (200, True)
            async with session.head(base + "/big") as answer:
                assert (answer.status, answer.headers["Content-Length"], await answer.read()) == (200, "3000000", b"")
            for path, status in (("/broken", 500), ("/none", 426)):
                async with session.get(base + path) as answer:
                    assert answer.status == status
            async with session.post(base + "/", data=b"x") as answer:
                assert answer.status == 405
            async with session.ws_connect(base + "/") as client:
                await client.send_str("and a WebSocket")
                assert await client.receive_str() == "and a WebSocket"

    with served(handlers, engine=engine_name) as there:
        asyncio.run(main(f"http://127.0.0.1:{there.port}"))
        assert there.counters["http_requests"] >= 4
        eventually(lambda: there.counters["handshakes_pending"] == 0, "a connection was kept alive beyond its client")
        assert there.counters["closes_http_answered"] + there.counters["closes_handshake_refused"] >= 1


def test_many_connections_come_and_go_and_nothing_is_kept(engine_name: str) -> None:
    with served(echoing(), engine=engine_name) as there:
        for _ in range(3):
            peers = [there.socket() for _ in range(100)]
            for peer in peers:
                upgrade(peer)
            eventually(lambda: there.counters["connections_open"] == 100)
            for peer in peers:
                peer.close()
            eventually(lambda: there.counters["connections_open"] == 0)
        assert there.counters["connections_opened"] == 300


def test_messages_pipelined_into_one_segment_are_all_answered(engine_name: str) -> None:
    with served(echoing(), engine=engine_name) as there, there.socket() as peer:
        upgrade(peer)
        peer.sendall(b"".join(pack(TEXT, str(i).encode()) for i in range(5000)))
        expected = b"".join(bytes([0x81, len(str(i))]) + str(i).encode() for i in range(5000))
        received = b""
        while len(received) < len(expected):
            received += peer.recv(1 << 16)
        assert received == expected


def test_a_slow_consumer_is_closed_with_1013_and_harms_nobody(engine_name: str) -> None:
    closes: list[Any] = []
    handlers = Handlers()

    @handlers.on_message
    def fill(conn: Any, message: Any) -> None:
        while conn.is_open:
            conn.send(b"x" * 65536)

    handlers.on_close = lambda conn, close: closes.append(close)
    with served(handlers, engine=engine_name, queue_bytes=1 << 20, close_timeout_s=0.3) as there, there.socket() as peer:
        upgrade(peer)
        peer.sendall(masked(b"go"))
        eventually(lambda: closes)
        assert (closes[0].code, closes[0].cause) == (1013, "slow_consumer")
        with there.socket() as other:
            upgrade(other)


def test_a_server_tells_its_host_and_port() -> None:
    async def main() -> None:
        server = Server(Handlers(), host="127.0.0.1", port=0)
        assert (server.host, server.port) == ("127.0.0.1", 0)
        async with server:
            assert server.port > 0

    asyncio.run(main())


def test_settings_are_given_as_config_or_keywords_and_keywords_win() -> None:
    config = Config(port=1234, message_bytes=10)
    assert Server(Handlers(), config=config).config is not None
    server = Server(Handlers(), "0.0.0.0", 4321, config=config, message_bytes=20)
    assert (server.host, server.port, server.config.message_bytes) == ("0.0.0.0", 4321, 20)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"prot": 8000}, UnknownSetting, "prot"),
        ({"port": -1}, BadValue, "port"),
        ({"port": "8000"}, BadValue, "port"),
        ({"message_bytes": 0}, BadValue, "message_bytes"),
        ({"engine": "fast"}, BadValue, "native, portable"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Server(Handlers(), **settings)


def test_what_is_no_app_is_refused_when_the_server_is_made() -> None:
    with pytest.raises(AppInvalid, match="make an object of it"):
        Server(Handlers)  # type: ignore[arg-type]


def test_a_port_in_use_is_a_listen_error_and_runs_no_hook() -> None:
    started: list[Any] = []
    handlers = Handlers()
    handlers.on_start = started.append

    async def main() -> None:
        async with Server(Handlers(), port=0) as first:
            with pytest.raises(ListenError, match="another program"):
                await Server(handlers, port=first.port).start()

    asyncio.run(main())
    assert started == []


def test_an_unknown_host_is_a_listen_error() -> None:
    with pytest.raises(ListenError, match="cannot listen on"):
        asyncio.run(Server(Handlers(), host="no such host", port=0).start())


def test_a_start_that_fails_gives_the_port_back(engine_name: str) -> None:
    handlers = Handlers()
    handlers.on_start = lambda worker: 1 / 0

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        before = descriptors()
        server = Server(handlers, port=port, engine=engine_name)
        with pytest.raises(StartFailed, match="ZeroDivisionError"):
            await server.start()
        await server.stop()  # nothing to stop
        assert descriptors() == before
        async with Server(Handlers(), port=port, engine=engine_name):
            pass

    asyncio.run(main())


def test_a_server_starts_once() -> None:
    async def main() -> None:
        async with Server(Handlers(), port=0) as server:
            with pytest.raises(RuntimeError, match="make another one"):
                await server.start()
        with pytest.raises(RuntimeError, match="make another one"):
            await server.start()
        await server.stop()  # stopping twice is stopping once

    asyncio.run(main())


def test_before_the_start_nobody_is_there() -> None:
    worker = Server(Handlers(), port=0).worker
    assert (worker.connections, worker.broadcast("x")) == ([], 0)


def test_two_servers_share_a_loop(engine_name: str) -> None:
    async def main() -> None:
        async with Server(echoing(), port=0, engine=engine_name) as one, Server(echoing(), port=0, engine=engine_name) as other:
            for server in (one, other):
                async with websockets.connect(f"ws://127.0.0.1:{server.port}") as client:
                    await client.send("hello")
                    assert await client.recv() == "hello"
            assert (one.counters["messages_in"], other.counters["messages_in"]) == (1, 1)

    asyncio.run(main())


RUN = """
import asyncio, sys
from unlimitedws import Handlers, Server
handlers = Handlers()

@handlers.on_start
def started(worker):
    asyncio.get_running_loop().call_later(0.01, lambda: print(server.port, type(worker.loop).__module__, flush=True))

@handlers.on_message
def echo(conn, message):
    conn.send(message)

@handlers.on_stop
def stopped(worker):
    print("stopped", flush=True)

server = Server(handlers, port=0, **eval(sys.argv[1]))
server.run()
print("the end", flush=True)
"""


def running(**settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, repr(settings)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_serves_on_uvloop_until_a_signal_and_then_stops_gracefully(engine_name: str, number: signal.Signals) -> None:
    with running(engine=engine_name) as process:
        assert process.stdout
        port, loop = process.stdout.readline().split()
        assert loop == "uvloop"
        with socket.create_connection(("127.0.0.1", int(port)), timeout=WAIT_S) as peer:
            upgrade(peer)
            process.send_signal(number)
            received = b""
            while len(received) < 4:
                received += peer.recv(100)
            assert (received[:1], received[2:4]) == (b"\x88", b"\x03\xe9")  # a Close frame with 1001
        out, errors = process.communicate(timeout=WAIT_S)
    assert (out, errors, process.returncode) == ("stopped\nthe end\n", "", 0)


def test_a_second_signal_ends_a_stop_at_once(engine_name: str) -> None:
    with running(engine=engine_name, stop_timeout_s=600.0, close_timeout_s=600.0) as process:
        assert process.stdout
        port, _ = process.stdout.readline().split()
        with socket.create_connection(("127.0.0.1", int(port)), timeout=WAIT_S) as peer:
            upgrade(peer)  # and never answers the Close
            process.send_signal(signal.SIGTERM)
            assert peer.recv(1) == b"\x88"
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=WAIT_S)
    assert (out, process.returncode) == ("stopped\nthe end\n", 0)


def test_a_signal_while_on_start_is_pending_ends_the_start(engine_name: str) -> None:
    code = """
import asyncio, sys
from unlimitedws import Handlers, Server
handlers, slow = Handlers(), Handlers()
handlers.on_stop = lambda worker: print("stopped", flush=True)

@slow.on_start
async def wait(worker):
    print("starting", flush=True)
    await asyncio.Event().wait()

Server({"/a": handlers, "/b": slow}, port=0, engine=sys.argv[1]).run()
print("the end", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code, engine_name], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "starting\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=WAIT_S)
    assert (out, process.returncode) == ("stopped\nthe end\n", 0)


def test_run_tells_what_keeps_it_from_starting() -> None:
    handlers = Handlers()
    handlers.on_start = lambda worker: 1 / 0
    with pytest.raises(StartFailed, match="ZeroDivisionError"):
        Server(handlers, port=0).run()


def test_run_works_in_a_thread_where_signals_are_not_its_own() -> None:
    handlers = Handlers()
    workers: list[Any] = []
    handlers.on_start = workers.append
    server = Server(handlers, port=0)
    stopped: list[Any] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:
            stopped.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: server.port)
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head(peer).startswith(b"HTTP/1.1 426 ")
    loop = workers[0].loop
    loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
    thread.join(WAIT_S)
    assert [type(error) for error in stopped] == [asyncio.CancelledError]


# ---- where it listens, and what proxies say


def tells_address() -> Handlers:
    handlers = Handlers()
    handlers.on_message = lambda conn, message: conn.send(str(conn.remote_address))
    return handlers


def address_told(peer: socket.socket, *headers: str, preface: bytes = b"") -> str:
    """What the server says of a client's address."""
    with peer:
        peer.settimeout(WAIT_S)
        peer.sendall(preface)
        upgrade(peer, "/", *headers)
        peer.sendall(pack(TEXT, b"who am I?"))
        return peer.recv(4096)[2:].decode()


def unix_socket(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    return peer


def test_it_listens_in_several_places(engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with served(tells_address(), engine=engine_name, listen="127.0.0.1:0, unix:app.sock, *:0") as there:
        assert address_told(there.socket()).startswith("('127.0.0.1', ")
        assert address_told(unix_socket("app.sock")) == "unix"
    assert not os.path.exists("app.sock")


def test_it_listens_on_a_unix_socket_alone(engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with served(tells_address(), engine=engine_name, listen="unix:app.sock"):
        assert address_told(unix_socket("app.sock")) == "unix"


def test_a_client_of_both_families_on_one_socket_is_shown_in_its_own(engine_name: str) -> None:
    with served(tells_address(), engine=engine_name, host="*") as there:
        assert address_told(there.socket()).startswith("('127.0.0.1', ")
        assert address_told(socket.create_connection(("::1", there.port))).startswith("('::1', ")


def test_where_one_place_cannot_be_listened_on_nothing_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = descriptors()

    async def main() -> None:
        with pytest.raises(ListenError, match="check --host"):
            await Server(echoing(), listen="unix:app.sock, 127.0.0.1:0, 192.0.2.1:0").start()

    asyncio.run(main())
    assert not os.path.exists("app.sock")
    eventually(lambda: descriptors() == before)


PREFACES = [
    b"PROXY TCP4 192.0.2.1 127.0.0.1 777 80\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes((192, 0, 2, 1, 127, 0, 0, 1)) + (777).to_bytes(2, "big") + bytes(2),
]


@pytest.mark.parametrize("preface", PREFACES, ids=["v1", "v2"])
def test_the_address_that_a_trusted_proxy_tells_of_is_the_clients(engine_name: str, preface: bytes) -> None:
    with served(tells_address(), engine=engine_name, listen="127.0.0.1:0?proxy", trusted_proxies="127.0.0.1") as there:
        assert address_told(there.socket(), preface=preface) == "('192.0.2.1', 777)"
        assert address_told(there.socket(), preface=b"PROXY UNKNOWN\r\n").startswith("('127.0.0.1', ")


def test_a_preface_may_arrive_byte_by_byte_and_with_the_request_behind_it(engine_name: str) -> None:
    with served(tells_address(), engine=engine_name, listen="127.0.0.1:0?proxy", trusted_proxies="127.0.0.1") as there:
        for preface in PREFACES:
            with there.socket() as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in preface + request("/"):
                    peer.sendall(bytes((byte,)))
                assert head(peer).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("trusted", "said"), [("192.0.2.0/24", PREFACES[0]), ("127.0.0.1", request("/")), ("127.0.0.1", b"PROXY TCP4 x\r\n")]
)
def test_without_a_preface_of_a_trusted_proxy_the_connection_is_cut(engine_name: str, trusted: str, said: bytes) -> None:
    with served(tells_address(), engine=engine_name, listen="127.0.0.1:0?proxy", trusted_proxies=trusted) as there, there.socket() as peer:
        peer.sendall(said)
        with suppress(ConnectionResetError):
            assert peer.recv(4096) == b""
        eventually(lambda: there.counters["handshake_failures"] == 1)
        assert there.counters["connections_opened"] == 0


def test_a_proxied_and_a_plain_listener_live_side_by_side(engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with served(tells_address(), engine=engine_name, listen="127.0.0.1:0, unix:app.sock?proxy", trusted_proxies="unix") as there:
        assert address_told(there.socket()).startswith("('127.0.0.1', ")
        assert address_told(unix_socket("app.sock"), preface=PREFACES[0]) == "('192.0.2.1', 777)"


def test_a_header_is_believed_of_trusted_proxies_only(engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"forwarded_header": "x-forwarded-for", "listen": "127.0.0.1:0, unix:app.sock"}
    with served(tells_address(), engine=engine_name, trusted_proxies="unix, 10.0.0.0/8", **settings) as there:
        chain = "X-Forwarded-For: 192.0.2.66, 192.0.2.1, 10.0.0.1"
        assert address_told(unix_socket("app.sock"), chain) == "('192.0.2.1', 0)"
        assert address_told(there.socket(), chain).startswith("('127.0.0.1', ")
        assert address_told(unix_socket("app.sock"), "Forwarded: for=192.0.2.1") == "unix"


# ---- TLS


def test_wss_gets_back_what_it_sends(engine_name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("localhost")
    with (
        served(echoing(), engine=engine_name, certfile=str(chain), keyfile=str(key)) as there,
        connect(f"wss://localhost:{there.port}/", ssl=authority.client_context(), max_size=None, sock=there.socket()) as client,
    ):
        for message in MESSAGES:
            client.send(message)
            assert client.recv(timeout=WAIT_S) == message


def test_a_renewed_certificate_is_served_without_a_restart(engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlimitedws.tls.LOOK_EVERY_S", 0.0)
    authority = Authority(tmp_path)
    chain, key = authority.issue("old.example")

    def seen() -> list[str]:
        context = authority.client_context()
        context.check_hostname = False
        with context.wrap_socket(there.socket()) as client:
            upgrade(client)
            return [value for kind, value in client.getpeercert()["subjectAltName"] if kind == "DNS"]  # type: ignore[index,misc]

    with served(echoing(), engine=engine_name, certfile=str(chain), keyfile=str(key)) as there:
        assert seen() == ["old.example"]
        authority.issue("new.example", into=chain.parent)
        assert seen() == ["new.example"]


def test_tls_and_plain_places_live_side_by_side(engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    authority = Authority(tmp_path)
    chain, key = authority.issue("localhost")
    settings = {"certfile": str(chain), "keyfile": str(key), "listen": "127.0.0.1:0?proxy, unix:app.sock", "trusted_proxies": "127.0.0.1"}
    with served(tells_address(), engine=engine_name, **settings) as there:
        assert address_told(unix_socket("app.sock")) == "unix"
        peer = there.socket()
        peer.sendall(PREFACES[0])  # before TLS
        assert address_told(authority.client_context().wrap_socket(peer, server_hostname="localhost")) == "('192.0.2.1', 777)"


def test_a_certificate_that_cannot_be_used_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadCertificate, match="No such file"):
        Server(echoing(), certfile=str(tmp_path / "none.pem"))
