"""Listeners of slots: one port, options that connections inherit, and a port that is taken."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.peer import request
from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, listening_inodes, port_free_everywhere, until
from unlimitedws.activation import Activation
from unlimitedws.config import Config
from unlimitedws.errors import ListenError
from unlimitedws.listener import TCP_NOTSENT_LOWAT, Listener
from unlimitedws.supervisor.listeners import Before, Listeners, listen_for_admin, listen_for_slots
from unlimitedws.supervisor.notify import Notifier
from unlimitedws.supervisor.stored import Store


def accept_all(listener: socket.socket) -> list[str]:
    """The addresses of all clients in a listener's queue, which are closed."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, address = listener.accept()
            connection.close()
            found.append(str(address))
    return found


@contextlib.contextmanager
def dealt(slots: int = 2, **settings: Any) -> Iterator[Listeners]:
    listeners = listen_for_slots(Config(**{"port": 0, **settings}), slots)
    try:
        yield listeners
    finally:
        listeners.close()


@contextlib.contextmanager
def listening(slots: int = 2, **settings: Any) -> Iterator[list[socket.socket]]:
    """The sockets of one place, one for each slot."""
    with dealt(slots, **settings) as listeners:
        yield [listener.sock for (listener,) in listeners.of_slots]


def accept_one(listeners: Sequence[socket.socket]) -> socket.socket:
    while True:
        for listener in listeners:
            with contextlib.suppress(BlockingIOError):
                return listener.accept()[0]


def test_all_slots_listen_on_the_same_free_port() -> None:
    with listening(slots=4) as listeners:
        assert len({listener.getsockname() for listener in listeners}) == 1
        assert listeners[0].getsockname()[1] != 0
        assert not any(listener.getblocking() for listener in listeners)


def test_connections_inherit_the_options_of_their_listener() -> None:
    with (
        listening(slots=2, sndbuf_bytes=65536, notsent_lowat_bytes=16384) as listeners,
        socket.create_connection(listeners[0].getsockname()),
        accept_one(listeners) as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 65536  # socket(7): the kernel doubles it
        assert accepted.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 16384


def test_new_connections_are_spread_over_the_slots() -> None:
    with listening(slots=2) as listeners, contextlib.ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(socket.create_connection(listeners[0].getsockname()))
        queued = [len(accept_all(listener)) for listener in listeners]
    assert sum(queued) == 64
    assert min(queued) > 0


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ListenError, match=r"choose another --port"):
        listen_for_slots(Config(port=other.getsockname()[1]), 2)


def test_a_port_shared_by_another_server_of_this_user_is_refused() -> None:
    with listening() as first, pytest.raises(ListenError, match="Address already in use"):
        listen_for_slots(Config(port=first[0].getsockname()[1]), 2)


def test_an_address_of_nobody_names_the_flag() -> None:
    with pytest.raises(ListenError, match="check --host"):
        listen_for_slots(Config(host="192.0.2.1", port=0), 1)


def test_a_host_name_is_resolved() -> None:
    with listening(host="localhost") as listeners:
        assert listeners[0].getsockname()[0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize("host", ["::1", "*"])
def test_ipv6_is_listened_on(host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listening(host=host) as listeners:
        port = listeners[0].getsockname()[1]
        assert {listener.getsockname()[1] for listener in listeners} == {port}
        for address in ("::1", "127.0.0.1") if host == "*" else ("::1",):
            with socket.create_connection((address, port)):
                pass


def test_a_port_in_use_in_one_family_is_refused_for_both() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ListenError, match=r"listen on \* port"):
        listen_for_slots(Config(host="*", port=other.getsockname()[1]), 2)


# ---- several places


def test_each_slot_has_a_socket_of_its_own_for_each_port_and_shares_the_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with dealt(3, listen="127.0.0.1:0?proxy, unix:app.sock, 127.0.0.1:0", trusted_proxies="unix") as listeners:
        assert [len(mine) for mine in listeners.of_slots] == [3, 3, 3]
        descriptors = [[listener.sock.fileno() for listener in mine] for mine in listeners.of_slots]
        assert [len(set(column)) for column in zip(*descriptors, strict=True)] == [3, 1, 3]
        assert [listener.proxied for listener in listeners.of_slots[0]] == [True, False, False]
        one, unix, other = listeners.names
        assert str(listeners) == f"{one}, {unix}, {other}"
        assert unix == f"unix:{tmp_path}/app.sock"
        assert listeners.descriptors == {fd for row in descriptors for fd in row}
    assert not (tmp_path / "app.sock").exists()


def test_stop_accepting_ends_listening_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with dealt(2, listen="127.0.0.1:0, unix:app.sock") as listeners:
        listeners.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listeners.all[0].sock.getsockname())
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect("app.sock")


