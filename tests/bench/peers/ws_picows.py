"""picows on uvloop: PORT echo|fan"""

import sys

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

port, fan = int(sys.argv[1]), sys.argv[2] == "fan"
subs = set()


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        t = frame.msg_type
        if t == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(t, frame.get_payload_as_memoryview())


class Fan(WSListener):
    def on_ws_disconnected(self, transport):
        subs.discard(transport)

    def on_ws_frame(self, transport, frame):
        t = frame.msg_type
        if t == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.payload_size == 3:
            subs.add(transport)
        else:
            data = frame.get_payload_as_bytes()
            for s in subs:
                s.send(t, data)


async def main():
    s = await ws_create_server(
        lambda r: (Fan if fan else Echo)(), "127.0.0.1", port, backlog=4096, max_frame_size=16 << 20, enable_auto_pong=True
    )
    await s.serve_forever()


uvloop.run(main())
