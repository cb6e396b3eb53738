"""What a template is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from unlimitedws.listener import Listening
from unlimitedws.supervisor.channel import Message


@dataclass(frozen=True, slots=True)
class Order:
    """One worker process to be forked.

    serial: its number in the server's life.  row: its row of the stats table.
    listeners: of each of the slot's listeners, whether it is proxied and whether it speaks TLS.
    workers: how many share the limits of the server.
    With it go these descriptors: the slot's listeners, the worker's end of its channel, the stats table."""

    serial: int
    slot: int
    row: int
    listeners: tuple[tuple[bool, bool], ...]
    workers: int = 1

    def pack(self) -> Message:
        return {"spawn": asdict(self)}

    @classmethod
    def unpack(cls, message: Message) -> Order:
        order = message["spawn"]
        return cls(**{**order, "listeners": tuple((proxied, tls) for proxied, tls in order["listeners"])})

    def listening(self, fds: Sequence[int]) -> list[Listening]:
        """The listeners as the worker has them, which received these descriptors for them."""
        return [Listening(fd, *spoken) for fd, spoken in zip(fds, self.listeners, strict=True)]
