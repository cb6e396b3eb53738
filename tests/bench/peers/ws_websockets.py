"""websockets (its asyncio server) on uvloop: PORT echo|fan; no compression, no keepalive pings"""

import asyncio
import sys

import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

port, fan = int(sys.argv[1]), sys.argv[2] == "fan"
subs = set()


async def echo(ws):
    try:
        async for m in ws:
            await ws.send(m)
    except ConnectionClosed:
        pass


async def spread(ws):
    try:
        async for m in ws:
            if m == "SUB":
                subs.add(ws)
            else:
                broadcast(subs, m)
    except ConnectionClosed:
        pass
    finally:
        subs.discard(ws)


async def main():
    async with serve(spread if fan else echo, "127.0.0.1", port, compression=None, ping_interval=None, max_size=16 << 20, backlog=4096):
        await asyncio.Future()


uvloop.run(main())
