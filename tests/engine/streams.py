"""Streams for tests: they write down what they are told, and do what the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Told:
    """A Stream; `told` has (method, argument) of each call. Any of its methods may be given: it is called with the pipe
    first, after the call was written down."""

    def __init__(self, **given: Callable[..., object]) -> None:
        self.told: list[tuple[str, Any]] = []
        self.given = given
        self.pipe: Any = None

    def begin(self, pipe: Any) -> None:
        self.pipe = pipe
        self._hear("begin")

    def received(self, data: bytes) -> None:
        assert type(data) is bytes
        self._hear("received", data)

    def drained(self) -> None:
        self._hear("drained")

    def ended(self) -> None:
        self._hear("ended")

    def lost(self) -> None:
        self._hear("lost")

    def _hear(self, name: str, *arguments: Any) -> None:
        self.told.append((name, *arguments))
        if name in self.given:
            self.given[name](self.pipe, *arguments)

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.told]

    @property
    def data(self) -> bytes:
        return b"".join(call[1] for call in self.told if call[0] == "received")
