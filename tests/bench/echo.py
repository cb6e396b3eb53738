"""The app under test: the six-line echo of the README."""

from unlimitedws import Handlers

handlers = Handlers()


@handlers.on_message
def echo(conn, message):
    conn.send(message)
