"""What two workers have to agree on before one gives the other connections: after an upgrade they may be of two releases."""

from __future__ import annotations

import zlib

from unlimitedws.engine.moved import Meter, Moved, Tokens
from unlimitedws.handover.link import Luggage, Publication
from unlimitedws.wire.deflate import Terms

VERSION = 1
"""Counted up whenever packets or what is in them come to mean something else: a newer release then drains an older one."""

FORMAT = f"{VERSION}.{zlib.crc32(repr([each._fields for each in (Moved, Meter, Tokens, Terms, Luggage, Publication)]).encode()):08x}"
"""What a worker says when it is ready. Fields that come or go count by themselves."""
