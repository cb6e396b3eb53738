"""What h11 makes of a request head: a second parser, which must never disagree with `wire.head`."""

from __future__ import annotations

import h11

from unlimitedws.wire.head import Head


def agrees(ours: Head, head: bytes) -> None:
    """Raises AssertionError where h11 refuses a head that we accepted, or reads anything else in it."""
    protocol = h11.Connection(h11.SERVER)
    protocol.receive_data(head)
    try:
        theirs = protocol.next_event()
        following = protocol.next_event()
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"h11 refuses {head!r}: {error}") from None
    assert isinstance(theirs, h11.Request), f"h11 finds {theirs!r} in {head!r}"
    assert (theirs.method, theirs.target, b"HTTP/" + theirs.http_version) == ours[:3], f"h11 reads {theirs!r}"
    found, expected = list(theirs.headers), settled(ours.headers)
    assert found == expected, f"h11 reads {found!r}, we {expected!r}"
    assert (following is h11.NEED_DATA) == ours.announces_body, f"h11 goes on with {following!r}, we {ours.announces_body}"


def settled(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What h11 does with headers that it understands: one Content-Length is left of several that agree."""
    seen, kept = set(), []
    for name, value in headers:
        if name == b"content-length" and name in seen:
            continue
        seen.add(name)
        kept.append((name, value.lower() if name == b"transfer-encoding" else value))
    return kept
