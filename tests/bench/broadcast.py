"""A message of 3 bytes subscribes its connection; any other is broadcast to the subscribers."""

from unlimitedws import Handlers

handlers = Handlers()
subscribers = set()


@handlers.on_start
def start(worker):
    global broadcast
    broadcast = worker.broadcast


@handlers.on_message
def spread(conn, message):
    if len(message) == 3:
        subscribers.add(conn)
    else:
        broadcast(message, subscribers)


@handlers.on_close
def leave(conn, close):
    subscribers.discard(conn)
