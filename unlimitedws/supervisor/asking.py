"""Asking a worker about its connections: the supervisor's question, and the worker's answer.

    {"ask": 7, "page": [start, at_most]}   {"answer": 7, "connections": [...], "next": start or null}
    {"ask": 8, "find": id}                 {"answer": 8, "connections": [the one, or none]}
    {"ask": 9, "close": id}                the same, and it is being closed

Where none is found, `moving` says that some are on their way from this worker or to it, so that it may be at nobody's.

What is told of a connection is cut so that a whole page fits into a packet of the channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unlimitedws.supervisor.channel import Message
from unlimitedws.wire.closing import GOING_AWAY

if TYPE_CHECKING:
    from unlimitedws.worker import Worker

MOST = 100
"""Connections of one page."""
LAST = 2**31 - 1
"""No descriptor is larger: what a client says of where a page starts goes no further than that."""
SHOWN = 200
"""Characters of a path or a subprotocol that are told."""
REASON = "closed by the operator"


def answer(question: Message, worker: Worker | None) -> Message:
    """What a worker says to a question; nothing is open where there is no worker yet."""
    number = question["ask"]
    if worker is None:
        return {"answer": number, "connections": []}
    if "page" in question:
        start, at_most = question["page"]
        connections, next = worker.page(min(start, LAST), min(at_most, MOST))
        return {"answer": number, "connections": [told(each) for each in connections], "next": next}
    found = worker.find(question["close"] if "close" in question else question["find"])
    if found is None:
        return {"answer": number, "connections": [], "moving": worker.is_moving}
    about = told(found)
    if "close" in question:
        found.close(GOING_AWAY, REASON)
    return {"answer": number, "connections": [about]}


def told(connection: Any) -> Message:
    """What is told of one connection. connection: its id, as text: a number in JavaScript or jq holds 53 bits of its 64.
    address: host and port, or the name of a Unix peer."""
    address = connection.remote_address
    return {
        "connection": str(connection.id),
        "address": address[:SHOWN] if isinstance(address, str) else list(address),
        "path": connection.path[:SHOWN],
        "subprotocol": (connection.subprotocol or "")[:SHOWN] or None,
        "queued_bytes": connection.queued_bytes,
    }
