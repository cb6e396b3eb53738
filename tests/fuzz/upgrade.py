"""Fuzz target: what the native parser takes for a clean upgrade, the full parser accepts with the same meaning.

And the full parser knows whatever head: a handshake, a plain request or a refusal, never an exception. What our
parser reads in a head, h11 reads in it too.
"""

from __future__ import annotations

from contextlib import suppress

from tests.wire.second_opinion import agrees
from unlimitedws.engine.head import clean_upgrade
from unlimitedws.wire.handshake import Asked, Plain, Refusal, examine
from unlimitedws.wire.head import END, HeadError, parse

ENDPOINT = 7


def check(data: bytes) -> None:
    """Raises AssertionError where the parsers differ."""
    clean, end = clean_upgrade(data), data.find(END) + len(END)
    if end < len(END):
        assert clean == 0, f"{clean!r} for a head that has no end"
        return
    assert clean_upgrade(data[: end - 1]) == 0, "a head is complete without its last byte"
    assert clean == clean_upgrade(data[:end]), "what follows a head changes its meaning"
    routed: list[bytes] = []

    def route(target: bytes) -> tuple[str, int]:
        routed.append(target)
        return target.decode(), ENDPOINT

    found = examine(data[:end], route=route)
    assert isinstance(found, Asked | Plain | Refusal), f"not an answer: {found!r}"
    if isinstance(found, Refusal):
        assert found.response.startswith(b"HTTP/1.1 "), f"not a response: {found.response!r}"
    with suppress(HeadError):
        agrees(parse(data[:end]), data[:end])
    if clean is not None:
        assert not isinstance(clean, int), "a complete head is taken for an incomplete one"
        size, target, key = clean
        assert size == end, f"a head of {end} bytes is taken for one of {size}"
        assert isinstance(found, Asked), f"native upgrades, python: {found!r}"
        expected = (key, target.decode(), ENDPOINT, [])
        assert found[:4] == expected, f"native {expected!r}, python {found!r}"
        assert routed == [target], f"native {target!r}, python {routed!r}"
