"""Which descriptors a child of the supervisor keeps."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from unlimitedws.supervisor import forking
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.descriptors import close_supervisors, open_descriptors, raise_limit
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
