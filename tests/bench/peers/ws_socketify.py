"""socketify (a Python binding of uWebSockets): PORT echo|fan"""

import sys

from socketify import App, CompressOptions

port, fan = int(sys.argv[1]), sys.argv[2] == "fan"
app = App()


def echo(ws, message, opcode):
    ws.send(message, opcode)


def spread(ws, message, opcode):
    if len(message) == 3:
        ws.subscribe("t")
    else:
        app.publish("t", message, opcode, False)


app.ws(
    "/*",
    {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": 16 << 20,
        "idle_timeout": 0,
        "max_backpressure": 64 << 20,
        "message": spread if fan else echo,
    },
)
app.listen({"port": port, "host": "127.0.0.1"}, lambda c: None)
app.run()
