"""Fuzz target: what the native parser takes for a clean upgrade, the full parser accepts with the same meaning.

And the full parser gives an answer to whatever head: an upgrade or a refusal, never an exception.
"""

from __future__ import annotations

from unlimitedws.engine.codec import clean_upgrade
from unlimitedws.wire.handshake import Refusal, Upgrade, accept, answer
from unlimitedws.wire.head import END

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

    found = answer(data[:end], route=route, subprotocols=lambda endpoint: ("chat",))
    assert isinstance(found, Upgrade | Refusal), f"not an answer: {found!r}"
    assert found.response.startswith(b"HTTP/1.1 "), f"not a response: {found.response!r}"
    if clean is not None:
        assert not isinstance(clean, int), "a complete head is taken for an incomplete one"
        size, target, key = clean
        assert size == end, f"a head of {end} bytes is taken for one of {size}"
        expected = Upgrade(accept(key, None), target.decode(), ENDPOINT, None)
        assert found == expected, f"native {expected!r}, python {found!r}"
        assert routed == [target], f"native {target!r}, python {routed!r}"
