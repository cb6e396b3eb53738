"""Unix sockets: who may connect, whose file it is, and what an earlier server left behind."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.errors import SocketFileError
from unlimitedws.place import Unix, place
from unlimitedws.socketfile import UnixListener, listen_unix


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # pytest's folders may be longer than a socket's path may be
    return "app.sock"


def listening(path: str, config: Config | None = None, **options: Any) -> contextlib.closing[UnixListener]:
    return contextlib.closing(listen_unix(Unix(path, **options), config or Config()))


def connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def test_clients_connect_and_it_never_blocks(path: str) -> None:
    with listening(path) as listener:
        with pytest.raises(BlockingIOError):
            listener.sock.accept()
        with connect(path), listener.sock.accept()[0]:
            assert str(listener) == f"unix:{os.path.abspath(path)}"


def test_what_is_spoken_is_passed_on(path: str) -> None:
    with listening(path) as listener:
        assert (listener.listening().proxied, listener.listening().tls, listener.is_tcp) == (False, False, False)
    with listening(path, proxied=True, tls=True) as listener:
        assert listener.listening() == (listener.sock.fileno(), True, True)


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_the_mode_is_the_one_that_was_asked_for_whatever_the_umask(path: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        for options, mode in (({}, 0o660), ({"mode": 0o606}, 0o606)):
            with listening(path, **options):
                assert stat.S_IMODE(os.stat(path).st_mode) == mode
    finally:
        os.umask(before)


def test_nobody_can_connect_before_owner_and_mode_are_right(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def chmod(file: str, mode: int) -> None:
        with pytest.raises(ConnectionRefusedError):
            connect(file)
        refused.append(mode)

    monkeypatch.setattr(os, "chmod", chmod)
    with listening(path), connect(path):
        assert refused == [0o660]


def test_the_owner_is_given_by_name_or_number(path: str) -> None:
    me, group = os.getuid(), os.getgid()
    names = f"{pwd.getpwuid(me).pw_name}:{grp.getgrgid(group).gr_name}"
    for owner in (names, f"{me}:{group}", str(me), ""):
        with listening(path, owner=owner):
            assert (os.stat(path).st_uid, os.stat(path).st_gid) == (me, group)


@pytest.mark.parametrize("owner", ["no-such-user", "root:no-such-group"])
def test_an_owner_that_is_nobody_is_refused(path: str, owner: str) -> None:
    with pytest.raises(SocketFileError, match=rf"owner={owner}.*no-such"):
        listen_unix(Unix(path, owner=owner), Config())
    assert not os.path.exists(path)


def test_an_owner_that_this_user_may_not_give_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    with pytest.raises(SocketFileError, match="may not give it to owner=root"):
        listen_unix(Unix(path, owner="root"), Config())
    assert not os.path.exists(path)


def test_a_path_may_have_bytes_that_are_no_text() -> None:
    assert place("unix:\udcff.sock") == Unix("\udcff.sock")
    with pytest.raises(ValueError, match="at most 107 bytes"):
        place("unix:" + "\udcff" * 108)


def test_the_file_is_removed_at_the_end(path: str) -> None:
    with listening(path):
        assert os.path.exists(path)
    assert not os.path.exists(path)


def test_the_file_is_removed_though_the_app_went_to_another_folder(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.path.abspath(path)
    with listening(path):
        monkeypatch.chdir("/")
    assert not os.path.exists(full)


def test_a_file_that_is_gone_already_is_no_trouble(path: str) -> None:
    with listening(path):
        os.unlink(path)


def test_a_file_left_behind_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    with listening(path), connect(path):
        pass


@pytest.mark.parametrize("backlog", [0, 10])
def test_a_server_that_answers_is_left_alone(path: str, backlog: int) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(backlog)
        queued = [connect(path)] if backlog == 0 else []  # its queue is full now
        with pytest.raises(SocketFileError, match="another server answers there; stop it"):
            listen_unix(Unix(path), Config())
        for client in queued:
            client.close()
        with connect(path) if backlog else contextlib.nullcontext():
            assert os.path.exists(path)


def test_another_servers_file_is_not_removed(path: str) -> None:
    old = listen_unix(Unix(path), Config())
    old.stop_accepting()
    with listening(path):
        old.close()
        connect(path).close()


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(SocketFileError, match="which is no socket"):
        listen_unix(Unix(path), Config())
    assert Path(path).read_text() == "precious"


def test_a_symbolic_link_is_left_alone(path: str) -> None:
    os.symlink("elsewhere", path)
    with pytest.raises(SocketFileError, match="which is no socket"):
        listen_unix(Unix(path), Config())
    assert os.readlink(path) == "elsewhere"


def test_a_folder_that_does_not_exist_is_named() -> None:
    with pytest.raises(SocketFileError, match=r"unix:/nonexistent/app.sock: .*its folder does not exist"):
        listen_unix(Unix("/nonexistent/app.sock"), Config())


def test_after_stop_accepting_clients_are_refused_though_a_duplicate_is_open(path: str) -> None:
    with listening(path) as listener, listener.sock.dup():
        listener.stop_accepting()
        listener.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            connect(path)
