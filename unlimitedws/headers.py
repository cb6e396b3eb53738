"""What a request says in names and values: its headers, its query."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import parse_qsl


@lru_cache(maxsize=256)
def finder(name: bytes) -> Callable[[bytes], list[bytes]]:
    """Finds the value of each line of the header `name` in a head; white space behind a value is left on.

    A search without regard to case costs half a microsecond; of a head in lowercase it would be more."""
    return re.compile(rb"\r\n" + re.escape(name) + rb":[ \t]*([^\r]*)", re.IGNORECASE).findall


def header_lines(head: bytes, name: bytes) -> list[bytes]:
    """The value of each line of the header `name`, without outer white space."""
    return [value.rstrip(b" \t") for value in finder(name)(head)]


class Headers(Mapping[str, str]):
    """The headers of one request head; names without regard to case. Reads them where they lie, when asked.

    A name that comes on several lines gives all their values in one, as RFC 9110, section 5.3, reads them:
    `", "` between them (`"; "` for Cookie); `get_all` gives each. Values are read as Latin-1, which never fails.

    head: has passed the strict check of `wire.head`, which is why it is searched here and not parsed."""

    __slots__ = ("_head",)

    def __init__(self, head: bytes) -> None:
        self._head = head

    def items_of(self, name: str) -> list[str]:
        """The items of the comma-separated lists in the header `name`, empty ones left out."""
        items = (item.strip(" \t") for value in self.get_all(name) for item in value.split(","))
        return [item for item in items if item]

    def get_all(self, name: str) -> list[str]:
        """The value of each line of the header `name`, in their order; empty where there is none."""
        try:
            wanted = name.encode("ascii")
        except UnicodeEncodeError:
            return []
        if b":" in wanted or b"\r" in wanted:  # it would match more than a name
            return []
        return [value.decode("latin-1") for value in header_lines(self._head, wanted)]

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return (", " if name.lower() != "cookie" else "; ").join(values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        lines = self._head[:-4].lower().split(b"\r\n")[1:]
        return iter(dict.fromkeys(line.partition(b":")[0].decode("ascii") for line in lines))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Headers: {', '.join(self)}>"  # values may be secret


class Query(Mapping[str, str]):
    """The query of a request target, decoded; a name that comes several times gives its first value.

    Bytes that are not UTF-8 become U+FFFD."""

    __slots__ = ("_values",)

    def __init__(self, query: str) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
            self._values.setdefault(name, []).append(value)

    def get_all(self, name: str) -> list[str]:
        """Every value of `name`, in their order; empty where there is none."""
        return list(self._values.get(name, ()))

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Query: {', '.join(self)}>"
