"""Writes docs/reference from the code that it describes: `make docs-reference`. A test holds the pages to it."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from unlimitedws.commands import metavar, shown  # noqa: E402  (the path comes first)
from unlimitedws.config import DEFAULTS, accepted, flag, kind, settings, variable  # noqa: E402
from unlimitedws.engine.counters import ENGINE, WORKER, Field  # noqa: E402
from unlimitedws.wire.closing import Cause  # noqa: E402

FOLDER = ROOT / "docs" / "reference"

SETTINGS = """# Settings

Each setting has four spellings: a flag of `unlimitedws serve`, an environment variable, a key of the TOML file that
`--config FILE` (or `UNLIMITEDWS_CONFIG`) names, and a keyword argument of `Config`, `Supervisor` and `Server`. Later ones win:

    default < file < environment < flag < keyword argument

`unlimitedws serve --print-config` shows every value and where it came from. An unknown name and a value that is not accepted
are errors. The unit is the end of the name: `_s` seconds, `_per_s` a number each second, `_bytes` bytes, none: a number of
the thing named. Sizes may be written in text as `64k`, `1MiB` or `2g`, in powers of 1024; switches as `true`, `false`, `yes`,
`no`, `on`, `off`, `1`, `0`.

`UNLIMITEDWS_APP` names the app where the command line does not.
"""

COUNTERS = """# Counters

What each worker counts, under these names in `/stats`. A *counter* only grows, and a worker that was replaced leaves its
counters to its slot; a *gauge* is the value now.
"""

CLOSING = """# Why connections end

Each end of a connection has exactly one cause: handed to `on_close` as `close.cause`, and counted in `/stats`. The close
*code* is what went over the wire; the cause is why, as the server saw it.

| cause | meaning |
|---|---|
"""


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"wrote {(FOLDER / name).relative_to(ROOT)}")


def pages() -> dict[str, str]:
    """File name to text of every page."""
    return {"settings.md": settings_page(), "counters.md": counters_page(), "closing.md": closing_page()}


def settings_page() -> str:
    parts = [SETTINGS]
    for group, names in groupby(settings(), key=lambda name: settings()[name].group):
        parts.append(f"\n## {group.capitalize()}\n")
        parts.extend(f"\n{setting_entry(name)}" for name in names)
    return "".join(parts)


def setting_entry(name: str) -> str:
    about = settings()[name]
    zero = f" 0: {about.zero}." if about.zero else ""
    empty = f" Empty: {about.empty}." if about.empty else ""
    default = shown(DEFAULTS[name]) or "empty"
    usage = f"{flag(name)}, {flag('no_' + name)}" if kind(name) is bool else f"{flag(name)} {metavar(name)}"
    values = accepted(name).partition(";")[0].partition(" (")[0]
    return (
        f"### {name}\n\n{about.help[0].upper()}{about.help[1:]}.{zero}{empty}\n\n"
        f"- default: `{default}`\n- accepted: {values}\n- flag: `{usage}`\n- variable: `{variable(name)}`\n"
    )


def counters_page() -> str:
    return COUNTERS + "".join(["\n## Of the engine\n\n", counters_table(ENGINE), "\n## Of the worker\n\n", counters_table(WORKER)])


def counters_table(fields: tuple[Field, ...]) -> str:
    rows = [f"| `{field.name}` | {field.kind} | {field.unit} | {field.help} |\n" for field in fields]
    return "| name | kind | unit | meaning |\n|---|---|---|---|\n" + "".join(rows)


def closing_page() -> str:
    return CLOSING + "".join(f"| `{cause.value}` | {cause.help} |\n" for cause in Cause)


if __name__ == "__main__":
    main()
