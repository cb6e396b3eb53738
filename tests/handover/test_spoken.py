"""Whether two workers of two releases can hand over to each other."""

from __future__ import annotations

import pickle
import pickletools
from typing import Any, NamedTuple

from unlimitedws.engine.moved import Meter, Moved, Tokens
from unlimitedws.handover.link import Luggage, Publication
from unlimitedws.handover.spoken import FORMAT, PICKLED, VERSION, format_of
from unlimitedws.wire.deflate import Terms


class One(NamedTuple):
    id: int


class Two(NamedTuple):
    id: int
    path: str


def test_another_version_or_another_field_is_another_format() -> None:
    assert format_of(1, [One]) == format_of(1, [One])
    assert len({format_of(1, [One]), format_of(2, [One]), format_of(1, [Two]), format_of(1, [One, One])}) == 4
    assert FORMAT.startswith(f"{VERSION}.")


def test_everything_that_lies_in_a_packet_counts() -> None:
    moved = Moved(1, "/", "chat", Terms(), ("127.0.0.1", 80), meter=Meter(1, 2, 3.0), tokens=Tokens(1.0, 2.0))
    packed: list[Any] = [(moved, Luggage(b"state", 1.0)), Publication("all", None)]
    names = [str(value) for opcode, value, _ in pickletools.genops(pickle.dumps(packed, 2)) if opcode.name == "GLOBAL"]
    ours = {name.split()[1] for name in names if name.startswith("unlimitedws.")}
    assert ours == {kind.__name__ for kind in PICKLED}
