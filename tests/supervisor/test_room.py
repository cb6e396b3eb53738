"""Room for how many more."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from unlimitedws.config import Config
from unlimitedws.memory import Memory
from unlimitedws.supervisor.room import KERNEL_BYTES, PROCESS_BYTES, Held, room

LIMIT = 1000


class Plenty(Memory):
    """A machine with as much memory as is said; None: it does not tell."""

    def __init__(self, available_bytes: int | None = 1 << 50) -> None:
        self.left = available_bytes

    def available_bytes(self) -> int | None:
        return self.left


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (LIMIT, LIMIT))


def left(*workers: Held, memory: Memory | None = None, files: str = "", folder: Path, **settings: int) -> tuple[int, str]:
    file = folder / "file-nr"
    file.write_text(files or "0 0 9223372036854775807\n")
    return tuple(room(workers, Config(**settings), memory or Plenty(), file))  # type: ignore[arg-type, return-value]


def test_descriptors_of_all_workers_are_counted_or_where_untold_their_connections(tmp_path: Path) -> None:
    assert left(Held(10, 30), Held(20, None), folder=tmp_path) == (970 + 980, "descriptors")
    assert left(Held(10, LIMIT + 5), folder=tmp_path) == (0, "descriptors")


def test_the_limit_that_comes_first_is_named(tmp_path: Path) -> None:
    worker = Held(10, 30)
    assert left(worker, folder=tmp_path, max_connections=50) == (40, "max_connections")
    assert left(worker, worker, folder=tmp_path, max_connections_total=25) == (5, "max_connections_total")
    assert left(worker, folder=tmp_path, files="900 0 907") == (7, "files")
    assert left(worker, folder=tmp_path, memory=Plenty(3 * (KERNEL_BYTES + PROCESS_BYTES) + 1)) == (3, "memory")


def test_what_the_kernel_does_not_tell_limits_nothing(tmp_path: Path) -> None:
    assert left(Held(0, 0), folder=tmp_path, memory=Plenty(None), files="nonsense") == (LIMIT, "descriptors")


def test_without_a_worker_there_is_no_room(tmp_path: Path) -> None:
    assert left(folder=tmp_path) == (0, "descriptors")
