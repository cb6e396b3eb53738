"""Who gets new connections: the kernel's own answer, on real listeners."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator, Sequence

import pytest

from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, Running, until
from unlimitedws.config import Config
from unlimitedws.supervisor import steering as module
from unlimitedws.supervisor.listeners import listen_for_slots
from unlimitedws.supervisor.steering import SPAN, Group, Steering, attach, choice, turn_away

CLIENTS = 400
CHANCE = 1e-9
"""How often a bound below may be missed though all is well."""


def bounds(chance: float, tries: int = CLIENTS) -> tuple[float, float]:
    """How many of so many tries succeed, but for `CHANCE`: Hoeffding's inequality, both sides together."""
    slack = math.sqrt(tries * math.log(2 / CHANCE) / 2)
    return tries * chance - slack, tries * chance + slack


@contextlib.contextmanager
def group(size: int, host: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Listeners of one group, in its order."""
    listeners = listen_for_slots(Config(host=host, port=0), size)
    try:
        yield [listener.sock for listener in listeners.all]
    finally:
        listeners.close()


def share(listeners: Sequence[socket.socket], clients: int = CLIENTS) -> list[int]:
    """How many of so many new connections each listener gets."""
    found = [0] * len(listeners)
    for _ in range(clients):
        with socket.create_connection(listeners[0].getsockname()[:2], timeout=30):
            while not (got := [i for i, listener in enumerate(listeners) if accepts(listener)]):
                pass  # the handshake of loopback is done; the queue is seen a moment later
            found[got[0]] += 1
    return found


def accepts(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except (BlockingIOError, OSError):
        return False
    return True


def run_program(program: Sequence[tuple[int, int, int, int]], drawn: int) -> int:
    """What a program of `choice` answers when this number is drawn."""
    at = 0
    while True:
        opcode, if_true, if_false, operand = program[at]
        if opcode == module.RET:
            return operand
        at += 1
        if opcode == module.JMP_JGE:
            at += if_true if drawn >= operand else if_false


# ---- the program


@pytest.mark.parametrize("weights", [[1, 1], [0, 1], [1, 0], [0, 0, 5], [1, 2, 3, 4], [7, 0, 0, 1, 0], [1] * 300])
def test_each_index_gets_its_part_of_all_numbers_that_can_be_drawn(weights: list[int]) -> None:
    program = choice(weights)
    total = sum(weights)
    edges = [SPAN * sum(weights[:i]) // total for i in range(len(weights) + 1)]
    for index, weight in enumerate(weights):
        if weight:
            assert run_program(program, edges[index]) == index
            assert run_program(program, edges[index + 1] - 1) == index
    reached = {operand for opcode, _, _, operand in program if opcode == module.RET}
    assert reached == {index for index, weight in enumerate(weights) if weight}


# ---- the kernel


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_new_connections_follow_the_weights(host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with group(4, host) as listeners:
        attach(listeners[0], [1, 0, 2, 5])
        shares = share(listeners)
    assert shares[1] == 0
    for got, weight in zip(shares, [1, 0, 2, 5], strict=True):
        low, high = bounds(weight / 8)
        assert low <= got <= high, shares


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_equal_weights_give_everybody_something_again() -> None:
    with group(2) as listeners:
        attach(listeners[1], [0, 1])
        assert share(listeners, 50) == [0, 50]
        attach(listeners[0], [1, 1])
        assert min(share(listeners)) > 0  # the kernel's hash of 400 ports
        attach(listeners[0], [1, 1])  # nothing is attached: nothing to take away


def test_a_kernel_that_cannot_take_a_program_away_gets_an_even_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SO_DETACH_REUSEPORT_BPF", 4000)  # no such option, as before Linux 5.3
    with group(2) as listeners:
        attach(listeners[0], [0, 1])
        attach(listeners[0], [1, 1])
        low, high = bounds(1 / 2)
        assert all(low <= got <= high for got in share(listeners))


def test_the_program_is_the_groups_and_not_the_sockets() -> None:
    with group(3) as listeners:
        for listener in listeners:
            attach(listener, [0, 1, 0])
            assert share(listeners, 20) == [0, 20, 0]
            attach(listener, [0, 0, 1])
            assert share(listeners, 20) == [0, 0, 20]


def test_where_one_leaves_the_last_one_takes_its_index() -> None:
    with group(4) as listeners:
        members = Group((sock, slot) for slot, sock in enumerate(listeners))
        members.weigh([0, 0, 0, 1])
        assert share(listeners, 20) == [0, 0, 0, 20]
        listeners[1].shutdown(socket.SHUT_RDWR)
        members.leave(listeners[1])
        assert [slot for _, slot in members.members] == [0, 3, 2]
        for only in (0, 2, 3):
            members.weigh([int(slot == only) for slot in range(4)])
            assert share(listeners, 20)[only] == 20


def test_one_that_comes_is_the_last() -> None:
    with group(2) as listeners, contextlib.ExitStack() as stack:
        members = Group((sock, slot) for slot, sock in enumerate(listeners))
        late = stack.enter_context(socket.socket())
        late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        late.bind(listeners[0].getsockname())
        late.setblocking(False)
        late.listen()
        members.join(late, 2)
        members.weigh([0, 0, 1])
        assert share([*listeners, late], 20) == [0, 0, 20]


def test_a_slot_with_two_of_the_sockets_gets_no_more_than_the_others() -> None:
    with group(3) as listeners:
        members = Group(zip(listeners, [0, 1, 0], strict=True))
        members.weigh([1, 1])
        shares = share(listeners)
    assert shares[2] == 0
    low, high = bounds(1 / 2)
    assert all(low <= got <= high for got in shares[:2])


def test_nothing_is_attached_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    attached: list[Sequence[int]] = []
    monkeypatch.setattr(module, "attach", lambda sock, weights: attached.append(list(weights)))
    with group(2) as listeners:
        steering = Steering([Group((sock, slot) for slot, sock in enumerate(listeners))])
        for served in ([False, False], [True, False], [True, False], [True, True]):
            steering.steer(served)
    assert attached == [[0, 0], [1, 0], [1, 1]]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOPROTOOPT, errno.ENOMEM])
def test_a_kernel_that_refuses_is_asked_once_and_one_line_says_so(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[object] = []

    def refuse(sock: socket.socket, weights: Sequence[int]) -> None:
        asked.append(sock)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "attach", refuse)
    with group(2) as listeners, caplog.at_level(logging.WARNING):
        steering = Steering([Group((sock, slot) for slot, sock in enumerate(listeners))])
        steering.steer([True, False])
        steering.steer([True, True])
    assert len(asked) == 1
    (line,) = caplog.messages
    assert os.strerror(number) in line


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_begins_to_connect_is_turned_away_and_who_has_begun_gets_through(host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with group(1, host) as (listener,), socket.socket(listener.family) as late:
        early = [socket.create_connection(listener.getsockname()[:2], timeout=30) for _ in range(5)]
        turn_away(listener)
        late.setblocking(False)
        assert late.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        for client in early:
            accepted, _ = listener.accept()
            with client, accepted:
                client.sendall(b"hello")
                accepted.setblocking(True)
                accepted.settimeout(10)
                assert accepted.recv(10) == b"hello"
        with pytest.raises(BlockingIOError):
            listener.accept()


# ---- of a whole server

SLOW_START = ECHO + (
    "import os, time\n@handlers.on_start\ndef wait(worker):\n    while os.path.exists('wait'):\n        time.sleep(0.02)\n"
)


def served_at_once(server: Running, clients: int = 60) -> None:
    """Each of so many new clients gets its echo from a worker that runs."""
    for _ in range(clients):
        assert server.echoes()


def test_new_clients_are_served_by_the_others_while_a_slot_waits_for_its_worker(run: Run, engine_name: str) -> None:
    server = run(source=SLOW_START, workers=2, engine=engine_name).ready()
    (server.folder / "wait").touch()
    victim, neighbour = server.workers()
    os.kill(victim, signal.SIGKILL)
    server.says(rf"worker {victim} of slot 0 was killed")
    served_at_once(server)  # without steering about half of them would wait for the successor, and time out
    assert server.workers() == [neighbour]
    (server.folder / "wait").unlink()
    server.successors(victim, workers=2)
    before = opened(server)
    until(lambda: server.echoes() and opened(server)[0] > before[0])


def opened(server: Running) -> list[int]:
    """Connections that each slot has had."""
    return [slot["connections_opened"] for slot in server.stats["slots"]]


def test_the_first_worker_that_is_ready_gets_all_clients_until_the_next_one_is(run: Run) -> None:
    source = ECHO + (
        "import os, time\n@handlers.on_start\ndef wait(worker):\n"
        "    try:\n        os.close(os.open('first', os.O_CREAT | os.O_EXCL))\n"
        "    except FileExistsError:\n        while not os.path.exists('go'):\n            time.sleep(0.02)\n"
    )
    server = run(source=source, workers=2, files={"go": ""}).ready()
    (server.folder / "go").unlink()
    (server.folder / "first").unlink()
    victims = server.workers()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    server.successors(*victims, workers=1)
    served_at_once(server, 30)
    assert len(server.workers()) == 1
    (server.folder / "go").touch()
    until(lambda: len(server.workers()) == 2)


def test_a_worker_that_drains_gets_no_new_clients_while_its_successor_starts(run: Run) -> None:
    server = run(source=SLOW_START, workers=2).ready()
    (server.folder / "wait").touch()
    quitter = server.workers()[0]
    os.kill(quitter, signal.SIGTERM)
    server.says(rf"worker {quitter} of slot 0 was told to stop, not by us")
    served_at_once(server)
    (server.folder / "wait").unlink()
    server.successors(quitter, workers=2)


def test_clients_in_the_queue_of_a_slot_that_is_steered_around_still_wait_for_its_worker(run: Run) -> None:
    from tests.peer import request

    server = run(source=SLOW_START, workers=2).ready()
    for pid in server.workers():
        os.kill(pid, signal.SIGSTOP)  # nobody accepts; the kernel's hash fills both queues
    (server.folder / "wait").touch()
    victim, neighbour = server_pids(server)
    queued = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(40)]
    for client in queued:
        client.sendall(request())
    os.kill(victim, signal.SIGKILL)
    os.kill(neighbour, signal.SIGCONT)
    server.says(rf"worker {victim} of slot 0 was killed")
    (server.folder / "wait").unlink()
    for client in queued:
        with client:
            assert client.recv(4096).startswith(b"HTTP/1.1 101")


def server_pids(server: Running) -> list[int]:
    return [worker["pid"] for worker in server.stats["workers"]]
