"""Runs one fuzz target under atheris: `python -m tests.fuzz.target frames CORPUS ... -max_total_time=60`.

The codec is compiled with coverage counters, which guide the fuzzer; the Python twin is not instrumented.
"""

from __future__ import annotations

import importlib
import sys

import atheris

TARGETS = ("frames", "upgrade", "edits")


def main() -> None:
    name = sys.argv.pop(1)
    if name not in TARGETS:
        sys.exit(f"no fuzz target {name!r}; there are {', '.join(TARGETS)}")
    atheris.Setup(sys.argv, importlib.import_module(f"tests.fuzz.{name}").check)
    atheris.Fuzz()


main()
