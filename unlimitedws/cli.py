"""The command line's front: `unlimitedws serve module:attribute`.

`python -m unlimitedws APP` and `python -m unlimitedws.supervisor APP` mean the same as `unlimitedws serve APP`, and
`python -m unlimitedws COMMAND` as `unlimitedws COMMAND`.
A mistake of the operator ends with one line that says what to do next, and the exit code of its error.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Sequence

from unlimitedws import output, requirements
from unlimitedws.errors import OutOfResources, OutputFailed, UnlimitedwsError

INTERRUPTED = 130  # what shells report for a program that SIGINT ended


def main(arguments: Sequence[str] | None = None, *, serves: bool = False) -> int:
    """Runs a command line and gives its exit code. arguments: without the program's name; sys.argv's by default.

    serves: what names no command is an app to be served."""
    try:
        requirements.check()
        # Only now: what it imports does not exist on an older Python, and would say so less kindly.
        from unlimitedws import commands

        given = sys.argv[1:] if arguments is None else arguments
        return commands.run(commands.serving(given) if serves else given)
    except OutputFailed as error:
        output.give_up()
        if error.errno == errno.EPIPE:
            return output.end_as_a_filter()
        return complain(error)
    except UnlimitedwsError as error:
        return complain(error)
    except (OSError, MemoryError) as error:
        if (exhausted := OutOfResources.of(error)) is None:
            raise  # a defect: its traceback says where
        return complain(exhausted)
    except KeyboardInterrupt:  # before the supervisor took the signals over
        return INTERRUPTED


def complain(error: UnlimitedwsError) -> int:
    """One line on stderr, where that leads somewhere; the exit code."""
    if sys.stderr is not None:  # print() would take stdout instead
        with contextlib.suppress(OSError):
            print(f"unlimitedws: {error}", file=sys.stderr)
    return error.exit_code


def serve_main() -> int:
    """`python -m unlimitedws APP ...`: as if `unlimitedws serve APP ...` had been typed, unless a command comes first."""
    return main(serves=True)