def test_a_place_that_fails_leaves_nothing_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An unclosed socket would be a ResourceWarning, which is an error in these tests.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ListenError, match="check --host"):
        listen_for_slots(Config(listen="unix:app.sock, 127.0.0.1:0, 192.0.2.1:0"), 2)
    assert not (tmp_path / "app.sock").exists()


@pytest.mark.parametrize(
    ("slots", "made", "shares"),
    [
        (3, 1, [[0], [0], [0]]),
        (3, 3, [[0], [1], [2]]),
        (2, 3, [[0, 2], [1]]),
        (3, 2, [[0], [1], [0]]),
        (1, 2, [[0, 1]]),
    ],
)
def test_sockets_are_dealt_out_so_that_each_is_served_and_each_slot_has_one(slots: int, made: int, shares: list[list[int]]) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(made)]
        listeners = Listeners(Config(), slots, Store(Activation({}), Notifier(), 0))
        listeners.deal([Listener(sock, proxied=False, tls=False) for sock in sockets])
        assert [[sockets.index(listener.sock) for listener in mine] for mine in listeners.of_slots] == shares


# ---- slots that come and go


def joined(listeners: Listeners) -> int:
    """Adds a slot, as a worker in it would be served; its number."""
    bound = listeners.bind()
    listeners.new_slot()
    number = len(listeners.of_slots) - 1
    listeners.open(number, bound)
    return number


def dial(listeners: Listeners, clients: int = 60) -> list[int]:
    """How many new clients each slot gets."""
    found = [0] * len(listeners.of_slots)
    for _ in range(clients):
        with socket.create_connection(listeners.all[0].sock.getsockname()[:2], timeout=30):
            while not (got := [number for number, mine in enumerate(listeners.of_slots) if any(accept_all(each.sock) for each in mine)]):
                pass  # the queue is seen a moment after the handshake
            found[got[0]] += 1
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "*"])
def test_a_new_slot_has_a_socket_of_its_own_at_the_same_address(host: str) -> None:
    with dealt(1, host=host) as listeners:
        assert joined(listeners) == 1
        assert len(listeners.names) == 1
        assert [slot for _, slot in listeners.groups[0].members] == [0, 1]
        assert min(dial(listeners)) > 0


def test_what_is_bound_only_gets_no_client() -> None:
    with dealt(1) as listeners:
        bound = listeners.bind()
        assert dial(listeners, 30) == [30]
        for sock in bound:
            sock.close()


def test_a_listener_that_is_the_last_of_its_group_can_end_and_the_others_go_on() -> None:
    with dealt(1) as listeners:
        for _ in range(2):
            joined(listeners)
        first, second, third = (mine[0] for mine in listeners.of_slots)
        assert [listeners.can_end(each) for each in (first, second, third)] == [False, False, True]
        listeners.pass_on(third, 0)
        assert listeners.of_slots[0] == [first, third]
        listeners.groups[0].weigh([1, 1, 0])
        assert dial(listeners)[2] == 0
        listeners.end(third, 0)
        del listeners.of_slots[2]
        assert (listeners.of_slots, listeners.all) == ([[first], [second]], [first, second])
        assert third.sock.fileno() < 0
        listeners.groups[0].weigh([1, 1])
        assert min(dial(listeners)) > 0


def test_a_new_slot_shares_what_only_others_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with dealt(1, listen="unix:a.sock, unix:b.sock") as listeners:
        assert joined(listeners) == 1
        assert listeners.of_slots[1] == listeners.of_slots[0]
        assert not any(listeners.can_end(each) for each in listeners.all)


# ---- after an upgrade


def left(listeners: Listeners) -> Before:
    """What another program is told of listeners, with descriptors of its own for them."""
    packed = json.loads(json.dumps(listeners.pack(None, None)))
    for each in (*packed["tcp"], *packed["files"]):
        each["fd"] = os.dup(each["fd"])
    return Before(packed)


