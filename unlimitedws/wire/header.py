"""Header lines as an app gives them: checked, then packed (RFC 9110, section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""What an app may give: a mapping, or pairs where a name comes more than once."""

NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")  # ASCII only; clients read the rest in different ways


def checked_headers(given: Headers, *, ours: frozenset[str] = frozenset()) -> tuple[tuple[str, str], ...]:
    """`given` as pairs of name and value. ours: names in lowercase that only the server may write.

    Raises TypeError for what is no pair of strings, ValueError for what cannot be sent. The errors never show a value."""
    pairs = tuple(given.items() if isinstance(given, Mapping) else given)
    for pair in pairs:
        check_header(pair)
        if pair[0].lower() in ours:
            raise ValueError(f"header {pair[0]} is written by the server; leave it out")
    return pairs


def check_header(pair: object) -> None:
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise TypeError("headers are a mapping, or pairs of a name and a value, both str")
    name, value = pair
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no header name (a token of RFC 9110: letters, digits, !#$%&'*+-.^_`|~)")
    if not VALUE.fullmatch(value):
        raise ValueError(f"the value of header {name} holds what no header may: a control character, outer white space, or not ASCII")


def quoted(text: str) -> str:
    """`text` as a quoted-string (RFC 9110, section 5.6.4). Raises ValueError for what cannot stand in one."""
    if not isinstance(text, str) or not VALUE.fullmatch(text):
        raise ValueError(f"{text!r} cannot stand in a header: it is not ASCII, or has control characters or outer white space")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def pack_headers(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Lines ready to be sent, each with its CRLF. pairs: as `checked_headers` gives them."""
    return "".join([f"{name}: {value}\r\n" for name, value in pairs]).encode("ascii")
