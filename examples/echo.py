"""Sends every message back. Serve it: python -m unlimitedws.supervisor examples.echo:handlers"""

from unlimitedws import Handlers

handlers = Handlers()


@handlers.on_message
def echo(conn, message):  # str for text, bytes for binary
    conn.send(message)
