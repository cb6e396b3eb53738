"""Sockets passed by systemd, in a process that is started as systemd starts it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.activated import activated
from unlimitedws.activation import Activation
from unlimitedws.config import Config
from unlimitedws.errors import ActivationError
from unlimitedws.place import Systemd

ROOT = Path(__file__).parent.parent


def tell(sockets: Sequence[socket.socket], story: str, names: str = "") -> Any:
    """What a story in a process with these sockets prints, as JSON."""
    source = (
        "import json, os, socket\nfrom unlimitedws.activation import Activation, passed\nfrom unlimitedws.config import Config\n"
        "from unlimitedws.errors import ActivationError\nfrom unlimitedws.place import Systemd\n" + story
    )
    done = subprocess.run(
        activated(sockets, names, "-W", "error", "-c", source), pass_fds=[sock.fileno() for sock in sockets],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def tcp(number: int = 1) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]


LIST = """
found = passed().listeners(Systemd({name!r}), Config({settings}))
print(json.dumps([[str(each), each.sock.fileno(), each.sock.get_inheritable(), each.sock.getblocking(), each.tls] for each in found]))
for each in found:
    each.close()
"""


def test_all_sockets_are_taken_over() -> None:
    with tcp(3) as sockets:
        found = tell(sockets, LIST.format(name="", settings=""))
        names = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
    assert found == [[name, 3 + i, False, False, False] for i, name in enumerate(names)]


def test_sockets_are_chosen_by_name() -> None:
    with tcp(3) as sockets:
        found = tell(sockets, LIST.format(name="web", settings=""), names="web:admin:web")
    assert [fd for _, fd, *_ in found] == [3, 5]


def test_a_name_that_no_socket_has_is_told_with_those_there_are() -> None:
    story = """
try:
    passed().listeners(Systemd("web"), Config())
except ActivationError as error:
    print(json.dumps(str(error)))
"""
    with tcp(2) as sockets:
        assert "no socket is named web, but admin, stats" in tell(sockets, story, names="stats:admin")


def test_a_socket_is_given_to_one_place_only() -> None:
    story = """
one = passed().listeners(Systemd("a"), Config())
other = passed().listeners(Systemd("b"), Config())
try:
    passed().listeners(Systemd("a"), Config())
except ActivationError as error:
    print(json.dumps([one[0].sock.fileno(), other[0].sock.fileno(), str(error)]))
for each in one + other:
    each.close()
"""
    with tcp(2) as sockets:
        first, second, error = tell(sockets, story, names="a:b")
    assert (first, second) == (3, 4)
    assert "no socket" in error


def test_programs_that_are_started_from_here_do_not_take_them_for_theirs() -> None:
    story = "passed()\nprint(json.dumps([name for name in os.environ if name.startswith('LISTEN_')]))"
    with tcp() as sockets:
        assert tell(sockets, story) == []


def test_tcp_sockets_get_the_options_of_ours() -> None:
    story = """
each, = passed().listeners(Systemd(), Config(sndbuf_bytes=65536))
print(json.dumps([each.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), each.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)]))
each.close()
"""
    with tcp() as sockets:
        assert tell(sockets, story) == [1, 2 * 65536]  # socket(7): the kernel doubles it


def test_unix_sockets_are_taken_and_their_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("app.sock")
        sock.listen()
        found = tell([sock], LIST.format(name="", settings="certfile='x'"))
        assert found[0][0] == "unix:app.sock"
        assert found[0][4] is False  # TLS: not on Unix sockets, unless it says so
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("app.sock")  # systemd still listens


def test_tcp_sockets_speak_tls_where_there_is_a_certificate() -> None:
    with tcp() as sockets:
        assert tell(sockets, LIST.format(name="", settings="certfile='x'"))[0][4] is True


def test_systemd_goes_on_listening_when_we_stop() -> None:
    story = """
each, = passed().listeners(Systemd(), Config())
each.stop_accepting()
each.close()
print("true")
"""
    with tcp() as sockets:
        assert tell(sockets, story) is True
        with socket.create_connection(sockets[0].getsockname()), sockets[0].accept()[0]:
            pass


@pytest.mark.parametrize("kind", ["datagram", "connected", "file"])
def test_what_does_not_listen_is_refused(kind: str, tmp_path: Path) -> None:
    story = """
try:
    passed().listeners(Systemd(), Config())
except ActivationError as error:
    print(json.dumps(str(error)))
"""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # is closed again
        if kind == "file":
            bad: Any = stack.enter_context((tmp_path / "file").open("w"))
        else:
            bad = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM))
        assert "descriptor 4" in tell([first, bad], story)


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid())}, {"LISTEN_PID": "x", "LISTEN_FDS": "x"}]
)
def test_what_is_not_meant_for_this_process_is_left_alone(environ: dict[str, str]) -> None:
    before = dict(environ)
    with pytest.raises(ActivationError, match="no socket; is this started by"):
        Activation(environ).listeners(Systemd(), Config())
    assert environ == before
