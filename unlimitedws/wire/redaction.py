"""What of a request target may be shown in a log."""

from __future__ import annotations

HIDDEN = "***"


def redacted(target: str | bytes) -> str:
    """A request target with every value of its query hidden: `/chat?token=***&room=***`.

    All of them, not a list of known names: the one that is missing in the list would be the leak."""
    text = target.decode("ascii", "backslashreplace") if isinstance(target, bytes) else target
    path, mark, query = text.partition("?")
    return path + mark + "&".join(map(hidden, query.split("&"))) if query else path + mark


def hidden(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return name + equals + HIDDEN if equals else HIDDEN  # without "=" all of it may be the secret