def inodes(listeners: Listeners) -> list[list[int]]:
    return [[os.fstat(listener.sock.fileno()).st_ino for listener in mine] for mine in listeners.of_slots]


def test_each_slot_has_the_same_listeners_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with dealt(3, listen="127.0.0.1:0, unix:app.sock, *:0") as before:
        before.groups[0].leave(before.groups[0].members[0][0])  # as the kernel counts when one leaves: the last takes its place
        before.groups[0].join(before.all[0].sock, 0)
        order = [[sock.getsockname()[1] for sock, _ in group.members] for group in before.groups]
        config = Config(listen="127.0.0.1:0, unix:app.sock, *:0")
        after = listen_for_slots(config, 3, before=left(before))
        assert inodes(after) == inodes(before)
        assert [[slot for _, slot in group.members] for group in after.groups] == [[2, 1, 0], [0, 1, 2]]
        assert [[sock.getsockname()[1] for sock, _ in group.members] for group in after.groups] == order
        after.close()
    assert not (tmp_path / "app.sock").exists()


def test_what_is_not_wanted_any_more_ends_and_what_is_new_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with dealt(2, listen="127.0.0.1:0, unix:one.sock") as before:
        after = listen_for_slots(Config(listen="unix:two.sock, [::1]:0"), 2, before=left(before))
        assert [str(listener) for listener in after.of_slots[0]] == [f"unix:{tmp_path}/two.sock", str(after.all[-1])]
        assert not (tmp_path / "one.sock").exists()
        assert not {inode for mine in inodes(after) for inode in mine} & {inode for mine in inodes(before) for inode in mine}
        after.close()


def test_the_check_of_places_touches_nothing_and_names_what_cannot_be() -> None:
    port = port_free_everywhere()
    with dealt(2, port=port) as before, socket.create_server(("127.0.0.1", 0)) as other:
        found, taken = left(before), other.getsockname()[1]
        for listen in (f"127.0.0.1:{port}", f"*:{port}", "unix:app.sock"):
            found.check(Config(listen=listen, admin_port=0))
        for listen, why in ((f"127.0.0.1:{taken}", "in use"), ("systemd", "restart the service"), ("unix:/nowhere/app.sock", "folder")):
            with pytest.raises(ListenError, match=why):
                found.check(Config(listen=listen, admin_port=0))
        with pytest.raises(ListenError, match="--admin-port"):
            found.check(Config(port=port, admin_port=taken))
        for kept in found.tcp:
            os.close(kept.fd)


# ---- the admin endpoint


def test_the_admin_endpoint_can_be_switched_off() -> None:
    assert listen_for_admin(Config(admin_port=-1)) is None


def test_an_admin_port_in_use_names_the_admin_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ListenError, match="--admin-port"):
        listen_for_admin(Config(admin_port=other.getsockname()[1]))


def test_an_admin_host_that_cannot_be_listened_on_names_the_admin_flag() -> None:
    with pytest.raises(ListenError, match="--admin-host"):
        listen_for_admin(Config(admin_host="192.0.2.1", admin_port=0))


# ---- of a whole server


TELLS_ADDRESS = ECHO.replace("conn.send(message)", "conn.send(str(conn.remote_address))")


def said_to(client: ClientConnection) -> str:
    """What a server says to one message of a client, which is closed."""
    with client:
        client.send("hello")
        return str(client.recv(timeout=30))


def tcp_client(place: str) -> ClientConnection:
    return connect(f"ws://{place}/", open_timeout=30, close_timeout=5)


def unix_client(path: Path | str) -> ClientConnection:
    return unix_connect(str(path), "ws://localhost/", open_timeout=30, close_timeout=5)


def test_a_server_listens_in_several_places(run: Run, engine_name: str) -> None:
    server = run(source=TELLS_ADDRESS, listen="127.0.0.1:0, unix:app.sock?mode=600, 127.0.0.1:0", workers=2, engine=engine_name).ready()
    one, unix, other = server.places
    path = server.folder / "app.sock"
    assert unix == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert server.stats["listening"] == server.places
    for _ in range(4):  # of both workers
        assert said_to(tcp_client(one)).startswith("('127.0.0.1', ")
        assert said_to(tcp_client(other)).startswith("('127.0.0.1', ")
        assert said_to(unix_client(path)) == "unix"
    server.stop()
    assert not path.exists()


