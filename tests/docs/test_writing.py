"""The pages of docs/how-to on handlers: what each shows is served, and does what the page says."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.docs.pages import app_of
from tests.serving import WAIT_S, eventually, served
from unlimitedws import Handlers


def test_who_is_in_a_room_hears_it_and_nobody_else(engine_name: str) -> None:
    handlers = app_of("how-to/broadcast-and-keep-rooms.md")["handlers"]
    with served(handlers, engine=engine_name) as there:
        with there.client("/red") as ada, there.client("/red") as bob, there.client("/blue") as carol:
            ada.send("to the red ones")
            assert [ada.recv(WAIT_S), bob.recv(WAIT_S)] == ["to the red ones"] * 2
            carol.send("to the blue one")
            assert carol.recv(WAIT_S) == "to the blue one"
        eventually(lambda: there.call(lambda: handlers.rooms == {}), "rooms without members are forgotten")


def test_an_export_waits_for_its_client_and_loses_no_line(engine_name: str) -> None:
    module = app_of("how-to/cope-with-slow-clients.md")
    with served(module["handlers"], engine=engine_name, high_water_bytes=20_000, low_water_bytes=5_000) as there, there.client() as client:
        client.send("all of it")
        lines = [str(client.recv(WAIT_S)).split(" .")[0] for _ in range(module["LINES"])]
        assert lines == [f"line {number}" for number in range(module["LINES"])]
        assert there.counters["handler_errors"] == 0


def test_prices_go_to_those_who_keep_up(engine_name: str) -> None:
    handlers = app_of("how-to/cope-with-slow-clients.md", 1)["handlers"]
    with served(handlers, engine=engine_name) as there, there.client() as one, there.client() as other:
        one.send("17.20")
        assert [one.recv(WAIT_S), other.recv(WAIT_S)] == ["17.20", "17.20"]


def test_each_path_has_its_own_handlers_and_others_are_not_there(engine_name: str) -> None:
    with served(app_of("how-to/serve-several-paths.md")["handlers"], engine=engine_name) as there:
        with there.client("/echo") as client:
            client.send("hello")
            assert client.recv(WAIT_S) == "hello"
        with there.client("/v1/chat", subprotocols=[Subprotocol("chat.v1"), Subprotocol("chat.v2")]) as client:
            assert client.recv(WAIT_S) == "you speak chat.v2"
        with there.client("/chat") as client:
            assert client.recv(WAIT_S) == "you speak nothing in particular"
        with pytest.raises(InvalidStatus, match="404"), there.client("/nowhere"):
            pass


def test_the_guest_book_numbers_its_entries(engine_name: str) -> None:
    with served(app_of("how-to/use-a-database.md")["handlers"], engine=engine_name) as there, there.client() as client:
        client.send("I was here")
        assert client.recv(WAIT_S) == "entry 1"


def test_what_blocks_answers_from_a_thread(engine_name: str) -> None:
    with served(app_of("how-to/call-what-blocks.md")["handlers"], engine=engine_name) as there, there.client() as client:
        client.send("password")
        assert len(str(client.recv(WAIT_S)).split()) == 2


def test_the_handler_that_came_from_another_library_answers_as_before(engine_name: str) -> None:
    with served(app_of("how-to/come-from-another-library.md", 1)["handlers"], engine=engine_name) as there, there.client() as client:
        client.send("hello")
        assert client.recv(WAIT_S) == "you said 'hello'"


def test_bytes_are_answered_by_bytes_and_json_by_json(engine_name: str) -> None:
    with served(app_of("how-to/send-and-receive.md")["handlers"], engine=engine_name) as there, there.client() as client:
        client.send(b"abc")
        assert client.recv(WAIT_S) == b"cba"
        client.send('["why"]')
        assert json.loads(client.recv(WAIT_S)) == {"you asked": ["why"]}
        client.send("{")
        with pytest.raises(ConnectionClosed, match=r"1007.*JSON, please"):
            client.recv(WAIT_S)


def test_one_message_may_be_larger_than_the_queue(engine_name: str) -> None:
    handlers = Handlers()
    handlers.on_message = lambda conn, message: conn.send("x" * 5_000_000)
    with served(handlers, engine=engine_name, sndbuf_bytes=8192) as there, there.client(max_size=None) as client:
        client.send("all at once")
        assert len(client.recv(WAIT_S)) == 5_000_000


def test_connections_are_closed_as_the_app_says_and_none_of_them_was_lost(engine_name: str) -> None:
    module = app_of("how-to/close-connections.md")
    with served(module["handlers"], engine=engine_name) as there:
        with there.client() as client:
            client.send("bye")
            with pytest.raises(ConnectionClosed, match=r"4001.*as you wish"):
                client.recv(WAIT_S)
        with there.client() as client:
            client.send("now")
            with pytest.raises(ConnectionClosed, match="no close frame"):
                client.recv(WAIT_S)
        eventually(lambda: there.counters["closes_app_aborted"], "the second one is over")
        assert there.counters["closes_app_closed"] == 1
        assert module["lost"] == []


def test_a_keyword_wins_over_the_config() -> None:
    module = app_of("how-to/configure.md")
    config = module["server"].config
    assert (config.ping_interval_s, config.port) == (60, 0)
