from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest

from tests.serving import WAIT_S, Served, eventually, served
from unlimitedws.connection import Connection
from unlimitedws.engine import load
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.wire.closing import Cause

PUBLIC = sorted(name for name in {*vars(Connection), *Connection.__annotations__} if not name.startswith("_"))


def collecting() -> tuple[Handlers, list[Any], list[Any]]:
    """Handlers that echo, with the connections that opened and the closes that came."""
    opened: list[Any] = []
    closed: list[Any] = []
    handlers = Handlers()
    handlers.on_connect = opened.append
    handlers.on_message = lambda conn, message: conn.send(message)
    handlers.on_close = lambda conn, close: closed.append(close)
    return handlers, opened, closed


def connection(there: Served, opened: list[Any]) -> Any:
    return eventually(lambda: opened and opened[-1])


def test_the_public_names_are_those_of_the_manual() -> None:
    assert PUBLIC == [
        "abort", "close", "id", "is_open", "path", "ping", "queued_bytes", "remote_address", "resumed", "send", "state",
        "subprotocol",
    ]  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name: str) -> None:
    if name in ("id", "state"):  # documented by the string that follows them
        assert f"    {name}: " in inspect.getsource(Connection)
    else:
        assert inspect.getdoc(getattr(Connection, name))


def test_a_connection_of_either_engine_is_a_connection(engine_name: str) -> None:
    handlers, opened, _ = collecting()
    with served(handlers, engine=engine_name) as there, there.client():
        conn = connection(there, opened)
        assert isinstance(conn, Connection)
        assert all(hasattr(conn, name) for name in PUBLIC)


def test_other_classes_of_an_engine_are_no_connections(engine_name: str) -> None:
    assert not issubclass(load(engine_name), Connection)
    assert not isinstance(object(), Connection)


def test_nobody_makes_a_connection() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Connection()  # type: ignore[abstract]


def test_a_connection_tells_who_and_where(engine_name: str) -> None:
    handlers, opened, _ = collecting()
    with served(handlers, engine=engine_name) as there, there.client("/caf%C3%A9?token=1") as client:
        conn = connection(there, opened)
        assert conn.path == "/café"
        assert conn.remote_address == client.local_address
        assert (conn.subprotocol, conn.state, conn.resumed, conn.is_open) == (None, None, False, True)
        assert there.call(lambda: conn.queued_bytes) == 0  # between two turns: the answer to the handshake has left


def test_attributes_stay_valid_after_the_close(engine_name: str) -> None:
    handlers, opened, closed = collecting()
    with served(handlers, engine=engine_name) as there:
        with there.client("/here") as client:
            conn = connection(there, opened)
            there.call(lambda: setattr(conn, "state", {"name": "Ada"}))
            address = client.local_address
        eventually(lambda: closed)
    assert (conn.id, conn.path, conn.remote_address, conn.subprotocol) == (1, "/here", address, None)
    assert (conn.is_open, conn.queued_bytes) == (False, 0)


def test_a_closed_connection_takes_no_message_and_never_raises(engine_name: str) -> None:
    handlers, opened, closed = collecting()
    with served(handlers, engine=engine_name) as there:
        with there.client():
            conn = connection(there, opened)
        eventually(lambda: closed)
        assert there.call(lambda: (conn.send("x"), conn.close(), conn.abort(), conn.ping())) == (False, None, None, None)
        assert conn.send(b"from this thread") is False


def test_the_same_connection_is_the_same_object_while_somebody_holds_it(engine_name: str) -> None:
    handlers, opened, _ = collecting()
    seen = []
    handlers.on_message = None
    handlers.on_message = lambda conn, message: seen.append(conn)
    with served(handlers, engine=engine_name) as there, there.client() as client:
        conn = connection(there, opened)
        client.send("a")
        client.send("b")
        eventually(lambda: len(seen) == 2)
        assert seen[0] is seen[1] is conn
        assert there.call(lambda: there.server.worker.connections) == [conn]


