"""Which descriptors a child of the supervisor keeps."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from unlimitedws.errors import ProcMissing, TooFewFiles
from unlimitedws.supervisor import forking
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.descriptors import check_limit, close_supervisors, hold_standard, open_descriptors, raise_limit
from unlimitedws.supervisor.stats_table import StatsTable

# Forked children end without Python code that another thread could have left in the middle of something.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_sockets_pidfds_and_the_table_go_and_files_pipes_and_what_was_there_before_stay(tmp_path: Path) -> None:
    before = socket.socket()
    kept = frozenset(open_descriptors())
    listener, table = socket.create_server(("127.0.0.1", 0)), StatsTable.create(1)
    pidfd = os.pidfd_open(os.getpid())
    one, other = Channel.pair()
    pipe = os.pipe()
    with (tmp_path / "log").open("w") as log:

        def check() -> NoReturn:
            close_supervisors(keep=kept | {other.fileno()})
            gone = [listener.fileno(), table.fd, pidfd, one.fileno()]
            stay = [0, 1, 2, before.fileno(), other.fileno(), log.fileno(), *pipe]
            forking.end(0 if all(map(is_open, stay)) and not any(map(is_open, gone)) else 1)

        _, status = os.waitpid(forking.fork(check), 0)
    assert status == 0
    for fd in (pidfd, *pipe):
        os.close(fd)
    for end in (before, listener, table, one, other):
        end.close()


def test_the_limit_is_raised_to_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def check() -> NoReturn:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        forking.end(0 if raise_limit() == hard and resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard) else 1)

    _, status = os.waitpid(forking.fork(check), 0)
    assert status == 0


def test_a_limit_too_low_for_any_server_says_what_is_needed_and_where_to_raise_it() -> None:
    check_limit(33, 1, 1)
    check_limit(resource.RLIM_INFINITY, 1, 1)
    with pytest.raises(TooFewFiles, match=r"1 worker and their supervisor need 33 open files each, and the limit is 32: raise .*ulimit -n"):
        check_limit(32, 1, 1)
    with pytest.raises(TooFewFiles, match=r"100 workers and .* need 424 open files each, and the limit is 256: .*fewer --workers") as low:
        check_limit(256, 100, 2)
    assert (low.value.limit, low.value.needed, low.value.workers) == (256, 424, 100)


def test_closed_standard_descriptors_lead_nowhere_and_open_ones_stay(tmp_path: Path) -> None:
    stays = (tmp_path / "stays").open("w")

    def check() -> NoReturn:
        os.dup2(stays.fileno(), 1)
        os.close(0)
        os.close(2)
        hold_standard()
        with socket.socket() as later:
            is_above = later.fileno() > 2
        kinds = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]
        fine = is_above and kinds == [os.devnull, stays.name, os.devnull] and all(map(os.get_inheritable, range(3)))
        forking.end(0 if fine else 1)

    _, status = os.waitpid(forking.fork(check), 0)
    stays.close()
    assert status == 0


def test_without_proc_it_says_what_to_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda path: os.scandir(f"/nowhere{path}"))
    with pytest.raises(ProcMissing, match="mount -t proc proc /proc"):
        open_descriptors()
