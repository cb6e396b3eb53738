"""A guest book in SQLite: every message is kept, and answered with its number.

    unlimitedws serve examples.database:handlers

The handler is a coroutine, so its worker serves others while the database works. The same shape fits
a database with an asyncio client: make its pool in on_start, await it in on_message, close it in on_stop.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from unlimitedws import Connection, Handlers, Worker

FILE = os.environ.get("GUESTBOOK", "guestbook.sqlite")


class GuestBook(Handlers):
    async def on_start(self, worker: Worker) -> None:
        # Once in each worker process, before it accepts anybody. SQLite wants one thread at a time: this one.
        self.thread = ThreadPoolExecutor(max_workers=1)
        await self.in_thread(self.open)

    async def on_stop(self, worker: Worker) -> None:
        await self.in_thread(self.database.close)
        self.thread.shutdown()

    async def on_message(self, conn: Connection, message: str | bytes) -> None:
        if isinstance(message, bytes):
            conn.close(1003, "text only")
            return
        number = await self.in_thread(self.add, message)
        conn.send(f"{number}: {message}")  # the next message of this client waits until here

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.thread, call, *arguments)

    def open(self) -> None:
        self.database = sqlite3.connect(FILE, timeout=10)  # other workers write to the same file
        with open(f"{FILE}.lock", "w") as lock:  # all workers start together, and a switch to WAL does not wait for another's
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.database.execute("PRAGMA journal_mode=WAL")
            self.database.execute("CREATE TABLE IF NOT EXISTS entry (number INTEGER PRIMARY KEY, text TEXT NOT NULL)")

    def add(self, text: str) -> int | None:
        with self.database:  # one transaction
            return self.database.execute("INSERT INTO entry (text) VALUES (?)", (text,)).lastrowid


handlers = GuestBook()
