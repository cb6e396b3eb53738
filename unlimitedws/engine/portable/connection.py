"""The connection object of the portable engine."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

from unlimitedws.engine.portable.table import CLOSING, DEPARTING, OPEN, RESUMED
from unlimitedws.engine.said import Said
from unlimitedws.wire.closing import Cause, Close, pack_close
from unlimitedws.wire.frames import BINARY, MAX_CONTROL_BYTES, PING, TEXT, pack_frame, pack_head

if TYPE_CHECKING:
    from unlimitedws.engine.portable.ending import Ending

SHORT_TEXT = tuple(pack_head(TEXT, length) for length in range(MAX_CONTROL_BYTES + 1))
SHORT_BINARY = tuple(pack_head(BINARY, length) for length in range(MAX_CONTROL_BYTES + 1))

MAKING_MORE = Lock()  # two threads may be the first at once

Message = str | bytes | bytearray | memoryview


class More:
    """What few connections need: made when it is."""

    __slots__ = ("ending", "facts", "holds", "hook", "posted", "resumed", "state")

    def __init__(self) -> None:
        self.state: Any = None
        self.holds = 0
        self.resumed = False  #: after the end
        self.posted = 0  #: bytes on their way from other threads
        self.facts: tuple[str, str | None, tuple[str, int] | str] = ("", None, "")  #: after the end
        self.ending: Close | None = None  #: of a held connection: on_close waits for the last release
        self.hook: Callable[..., object] | None = None  #: its on_close


class Connection:
    """See `unlimitedws.Connection`. `fd` is the row, -1 after the end."""

    __slots__ = ("__weakref__", "_more", "engine", "fd", "id")

    def __init__(self, engine: Ending, fd: int, id: int) -> None:
        self.engine = engine
        self.fd = fd
        self.id = id
        self._more: More | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.path!r} {'open' if self.is_open else 'closed'}>"

    @property
    def more(self) -> More:
        if self._more is None:
            with MAKING_MORE:
                self._more = self._more or More()
        return self._more

    @property
    def resumed(self) -> bool:
        fd = self.fd
        return bool(self.engine.table.flags[fd] & RESUMED) if self._owns(fd) else self.more.resumed

    @property
    def holds(self) -> int:
        return 0 if self._more is None else self._more.holds

    @property
    def state(self) -> Any:
        return None if self._more is None else self._more.state

    @state.setter
    def state(self, value: Any) -> None:
        self.more.state = value
        self.engine.pin(self, value is not None)

    @property
    def is_open(self) -> bool:
        fd = self.fd
        return self._owns(fd) and self.engine.table.phases[fd] in (OPEN, DEPARTING)

    def _owns(self, fd: int) -> bool:
        """Whether row `fd` is still ours. Another thread may ask while the loop gives the row to the next one."""
        ids = self.engine.table.ids
        return 0 <= fd < len(ids) and ids[fd] == self.id and self.fd == fd

    def facts(self) -> tuple[str, str | None, tuple[str, int] | str]:
        """Path, subprotocol and remote address, before and after the end."""
        fd = self.fd
        if self._owns(fd):
            facts = self.engine.facts(fd)
            if self._owns(fd):
                return facts
        return self.more.facts

    @property
    def path(self) -> str:
        return self.facts()[0]

    @property
    def subprotocol(self) -> str | None:
        return self.facts()[1]

    @property
    def remote_address(self) -> tuple[str, int] | str:
        return self.facts()[2]

    @property
    def queued_bytes(self) -> int:
        fd = self.fd
        queued = self.engine.table.queued[fd] if self._owns(fd) else 0
        return queued if self._more is None or self.fd < 0 else queued + self._more.posted

    def send(self, message: Message, *, text: bool | None = None) -> bool:
        frame = pack_message(message, text)
        engine = self.engine
        if get_ident() != engine.thread:
            return engine.posting.send(self, frame, said_of(message, text))
        fd = self.fd
        if fd < 0:
            return False
        if engine.table.phases[fd] != OPEN:
            return engine.say_later(fd, said_of(message, text))
        return engine.output.send(fd, frame)

    def close(self, code: int = 1000, reason: str = "") -> None:
        payload = pack_close(code, reason)
        if get_ident() != self.engine.thread:
            self.engine.posting.call(lambda: self.close(code, reason))
        elif self.fd >= 0 and not self.engine.say_later(self.fd, ("close", code, reason)):
            self.engine.close_politely(self.fd, payload, Close(code, reason, Cause.APP_CLOSED, False))

    def abort(self) -> None:
        if get_ident() != self.engine.thread:
            self.engine.posting.call(self.abort)
        elif self.fd < 0 or self.engine.say_later(self.fd, ("abort",)):
            return
        elif self.engine.table.phases[self.fd] in (OPEN, CLOSING):
            self.engine.lose(self.fd, Cause.APP_ABORTED)

    def ping(self, payload: bytes = b"") -> None:
        payload = bytes(payload)
        if len(payload) > MAX_CONTROL_BYTES:
            raise ValueError(f"ping payload of {len(payload)} bytes; the limit is {MAX_CONTROL_BYTES}")
        if get_ident() != self.engine.thread:
            self.engine.posting.call(lambda: self.ping(payload))
        elif self.fd < 0 or self.engine.say_later(self.fd, ("ping", payload)):
            return
        elif self.engine.table.phases[self.fd] == OPEN:
            self.engine.output.put(self.fd, pack_frame(PING, payload))


def said_of(message: Message, text: bool | None) -> Said:
    """What is kept of a `send` to a connection that departs."""
    return "send", message if isinstance(message, str | bytes) else bytes(message), text


def pack_message(message: Message, text: bool | None) -> bytes:
    """The frame of a message. Raises TypeError for other types, ValueError for text that is not UTF-8."""
    if isinstance(message, str):
        payload, is_text = message.encode(), text is not False
    elif isinstance(message, bytes | bytearray | memoryview):
        payload, is_text = message if isinstance(message, bytes) else bytes(message), bool(text)
        if is_text:
            check_utf8(payload)
    else:
        raise TypeError(f"a message is str, bytes, bytearray or memoryview, not {type(message).__name__}")
    if len(payload) <= MAX_CONTROL_BYTES:
        return (SHORT_TEXT if is_text else SHORT_BINARY)[len(payload)] + payload
    return pack_frame(TEXT if is_text else BINARY, payload)


def check_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise ValueError("send(..., text=True) needs valid UTF-8") from None
