"""A chat room for everybody who opens the page.

    unlimitedws serve examples.chat.app:handlers --workers 1      # then open http://127.0.0.1:8000

One worker, because a broadcast reaches the connections of its own worker.
"""

import json
import time
from collections import deque
from pathlib import Path

from unlimitedws import Close, Connection, Handlers, Worker

PAGE = Path(__file__).with_name("index.html")
HISTORY = 50  # lines that a newcomer gets to see


class Room(Handlers):
    def on_start(self, worker: Worker) -> None:
        self.worker = worker
        self.people = 0
        self.lines: deque[str] = deque(maxlen=HISTORY)

    def on_connect(self, conn: Connection) -> None:
        for line in self.lines:
            conn.send(line)
        self.count(+1)

    def on_message(self, conn: Connection, message: str | bytes) -> None:
        try:
            line = line_of(message)
        except (ValueError, TypeError, KeyError):
            conn.close(1003, "send JSON with a name and a text")
            return
        self.lines.append(line)
        self.worker.broadcast(line)  # packed once, sent to all

    def on_close(self, conn: Connection, close: Close) -> None:
        self.count(-1)

    def count(self, change: int) -> None:
        self.people += change
        self.worker.broadcast(json.dumps({"people": self.people}))


def line_of(message: str | bytes) -> str:
    """What everybody gets, from what one client sent: trust nothing of it but its length limits."""
    said = json.loads(message)
    name, text = str(said["name"]).strip()[:30], str(said["text"]).strip()[:2000]
    if not text:
        raise ValueError("nothing said")
    return json.dumps({"name": name or "somebody", "text": text, "at": time.time()})


handlers = Room()


@handlers.get("/")
def page() -> Path:
    return PAGE
