"""What two workers have to agree on before one gives the other connections: after an upgrade they may be of two releases."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from unlimitedws.engine.moved import Meter, Moved, Tokens
from unlimitedws.handover.link import Luggage, Publication
from unlimitedws.wire.deflate import Terms

VERSION = 1
"""Counted up whenever packets or what is in them come to mean something else: a newer release then drains an older one."""

PICKLED = (Moved, Meter, Tokens, Terms, Luggage, Publication)
"""Whatever of ours lies in a packet: fields that come or go count by themselves."""


def format_of(version: int, kinds: Iterable[Any]) -> str:
    return f"{version}.{zlib.crc32(repr([kind._fields for kind in kinds]).encode()):08x}"


FORMAT = format_of(VERSION, PICKLED)
"""What a worker says when it is ready."""
