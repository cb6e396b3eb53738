"""How this process was started, and so how it can be started again: the same command, from what is on the disk by then.

    unlimitedws serve app:handlers     a script that the kernel started by its first line: again by it, which may name
                                       another interpreter by then
    python [options] script ...        sys.executable, as a path: where a link or a folder of it has changed, so has
    python [options] -m module ...     the interpreter, and with it its packages

The working directory is the one of the start, by the name that the shell had for it (PWD): of a release that is
replaced by pointing a link elsewhere it is then the new one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlimitedws.errors import UnlimitedwsError

AT_EXECFN = 31  # <elf.h>: the file that was executed; a script's own name, not its interpreter's
TAKES_NEXT = frozenset("WX")
ENDS = frozenset("cm")


class NotAgain(Exception):
    """This program cannot be started again; says why."""


@dataclass(frozen=True, slots=True)
class Program:
    """command: what to execute, and its arguments.  folder: where."""

    command: tuple[str, ...]
    folder: str

    @classmethod
    def of_this_process(cls) -> Program:
        """Raises NotAgain."""
        return cls(tuple(command(sys.orig_argv, sys.executable, executed())), folder(os.environ.get("PWD", "")))


def command(original: Sequence[str], interpreter: str, executed: str) -> list[str]:
    """The command line of a process started as `original`, whose execve(2) named `executed`. Raises NotAgain."""
    what = subject(original)
    if what is None or what == "-":
        raise NotAgain("it was not started from a file but typed in, or read from a pipe; write it into a script")
    if what == "-c":
        raise NotAgain("it was started by python -c (or is a child of multiprocessing); write it into a script")
    if executed in original[1:] and is_script(executed):
        return [executed, *original[original.index(executed, 1) + 1 :]]
    if not interpreter:
        raise NotAgain("Python does not know its own executable; is it embedded in another program?")
    return [interpreter, *original[1:]]


def subject(original: Sequence[str]) -> str | None:
    """What a command line of Python runs: a script's name, "-m", "-c" or "-" (standard input); None: nothing, so it asks."""
    arguments = iter(original[1:])
    for argument in arguments:
        if not argument.startswith("-") or argument == "-":
            return argument
        if argument == "--check-hash-based-pycs":
            next(arguments, None)
        elif not argument.startswith("--") and (found := option(argument[1:], arguments)):
            return found
    return None


def option(letters: str, following: Iterator[str]) -> str:
    """Of options written in one word: "-m" or "-c" where one of them ends the options, else "". Takes what belongs to the last one."""
    for place, letter in enumerate(letters):
        if letter in ENDS:
            return f"-{letter}"
        if letter in TAKES_NEXT:
            if place == len(letters) - 1:
                next(following, None)
            break
    return ""


def is_script(file: str) -> bool:
    try:
        with open(file, "rb") as script:
            return script.read(2) == b"#!"
    except OSError:
        return False


def executed() -> str:
    """The file that this process executed, as it was named; "" where the C library does not tell."""
    try:
        libc = ctypes.CDLL(None)
        libc.getauxval.restype = ctypes.c_ulong
        libc.getauxval.argtypes = [ctypes.c_ulong]
        address = libc.getauxval(AT_EXECFN)
    except AttributeError:
        return ""
    return os.fsdecode(ctypes.string_at(address)) if address else ""


def folder(named: str) -> str:
    """The working directory, by the name that it was given where that still leads there. Raises UnlimitedwsError where it is gone."""
    try:
        if named and Path(named).samefile("."):
            return named
    except OSError:
        pass
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise UnlimitedwsError("the working directory is gone; cd to one that is there") from None
