"""Under which names a server answers that is not for web pages of others.

A page that you visit may make its own name resolve to your machine (DNS rebinding): to the browser, an endpoint there that
asks nobody who he is then belongs to that page, which can read it. The Host header gives that away, as it has the page's
name. An address cannot be rebound, nor can localhost.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")  # RFC 9110, section 7.2


class Hostnames:
    """Host names, separated by commas, as well as every address and `localhost` with the names below it.

    own: what is listened on; where that is a name, it is one more.  Raises ValueError, which names the item of `text` and says
    what would be right."""

    def __init__(self, text: str, own: str = "") -> None:
        self.names = {own.lower(), *(checked(item.strip()) for item in text.split(",") if item.strip())}

    def __contains__(self, host: str) -> bool:
        """host: a Host header, perhaps with a port, which does not matter here."""
        if (found := HOST.fullmatch(host.lower())) is None:
            return False
        name = (found[1] or found[2]).removesuffix(".")
        return name in self.names or name == "localhost" or name.endswith(".localhost") or is_address(name)


def checked(item: str) -> str:
    name = item.lower().removesuffix(".")
    if not NAME.fullmatch(name) and not is_address(name):
        raise ValueError(f"{item!r} is no host name; write names alone, without scheme, port and patterns: stats.example.com")
    return name


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