def test_every_connection_has_an_id_of_its_own(engine_name: str) -> None:
    handlers, opened, _ = collecting()
    with served(handlers, engine=engine_name) as there:
        for _ in range(5):
            with there.client():
                pass
        eventually(lambda: len(opened) == 5)
    assert [conn.id for conn in opened] == [1, 2, 3, 4, 5]


def test_the_app_closes_with_its_code_and_reason(engine_name: str) -> None:
    handlers, _, closed = collecting()
    handlers.on_message = None
    handlers.on_message = lambda conn, message: conn.close(4001, "né")
    with served(handlers, engine=engine_name) as there, there.client() as client:
        client.send("x")
        eventually(lambda: closed and client.close_code)
        assert (client.close_code, client.close_reason) == (4001, "né")
    [close] = closed
    assert (close.code, close.reason, close.cause, close.clean) == (4001, "né", Cause.APP_CLOSED, True)


def test_abort_ends_the_connection_at_once(engine_name: str) -> None:
    handlers, _, closed = collecting()
    handlers.on_message = None
    handlers.on_message = lambda conn, message: conn.abort()
    with served(handlers, engine=engine_name) as there, there.client() as client:
        client.send("x")
        eventually(lambda: closed)
    assert (closed[0].code, closed[0].cause, closed[0].clean) == (1006, Cause.APP_ABORTED, False)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["on the loop", "from another thread"])
@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("close", (1005,), ValueError),
        ("close", (999,), ValueError),
        ("close", (1000, "x" * 124), ValueError),
        ("close", (1000, "é" * 62), ValueError),
        ("ping", (b"x" * 126,), ValueError),
        ("send", (3,), TypeError),
        ("send", (None,), TypeError),
    ],
)
def test_what_may_not_be_sent_is_an_error_of_the_caller(
    engine_name: str, elsewhere: bool, method: str, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    handlers, opened, _ = collecting()
    with served(handlers, engine=engine_name) as there, there.client() as client:
        call = getattr(connection(there, opened), method)
        with pytest.raises(error):
            call(*arguments) if elsewhere else there.call(lambda: call(*arguments))
        client.send("still there")
        assert client.recv(timeout=WAIT_S) == "still there"


def test_text_may_be_given_as_bytes_and_bytes_as_text(engine_name: str) -> None:
    handlers, opened, _ = collecting()
    with served(handlers, engine=engine_name) as there, there.client() as client:
        conn = connection(there, opened)
        there.call(lambda: [conn.send("né".encode(), text=True), conn.send("né", text=False), conn.send(bytearray(b"\0")), conn.send("x")])
        assert [client.recv(timeout=WAIT_S) for _ in range(4)] == ["né", "né".encode(), b"\0", "x"]
        with pytest.raises(ValueError, match=r"(?i)utf-?8"):
            there.call(lambda: conn.send(b"\xff", text=True))


def test_messages_sent_from_many_threads_arrive_whole_and_each_threads_in_order(engine_name: str) -> None:
    handlers, opened, _ = collecting()
    with served(handlers, engine=engine_name) as there, there.client() as client:
        conn = connection(there, opened)

        def say(name: str) -> None:
            for i in range(100):
                conn.send(f"{name} {i}")

        threads = [threading.Thread(target=say, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        received = [str(client.recv(timeout=WAIT_S)) for _ in range(400)]
        for thread in threads:
            thread.join()
    for name in "abcd":
        assert [message for message in received if message.startswith(name)] == [f"{name} {i}" for i in range(100)]


def test_a_blocking_handler_sends_closes_and_pings_from_its_thread(engine_name: str) -> None:
    handlers, _, closed = collecting()
    handlers.on_message = None

    @handlers.on_message
    @blocking
    def work(conn: Any, message: Any) -> None:
        conn.ping(b"are you there")
        conn.send("one")
        conn.send("two")
        conn.close(4000, "done")

    with served(handlers, engine=engine_name) as there, there.client() as client:
        client.send("x")
        assert [client.recv(timeout=WAIT_S) for _ in range(2)] == ["one", "two"]
        eventually(lambda: client.close_code == 4000 and closed)
    assert (closed[0].code, closed[0].clean) == (4000, True)
