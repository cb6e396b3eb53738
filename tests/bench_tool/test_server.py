"""Memory and CPU of a tree of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.serving import eventually
from unlimitedws.bench.server import Server, Usage, cpu_ns, tree
from unlimitedws.errors import BenchError

CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"


def test_a_tree_is_a_process_and_all_below_it() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(tree(process.pid)) == 2
        server = Server(process.pid)
        memory = server.memory()
        assert memory is not None
        assert memory.processes == 2
        assert 0 < memory.pss <= memory.rss
        process.communicate(b"\n")
        assert (server.is_there(), server.memory()) == (False, None)


def test_cpu_time_grows_and_is_shared_out_over_the_time_in_between() -> None:
    server = Server(os.getpid())
    before = server.usage()
    eventually(lambda: sum(range(1000)) and time.process_time_ns() and (cpu_ns(os.getpid()) or 0) > before.cpu_ns[os.getpid()])
    assert server.usage().since(before)[os.getpid()] > 0


def test_a_process_that_is_new_counts_from_its_beginning() -> None:
    assert Usage(2_000, {1: 500, 2: 250}).since(Usage(1_000, {1: 400})) == {1: 0.1, 2: 0.25}


def test_a_process_that_is_not_there_is_an_error() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(BenchError, match="no such process"):
        Server(ended.pid)
    assert cpu_ns(ended.pid) is None