def test_clients_of_a_unix_socket_are_served_by_whoever_is_alive(run: Run) -> None:
    server = run(listen="unix:app.sock", workers=2).ready()
    path = server.folder / "app.sock"
    victim, neighbour = server.workers()
    os.kill(victim, signal.SIGKILL)
    assert said_to(unix_client(path)) == "hello"
    os.kill(neighbour, signal.SIGKILL)
    assert said_to(unix_client(path)) == "hello"  # waits in the kernel for a successor
    server.successors(victim, neighbour, workers=2)


def test_a_reload_refuses_no_client_of_a_unix_socket(run: Run) -> None:
    server = run(listen="unix:app.sock", workers=2).ready()
    path = server.folder / "app.sock"
    inode = path.stat().st_ino
    server.signal(signal.SIGHUP)
    until(lambda: said_to(unix_client(path)) == "hello" and server.stats["reloads"] == 1)
    assert path.stat().st_ino == inode


def test_a_unix_socket_of_a_living_server_is_refused_and_of_a_killed_one_replaced(run: Run, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/app.sock"
    first = run(listen=listen).ready()
    second = run(listen=listen)
    assert second.ends() == 1
    second.says("cannot listen on unix:.*another server answers there")
    assert said_to(unix_client(tmp_path / "app.sock")) == "hello"
    first.destroy()
    third = run(listen=listen).ready()
    assert said_to(unix_client(tmp_path / "app.sock")) == "hello"
    third.stop()


# ---- passed by systemd


@contextlib.contextmanager
def passed(number: int = 1, **options: Any) -> Iterator[list[socket.socket]]:
    """Listening sockets on one address, as a .socket unit has them."""
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", 0)
        sockets = []
        for _ in range(number):
            sockets.append(stack.enter_context(socket.create_server(address, **options)))
            address = sockets[0].getsockname()
        yield sockets


def test_one_socket_of_systemd_is_shared_by_all_workers(run: Run, engine_name: str) -> None:
    with passed() as sockets:
        server = run(listen="systemd", workers=2, sockets=sockets, engine=engine_name).ready()
        name = f"127.0.0.1:{sockets[0].getsockname()[1]}"
        assert server.places == [name]
        assert [len(listening_inodes(pid)) for pid in server.workers()] == [1, 1]
        assert listening_inodes(server.template()) == set()
        assert said_to(tcp_client(name)) == "hello"
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        assert said_to(tcp_client(name)) == "hello"


def test_clients_that_come_between_two_starts_wait_for_the_second(run: Run) -> None:
    with passed() as sockets, contextlib.ExitStack() as stack:
        run(listen="systemd", sockets=sockets).ready().stop()
        client = stack.enter_context(socket.create_connection(sockets[0].getsockname(), timeout=30))
        client.sendall(request())
        run(listen="systemd", sockets=sockets).ready()
        assert client.recv(4096).startswith(b"HTTP/1.1 101")


def test_with_as_many_sockets_as_workers_each_has_its_own(run: Run) -> None:
    with passed(3, reuse_port=True) as sockets:
        server = run(listen="systemd", workers=3, sockets=sockets).ready()
        held = [listening_inodes(pid) for pid in server.workers()]
        assert [len(inodes) for inodes in held] == [1, 1, 1]
        assert len(set.union(*held)) == 3
        for _ in range(6):
            assert said_to(tcp_client(server.places[0])) == "hello"


def test_systemd_may_pass_sockets_beside_a_place_of_our_own(run: Run) -> None:
    with passed() as sockets:
        server = run(listen="systemd, unix:app.sock", workers=2, sockets=sockets).ready()
        assert said_to(tcp_client(server.places[0])) == "hello"
        assert said_to(unix_client(server.folder / "app.sock")) == "hello"


def test_without_a_socket_from_systemd_the_start_says_what_to_look_at(run: Run) -> None:
    server = run(listen="systemd")
    assert server.ends() == 1
    server.says(r"cannot listen on what systemd passed: no socket; is this started by a .service with a .socket unit")
