"""Which source files an app consists of, and whether one of them has changed (`--reload`)."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

log = logging.getLogger("unlimitedws.supervisor")

LOOK_EVERY_S = 0.5
MOST_OF_A_CPU = 0.05
"""A large working directory is looked at less often, so that looking takes no more than this share of a CPU."""

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})

Stamp = tuple[int, int]


def source_files() -> list[str]:
    """The .py files of all imported modules but those of Python itself and of installed packages."""
    standard = os.path.dirname(os.__file__) + os.sep
    files = {getattr(module, "__file__", None) for module in tuple(sys.modules.values())}
    return sorted(
        file for file in files
        if file and file.endswith(".py") and not file.startswith(standard)
        and "site-packages" not in file and "dist-packages" not in file
    )  # fmt: skip


def files_below(folder: Path) -> Iterator[str]:
    """The .py files below a folder, without hidden folders, caches and virtual environments."""
    for here, folders, names in os.walk(folder):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        yield from (os.path.join(here, name) for name in names if name.endswith(".py"))


def stamps(files: Iterable[str]) -> dict[str, Stamp]:
    """When each file was last written, and its size; files that are not there are left out."""
    found = {}
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            continue
        found[file] = (status.st_mtime_ns, status.st_size)
    return found


class SourceWatcher:
    """Calls `changed()` when a source file appeared, vanished or was written.

    imported: gives the files of the app's modules, wherever they are; all those below `folder` count too."""

    def __init__(self, folder: Path, imported: Callable[[], Iterable[str]], changed: Callable[[], object]) -> None:
        self.folder, self.imported, self.changed = folder, imported, changed
        self.seen = self.look()

    def look(self) -> dict[str, Stamp]:
        return stamps({*files_below(self.folder), *self.imported()})

    async def watch(self) -> None:
        """Looks until cancelled."""
        pause_s = LOOK_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            started = time.monotonic()
            self.compare(self.look())
            pause_s = max(LOOK_EVERY_S, (time.monotonic() - started) / MOST_OF_A_CPU)

    def compare(self, now: dict[str, Stamp]) -> None:
        before, self.seen = self.seen, now
        written = [file for file in now if file in before and now[file] != before[file]]
        # What a reload imports for the first time is no change; a file that is new in the working directory is.
        appeared = [file for file in now if file not in before and Path(file).is_relative_to(self.folder)]
        vanished = [file for file in before if file not in now]
        if changed := [*written, *appeared, *vanished]:
            log.info("%s changed%s", changed[0], f" and {len(changed) - 1} others" if len(changed) > 1 else "")
            self.changed()
