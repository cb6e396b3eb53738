"""What a supervisor leaves to the program that replaces it: a document in a memfd, and the descriptors that it names.

A variable of the environment names the memfd. It is read once, and gone then: programs that the app starts never see it. The
same document goes to the program that is started for a check only (check.py), which answers in the same memfd.

    format, version, python        of the supervisor that wrote it
    pid                            whose it is; of a check: its parent's
    is_check
    signals, ours                  the signal mask to return to; the children of the process
    report, history                since when it serves, and the dashboard's last half hour
    listeners                      see listeners.py
    fleet                          see takeover.py

FORMAT covers all that two releases have to agree on: this document, the orders to templates, what workers are told and tell,
and the head of the stats table. (Its columns may differ, and so may what workers hand over to each other: handover.FORMAT.)
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

from unlimitedws.errors import UpgradeError
from unlimitedws.sources import UPGRADE_VARIABLE
from unlimitedws.supervisor import forking
from unlimitedws.supervisor.channel import Message

FORMAT = 1
NAME = "unlimitedws-upgrade"


def written(document: Message) -> int:
    """A memfd with a document."""
    memory = os.memfd_create(NAME, os.MFD_CLOEXEC)
    write(memory, document)
    return memory


def write(memory: int, document: Message) -> None:
    packed = json.dumps(document).encode("utf-8", "backslashreplace")
    os.ftruncate(memory, 0)
    os.lseek(memory, 0, os.SEEK_SET)
    with os.fdopen(memory, "wb", closefd=False) as file:
        file.write(packed)


def read(memory: int) -> Message:
    """Raises ValueError where it is no document."""
    os.lseek(memory, 0, os.SEEK_SET)
    with os.fdopen(memory, "rb", closefd=False) as file:
        document: Message = json.load(file)
    return document


def descriptors_of(packed: Any) -> Iterator[int]:
    """Every descriptor that a document, or a part of it, names under `inherited`."""
    if isinstance(packed, list):
        for item in packed:
            yield from descriptors_of(item)
    elif isinstance(packed, dict):
        for key, item in packed.items():
            if key == "inherited":
                yield from item.values() if isinstance(item, dict) else item
            else:
                yield from descriptors_of(item)


class Inheritance:
    """What was left to this program. memory: the memfd.  descriptors: those that came with it."""

    def __init__(self, memory: int, document: Message) -> None:
        self.memory, self.document = memory, document
        self.is_check: bool = document["is_check"]
        self.descriptors = frozenset(() if self.is_check else descriptors_of(document))

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Inheritance | None:
        """Takes it out of the environment; None: this is a start like any other.

        Raises UpgradeError where it is another process's, or of a release that this one cannot follow."""
        memory = memory_of(environ.pop(UPGRADE_VARIABLE, ""))
        if memory is None:
            return None
        os.set_inheritable(memory, False)
        document = read(memory)
        if document["format"] != FORMAT:
            raise UpgradeError(
                f"unlimitedws {document['version']} leaves its server in format {document['format']}, and this release takes over "
                f"from format {FORMAT}; restart the server instead"
            )
        if document["pid"] != (os.getppid() if document["is_check"] else os.getpid()):
            raise UpgradeError(f"{UPGRADE_VARIABLE} is meant for another process than this ({document['pid']}); unset it")
        found = cls(memory, document)
        for fd in found.descriptors:
            os.set_inheritable(fd, False)
        if not found.is_check:
            os.close(memory)
        return found

    def __getitem__(self, part: str) -> Any:
        return self.document[part]

    def answer(self, **facts: str) -> NoReturn:
        """Ends a check that has found nothing wrong; nothing that follows in this program is run."""
        write(self.memory, {"checked": facts})
        forking.end(0)

    def unblock_signals(self) -> None:
        """What came since the exec is handled now."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self["signals"])

    def __str__(self) -> str:
        """Who wrote it."""
        return f"unlimitedws {self['version']}, Python {self['python']}"


def memory_of(number: str) -> int | None:
    """The memfd of that number; None where it is something else: the variable is a stranger's, or left over."""
    try:
        is_ours = os.readlink(f"/proc/self/fd/{int(number)}").startswith(f"/memfd:{NAME}")
    except (OSError, ValueError):
        return None
    return int(number) if is_ours else None
