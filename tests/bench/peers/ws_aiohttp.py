"""aiohttp on uvloop: PORT echo|fan; no compression, no heartbeat"""

import sys

import uvloop
from aiohttp import WSMsgType, web

port, fan = int(sys.argv[1]), sys.argv[2] == "fan"
subs = set()


async def echo(request):
    ws = web.WebSocketResponse(compress=False, max_msg_size=16 << 20)
    await ws.prepare(request)
    async for m in ws:
        if m.type == WSMsgType.BINARY:
            await ws.send_bytes(m.data)
        elif m.type == WSMsgType.TEXT:
            await ws.send_str(m.data)
    return ws


async def spread(request):
    ws = web.WebSocketResponse(compress=False, max_msg_size=16 << 20)
    await ws.prepare(request)
    try:
        async for m in ws:
            if m.data == "SUB":
                subs.add(ws)
            elif m.type == WSMsgType.BINARY:
                for s in list(subs):
                    await s.send_bytes(m.data)
    finally:
        subs.discard(ws)
    return ws


uvloop.install()
app = web.Application()
app.router.add_get("/{any:.*}", spread if fan else echo)
web.run_app(app, host="127.0.0.1", port=port, backlog=4096, access_log=None, print=None)
