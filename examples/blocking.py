"""Answers each password with its scrypt hash, which takes a while on purpose.

    unlimitedws serve examples.blocking:handlers

A plain handler that took this long would keep every other client of its worker waiting. Marked as
blocking, it runs in the worker's pool of threads (--threads, --thread-queue).
"""

import hashlib
import os

from unlimitedws import Connection, Handlers, blocking

handlers = Handlers()


@handlers.on_message
@blocking
def hash_password(conn: Connection, message: str | bytes) -> None:
    password = message.encode() if isinstance(message, str) else message
    salt = os.urandom(16)
    digest = hashlib.scrypt(password, salt=salt, n=2**14, r=8, p=1, dklen=32)
    # The methods of a connection may be called from any thread. The next message of this client
    # is handled after this one: its answers come in the order of its questions.
    conn.send(f"scrypt${salt.hex()}${digest.hex()}")
