"""The reference of the command line, and of what it ends with, from its parsers and the tree of errors."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator

from unlimitedws import errors
from unlimitedws.cli import INTERRUPTED
from unlimitedws.commands import COMMANDS, parser
from unlimitedws.config import DEFAULTS

ERRORS = """# Errors and exit codes

Whatever this package raises on purpose is an `UnlimitedwsError`, and says what to do next where that is known. Of the command line an
error is one line on stderr, and the exit code:

| exit code | meaning |
|---|---|
| 0 | stopped as it was told |
| 1 | another error: the address is taken, the engine is not there, no server was found |
| 2 | a setting or the command line is wrong; trying again will not help |
| 3 | the app cannot be served: it does not import, is none, or its `on_start` failed |
| 74 | what a command shows cannot be written: the disk is full, stdout is closed |
| {interrupted} | interrupted before the server took over the signals |
| 141 | whoever reads what a command shows has left, as `head -1` does: it ends by SIGPIPE, like other programs |

An indented name is a subclass of the one above it.

| error | exit code | meaning |
|---|---|---|
"""

COMMAND_LINE = """# Command line

`python -m unlimitedws ...` is the same program. `unlimitedws COMMAND --help` shows what follows here, and `unlimitedws --version` the
version. Every [setting](settings.md) is a flag of the commands that say so. [Exit codes](errors.md) are the same for all; what 1 means
of [`ctl`](ctl.md), [`doctor`](doctor.md) and [`bench`](bench.md), their pages say.

The server takes these signals, sent to its supervisor (the process that was started):

| signal | |
|---|---|
| `SIGTERM`, `SIGINT` | [a stop in steps](../how-to/stop-and-replace-workers.md); a second one ends it at once |
| `SIGHUP` | fresh code, [without a disconnect](../how-to/reload-without-a-disconnect.md) |
| `SIGUSR2` | [the supervisor replaced by a new one](../how-to/upgrade-without-a-disconnect.md), which keeps listeners and workers |
| `SIGTTIN`, `SIGTTOU` | [one worker more, one fewer](../how-to/scale-at-run-time.md) |
"""


def pages() -> dict[str, str]:
    """File name to text of each page."""
    return {"errors.md": errors_page(), "command-line.md": command_line_page()}


def errors_page() -> str:
    return ERRORS.format(interrupted=INTERRUPTED) + "".join(error_row(error, depth) for error, depth in tree(errors.UnlimitedwsError))


def tree(error: type[errors.UnlimitedwsError], depth: int = 0) -> Iterator[tuple[type[errors.UnlimitedwsError], int]]:
    yield error, depth
    for narrower in error.__subclasses__():
        if narrower.__module__ == errors.__name__:
            yield from tree(narrower, depth + 1)


def error_row(error: type[errors.UnlimitedwsError], depth: int) -> str:
    meaning = inspect.cleandoc(error.__doc__ or "").partition("\n")[0].rstrip(".")
    return f"| {'&emsp;' * depth}`{error.__name__}` | {error.exit_code} | {meaning[0].lower()}{meaning[1:]} |\n"


def command_line_page() -> str:
    return COMMAND_LINE + "".join(command_entry(name) for name in COMMANDS)


def command_entry(name: str) -> str:
    about = COMMANDS[name]
    actions = [action for action in parser_of(name)._actions if action.dest != "help"]
    serves = {action.dest for action in actions} >= DEFAULTS.keys()
    rows = [argument_row(action) for action in actions if not serves or action.dest not in DEFAULTS]
    parts = [f"\n## {name}\n\n```text\n{about.usage}\n```\n\n{about.help[0].upper()}{about.help[1:]}.\n"]
    if rows:
        parts.append("\n| argument | meaning |\n|---|---|\n" + "".join(rows))
    if serves:
        parts.append("\nAnd every [setting](settings.md).\n")
    return "".join(parts)


def parser_of(name: str) -> argparse.ArgumentParser:
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    found: argparse.ArgumentParser = commands.choices[name]
    return found


def argument_row(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    value = f" {action.metavar or action.dest.upper()}" if action.option_strings and action.nargs != 0 else ""
    return f"| `{escaped(names + value)}` | {escaped((action.help or '').replace('%%', '%'))} |\n"


def escaped(text: str) -> str:
    return text.replace("|", "\\|")
