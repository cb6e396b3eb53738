"""the smallest ASGI and RSGI applications; MODE=echo|fan in the environment"""

import os

fan = os.environ.get("MODE") == "fan"
subs = set()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            m = await receive()
            await send({"type": m["type"] + ".complete"})
            if m["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    try:
        while True:
            m = await receive()
            if m["type"] != "websocket.receive":
                return
            data = m.get("bytes")
            if fan:
                if data is None:
                    subs.add(send)
                else:
                    for s in list(subs):
                        await s({"type": "websocket.send", "bytes": data})
            elif data is not None:
                await send({"type": "websocket.send", "bytes": data})
            else:
                await send({"type": "websocket.send", "text": m["text"]})
    finally:
        subs.discard(send)


async def rsgi(scope, proto):
    tr = await proto.accept()
    try:
        while True:
            m = await tr.receive()
            if m.kind == 0:
                return
            if fan:
                if m.kind == 2:
                    subs.add(tr)
                else:
                    for s in list(subs):
                        await s.send_bytes(m.data)
            elif m.kind == 1:
                await tr.send_bytes(m.data)
            else:
                await tr.send_str(m.data)
    finally:
        subs.discard(tr)
