"""What a template is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from unlimitedws.supervisor.channel import Message


@dataclass(frozen=True, slots=True)
class Order:
    """One worker process to be forked.

    serial: its number in the server's life.  row: its row of the stats table.
    With it go three descriptors: the slot's listener, the worker's end of its channel, the stats table."""

    serial: int
    slot: int
    row: int

    def pack(self) -> Message:
        return {"spawn": asdict(self)}

    @classmethod
    def unpack(cls, message: Message) -> Order:
        return cls(**message["spawn"])
