"""What a command shows, on stdout.

Each text is written out at once: what cannot be written is an error of the command, and not a complaint of the
interpreter on its way out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator

from unlimitedws.errors import OutputFailed


def show(text: str, end: str = "\n") -> None:
    """Writes a text; what stdout's encoding lacks is escaped. Raises OutputFailed."""
    with writing():
        print(encodable(text, sys.stdout.encoding), end=end, flush=True)


def encodable(text: str, encoding: str | None) -> str:
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Raises OutputFailed for what the system says of writing to stdout, and where that was closed before we began (>&-)."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        yield
    except OSError as error:
        raise OutputFailed(error) from None


def flush() -> None:
    """Writes out what is printed but still buffered: a fork would print it twice, an _exit not at all."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # closed, or its reader is gone
                stream.flush()


def give_up() -> None:
    """Has what is still in the buffer of stdout lead nowhere: the interpreter would fail with it once more, on its way out."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def end_as_a_filter() -> int:
    """Ends this process by SIGPIPE, as git and the coreutils end when their reader has left (`| head -1`): 141 in a shell.

    Python ignores that signal. Gives the same as an exit code where nothing can end us: to PID 1 signals do nothing by default."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    return 128 + signal.SIGPIPE
