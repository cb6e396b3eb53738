"""An error on its way from the process that met it to the one that reports it."""

from __future__ import annotations

from unlimitedws import errors
from unlimitedws.supervisor.channel import Message

MAX_TEXT = 8 * 1024
"""Characters of a text that are passed on: a whole traceback. Twice (the sentence and the report in it), as JSON,
which may need 6 bytes for a character, it fits into one packet."""


def pack(error: errors.UnlimitedwsError) -> Message:
    """The error as a message: its class, its sentence and its plain facts."""
    facts = {key: shorten(value) for key, value in vars(error).items() if isinstance(value, str | int)}
    return {"error": type(error).__name__, "text": shorten(str(error)), "facts": facts}


def unpack(message: Message) -> errors.UnlimitedwsError:
    """The same error again: class, text and facts."""
    kind = getattr(errors, message["error"], errors.UnlimitedwsError)
    # __new__ alone: __init__ would write its sentence anew, from arguments that differ by class.
    error: errors.UnlimitedwsError = kind.__new__(kind, message["text"])
    vars(error).update(message["facts"])
    return error


def shorten(value: object) -> object:
    """A long text without its middle: the first line names the error, the last lines show the place."""
    if not isinstance(value, str) or len(value) <= MAX_TEXT:
        return value
    return value[: MAX_TEXT // 4] + "\n  ...\n" + value[-3 * MAX_TEXT // 4 :]
