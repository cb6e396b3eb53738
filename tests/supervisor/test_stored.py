"""Listeners that a service manager keeps from one start to the next."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peer import request
from tests.supervisor.conftest import Run
from tests.supervisor.manager import Manager, managing
from tests.supervisor.running import Running, until
from unlimitedws.activation import Activation
from unlimitedws.config import Config
from unlimitedws.listener import Bindable, resolve
from unlimitedws.supervisor.listeners import Listeners, listen_for_slots
from unlimitedws.supervisor.notify import Notifier
from unlimitedws.supervisor.stored import Kept, Store


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with managing(str(tmp_path / "notify")) as there:
        yield there


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port that nobody gets by chance meanwhile: bound, and not listened on."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def a_port() -> int:
    with free_port() as port:
        return port


def start(run: Run, manager: Manager, port: int, *, room: int = 16, **settings: object) -> Running:
    """A server under this manager, with what was kept of those before."""
    manager.has_heard()
    kept = sorted(manager.kept.items())
    sockets = [socket.socket(fileno=os.dup(fd)) for _, fd in kept]
    names = ":".join(name for name, _ in kept)
    try:
        return run(port=port, sockets=sockets, names=names, environ={"NOTIFY_SOCKET": manager.address, "FDSTORE": str(room)}, **settings)
    finally:
        for sock in sockets:
            sock.close()


def test_each_listener_is_kept_under_a_name_of_its_own(run: Run, manager: Manager) -> None:
    port = a_port()
    server = start(run, manager, port, workers=3).ready()
    manager.hears("READY=1")
    assert sorted(manager.kept) == ["unlimitedws-0", "unlimitedws-1", "unlimitedws-2"]
    assert server.echoes()


def test_clients_that_come_between_two_starts_are_served_by_the_second(run: Run, manager: Manager, engine_name: str) -> None:
    port = a_port()
    start(run, manager, port, workers=2, engine=engine_name).ready().stop()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(40)]
        for client in waiting:
            client.sendall(request())
        start(run, manager, port, workers=2, engine=engine_name).ready()
        for client in waiting:
            assert client.recv(4096).startswith(b"HTTP/1.1 101")


def test_clients_in_the_queues_of_a_supervisor_that_was_killed_are_served_too(run: Run, manager: Manager) -> None:
    port = a_port()
    first = start(run, manager, port, workers=2).ready()
    manager.hears("READY=1")
    first.destroy()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request())
        start(run, manager, port, workers=2).ready()
        assert client.recv(4096).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_a_restart_with_another_number_of_workers_loses_nobody(run: Run, manager: Manager, before: int, after: int) -> None:
    port = a_port()
    start(run, manager, port, workers=before).ready().stop()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(30)]
        for client in waiting:
            client.sendall(request())
        server = start(run, manager, port, workers=after).ready()
        for client in waiting:
            assert client.recv(4096).startswith(b"HTTP/1.1 101")
        if after == 3:
            until(lambda: server.echoes() and all(slot["connections_opened"] for slot in server.stats["slots"]))
        assert all(server.echoes() for _ in range(10))
        manager.hears("READY=1")
    assert len(manager.kept) == max(before, after)


def test_what_nobody_listens_on_any_more_is_given_up(run: Run, manager: Manager) -> None:
    port, other = a_port(), a_port()
    start(run, manager, port).ready().stop()
    server = start(run, manager, other).ready()
    manager.hears("FDSTOREREMOVE=1\nFDNAME=unlimitedws-0$")
    os.close(manager.kept.pop("unlimitedws-0"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
    assert server.port == other


def test_kept_listeners_are_not_taken_for_sockets_of_a_unit(run: Run, manager: Manager) -> None:
    port = a_port()
    start(run, manager, port).ready().stop()
    server = start(run, manager, port, listen=f"systemd, 127.0.0.1:{port}")
    assert server.ends() == 1
    server.says("cannot listen on what systemd passed: no socket;")


def test_without_a_store_a_stop_refuses_clients_at_once(run: Run, manager: Manager) -> None:
    port = a_port()
    server = start(run, manager, port, room=0).ready()
    server.stop()
    assert not [said for said in manager.has_heard() if said.startswith("FDSTORE")]


def test_a_store_that_is_too_small_keeps_none_of_an_address_and_says_so(run: Run, manager: Manager) -> None:
    server = start(run, manager, a_port(), room=2, workers=3).ready()
    server.says("systemd keeps 2 descriptors at most: those of 127.0.0.1:.* are not kept; raise FileDescriptorStoreMax")
    assert not manager.kept


def test_a_port_that_the_kernel_chose_is_not_kept(run: Run, manager: Manager) -> None:
    start(run, manager, 0).ready()
    manager.hears("READY=1")
    assert not manager.kept


def test_a_second_signal_and_a_stop_leave_the_listeners_open(run: Run, manager: Manager) -> None:
    port = a_port()
    server = start(run, manager, port).ready()
    manager.hears("READY=1")
    server.signal(signal.SIGTERM)
    assert server.ends() == 0
    socket.create_connection(("127.0.0.1", port), timeout=30).close()


# ---- the store itself


def passed(**fds: int) -> Activation:
    activation = Activation({})
    activation.pass_again({fd: name.replace("_", "-") for name, fd in fds.items()})
    return activation


def test_names_are_taken_in_the_order_of_their_numbers() -> None:
    with contextlib.ExitStack() as stack:
        listeners = listen_for_slots(Config(port=0), 12)
        stack.callback(listeners.close)
        fds = {f"unlimitedws_{i}": os.dup(listener.sock.fileno()) for i, listener in enumerate(listeners.all)}
        store = Store(passed(**dict(reversed(fds.items()))), Notifier(), room=16)
        stack.callback(store.close)
        taken = store.take(resolve(*listeners.all[0].sock.getsockname()), Config())
        inodes = [os.fstat(sock.fileno()).st_ino for sock, _ in taken]
        for sock, _ in taken:
            sock.close()
        assert inodes == [os.fstat(listener.sock.fileno()).st_ino for listener in listeners.all]
        assert store.next_number == 12


def test_what_is_no_listener_is_forgotten(manager: Manager) -> None:
    with socket.socket() as deaf:
        store = Store(passed(unlimitedws_0=os.dup(deaf.fileno())), Notifier(manager.address), room=16)
    assert not store.found
    assert manager.hear() == "FDSTOREREMOVE=1\nFDNAME=unlimitedws-0"


def test_a_socket_that_no_second_one_could_join_is_forgotten(manager: Manager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:  # without SO_REUSEPORT
        store = Store(passed(unlimitedws_0=os.dup(plain.fileno())), Notifier(manager.address), room=16)
    assert not store.found
    assert manager.hear() == "FDSTOREREMOVE=1\nFDNAME=unlimitedws-0"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "*"])
def test_a_listener_is_at_its_own_address_alone(host: str) -> None:
    with contextlib.ExitStack() as stack:
        listeners: Listeners = listen_for_slots(Config(host=host, port=0), 1)
        stack.callback(listeners.close)
        ours = listeners.all[0].sock
        kept = Kept(ours.fileno(), Bindable.of(ours))
        port = ours.getsockname()[1]
        assert kept.is_at(resolve(host, port))
        assert not any(kept.is_at(resolve(other, port)) for other in ("127.0.0.1", "::1", "::", "*") if other != host)
        assert not kept.is_at(resolve(host, 0))
        assert dataclasses.replace(kept, any_port=True).is_at(resolve(host, 0))
