"""Run on every wheel that is built: the compiled engine is in it, and echoes. Needs nothing but the package."""

from __future__ import annotations

import asyncio

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Event, Request, TextMessage

from unlimitedws import Handlers, Server
from unlimitedws.engine import why_not_native

handlers = Handlers()


@handlers.on_message
def echo(conn, message):  # type: ignore[no-untyped-def]  # the six lines of the README
    conn.send(message)


async def main() -> None:
    assert why_not_native() is None, why_not_native()
    async with Server(handlers, port=0, engine="native") as server:
        assert server.worker.engine_name == "native"
        reader, writer = await asyncio.open_connection(server.host, server.port)
        client = WSConnection(ConnectionType.CLIENT)
        writer.write(client.send(Request(host="localhost", target="/")))
        assert isinstance(await event(client, reader), AcceptConnection)
        writer.write(client.send(TextMessage(data="hello")))
        answer = await event(client, reader)
        assert isinstance(answer, TextMessage)
        assert answer.data == "hello"
        writer.close()
        await writer.wait_closed()
    print("the native engine of this wheel echoes")


async def event(client: WSConnection, reader: asyncio.StreamReader) -> Event:
    async with asyncio.timeout(10):
        while True:
            client.receive_data(await reader.read(65536))
            for found in client.events():
                return found


if __name__ == "__main__":
    asyncio.run(main())
