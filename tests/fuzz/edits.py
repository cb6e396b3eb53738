"""Fuzz target: `upgrade`, on heads that differ from a clean one in a few bytes.

Nearly every random head is refused early; what matters lies around the clean ones. The first byte of an
input chooses a head of `seeds.heads`; then come edits of three bytes: position, what to do, and the byte to do it with.
"""

from __future__ import annotations

from tests.fuzz import upgrade
from tests.fuzz.seeds import heads

HEADS = tuple(heads())
EDIT_BYTES = 3


def check(data: bytes) -> None:
    """Raises AssertionError where the parsers differ on the head that the edits make."""
    if data:
        upgrade.check(edited(HEADS[data[0] % len(HEADS)], data[1:]))


def edited(head: bytes, edits: bytes) -> bytes:
    """`head` with every whole edit applied, one after the other: replace, insert or delete a byte."""
    made = bytearray(head)
    for start in range(0, len(edits) - EDIT_BYTES + 1, EDIT_BYTES):
        position, action, byte = edits[start : start + EDIT_BYTES]
        at = slice(position, position + (action % 3 != 1))
        made[at] = b"" if action % 3 == 2 else bytes((byte,))
    return bytes(made)
