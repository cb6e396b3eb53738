"""Tracebacks for the app's author: the frames of their code, without ours and the importer's."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

PACKAGE = str(Path(__file__).parent) + os.sep


def report(error: BaseException) -> str:
    """`error` as Python prints it, without the frames that are not the app's; its causes likewise."""
    summary = traceback.TracebackException.from_exception(error, capture_locals=False)
    trim(summary)
    return "".join(summary.format()).rstrip()


def trim(summary: traceback.TracebackException) -> None:
    kept = [frame for frame in summary.stack if not is_machinery(frame.filename)]
    summary.stack = traceback.StackSummary.from_list(kept)
    for linked in (summary.__cause__, summary.__context__):
        if linked is not None:
            trim(linked)


def is_machinery(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", PACKAGE)) or filename.endswith("importlib/__init__.py")
