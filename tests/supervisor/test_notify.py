"""What reaches a service manager: a real datagram socket in its place."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.conftest import Run
from tests.supervisor.manager import Manager, managing
from tests.supervisor.running import until
from unlimitedws.supervisor.notify import Notifier, watchdog_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    with managing(str(tmp_path / "notify") if request.param == "path" else f"@unlimitedws-test-{uuid.uuid4().hex}") as there:
        yield there


def test_states_are_told_in_the_words_of_sd_notify(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    notifier.ready()
    notifier.stopping()
    assert [manager.hear(), manager.hear()] == ["READY=1", "STOPPING=1"]


def test_a_reload_says_when_it_began(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    Notifier(manager.address).reloading()
    said = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", manager.hear())
    assert said
    assert before <= int(said[1]) <= time.monotonic_ns() // 1000


def test_a_status_is_one_line_and_told_when_it_changes(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    for text in ("serving", "serving", "two\nlines", "serving"):
        notifier.status(text)
    assert manager.has_heard() == ["STATUS=serving", "STATUS=two lines", "STATUS=serving"]


def test_a_descriptor_is_passed_with_its_name(manager: Manager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Notifier(manager.address).store("mine-0", listener.fileno())
        assert manager.hear() == "FDSTORE=1\nFDNAME=mine-0"
        assert os.path.sameopenfile(manager.kept["mine-0"], listener.fileno())
        Notifier(manager.address).forget("mine-0")
        assert manager.hear() == "FDSTOREREMOVE=1\nFDNAME=mine-0"


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object) -> None:
        raise AssertionError("a socket is opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    notifier = Notifier.of({})
    assert not notifier.is_there
    notifier.ready()
    notifier.status("unheard")
    notifier.store("mine", 0)


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-listens-there", "vsock:2:1234", "/" + "x" * 200])
def test_a_manager_that_cannot_be_reached_is_one_line_in_the_log(address: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(address)
    with caplog.at_level(logging.WARNING):
        notifier.ready()
        notifier.status("unheard")
    (line,) = caplog.messages
    assert address in line


def test_a_manager_that_comes_back_is_told_again(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notifier = Notifier(address)
    notifier.status("unheard")
    with managing(address) as manager:
        notifier.status("heard")
        assert manager.hear() == "STATUS=heard"
    assert not notifier.failed


def test_a_manager_that_takes_nothing_stops_nobody_for_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with managing(str(tmp_path / "notify")) as manager:
        notifier = Notifier(manager.address)
        for number in range(5000):  # more than any queue of datagrams holds
            notifier.status(f"line {number}")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "3000000"}, 3),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "0"}, 0),
    ],
)
def test_the_watchdog_is_fed_where_it_waits_for_this_process(environ: dict[str, str], every_s: float) -> None:
    assert watchdog_s(environ) == every_s


def test_the_watchdog_is_fed_twice_in_its_time(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Notifier(manager.address, watchdog_s=10).go_on_living())
    assert pauses == [5, 5, 5]
    assert manager.has_heard() == ["WATCHDOG=1"] * 3


# ---- of a whole server


def test_a_server_tells_of_its_life(run: Run, manager: Manager) -> None:
    server = run(workers=2, environ={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"})
    manager.hears("^READY=1$")
    manager.hears("^WATCHDOG=1$")
    with server.connect():
        manager.hears("^STATUS=serving 1 connection with 2 workers$")
        server.signal(signal.SIGHUP)
        manager.hears("^RELOADING=1\n")
        manager.hears("^READY=1$")
        server.says("reloaded app:handlers")
    server.signal(signal.SIGTERM)
    manager.hears("^STOPPING=1$")
    assert server.ends() == 0


def test_a_reload_that_fails_is_over_too(run: Run, manager: Manager) -> None:
    server = run(environ={"NOTIFY_SOCKET": manager.address})
    server.expected = "Traceback (most recent call last)"
    manager.hears("^READY=1$")
    (server.folder / "app.py").write_text("raise RuntimeError('broken')")
    server.signal(signal.SIGHUP)
    manager.hears("^RELOADING=1\n")
    manager.hears("^READY=1$")
    server.says("reload failed")


def test_workers_and_template_are_not_taken_for_the_service(run: Run, manager: Manager) -> None:
    server = run(workers=1, environ={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"})
    manager.hears("^READY=1$")
    until(lambda: server.echoes())
    assert not [said for said in manager.has_heard() if said.startswith("WATCHDOG")]
