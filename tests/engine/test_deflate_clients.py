"""permessage-deflate with the clients that people use, through a whole server."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import aiohttp
import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from tests.serving import WAIT_S, eventually, served
from unlimitedws.handlers import Handlers

LONG = json.dumps([{"id": number, "name": f"user {number}"} for number in range(300)])
MESSAGES: list[str | bytes] = [LONG, b"", "", "short", LONG.encode(), os.urandom(30_000), "é" * 5000, LONG, LONG]


def echoing() -> Handlers:
    handlers = Handlers()
    handlers.on_message(lambda connection, message: connection.send(message))
    return handlers


@pytest.fixture(params=[False, True], ids=["no takeover", "takeover"])
def takeover(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


OFFERS: dict[str, dict[str, Any]] = {
    "nothing asked": {},
    "a window of ours": {"server_max_window_bits": 9},
    "a window of theirs": {"client_max_window_bits": 9},
    "no takeover asked": {"client_no_context_takeover": True, "server_no_context_takeover": True},
}


@pytest.mark.parametrize("offer", OFFERS)
def test_echo_with_websockets(engine_name: str, takeover: bool, offer: str) -> None:
    settings: dict[str, Any] = {"engine": engine_name, "deflate": True, "deflate_takeover": takeover, "deflate_threshold_bytes": 100}
    extensions = [ClientPerMessageDeflateFactory(**{"client_max_window_bits": True, **OFFERS[offer]})]
    with served(echoing(), **settings) as there, there.client(extensions=extensions) as client:
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        for message in MESSAGES:
            client.send(message)
            assert client.recv(WAIT_S) == message
        eventually(lambda: there.counters["messages_out"] == len(MESSAGES))
        assert there.counters["bytes_out"] < 60_000 < sum(len(message) for message in MESSAGES)


def test_fragments_with_websockets(engine_name: str, takeover: bool) -> None:
    with (
        served(echoing(), engine=engine_name, deflate=True, deflate_takeover=takeover) as there,
        there.client(compression="deflate") as client,
    ):
        client.send([LONG[:1000], LONG[1000:1001], "", LONG[1001:]])
        assert client.recv(WAIT_S) == LONG


def test_echo_with_aiohttp(engine_name: str, takeover: bool) -> None:
    async def talk(url: str) -> list[Any]:
        async with aiohttp.ClientSession() as session, session.ws_connect(url, compress=12) as client:
            assert client.compress
            for message in MESSAGES:
                await (client.send_str(message) if isinstance(message, str) else client.send_bytes(message))
            return [(await client.receive(WAIT_S)).data for _ in MESSAGES]

    with served(echoing(), engine=engine_name, deflate=True, deflate_takeover=takeover) as there:
        assert asyncio.run(talk(there.url())) == MESSAGES


def test_a_server_without_deflate_declines_it(engine_name: str) -> None:
    with served(echoing(), engine=engine_name) as there, there.client(compression="deflate") as client:
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        client.send(LONG)
        assert client.recv(WAIT_S) == LONG


def test_a_client_that_does_not_offer_gets_plain_messages(engine_name: str) -> None:
    with served(echoing(), engine=engine_name, deflate=True) as there, there.client() as client:
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        client.send(LONG)
        assert client.recv(WAIT_S) == LONG
