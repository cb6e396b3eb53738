"""What psutil and /proc say of a process."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import NoReturn

import psutil
import pytest

from unlimitedws.supervisor.sampler import Sample, Sampler, descriptors, memory


def test_a_process_is_sampled() -> None:
    sample = Sampler().sample([os.getpid()])[os.getpid()]
    assert sample.rss_bytes is not None
    assert sample.pss_bytes is not None
    assert 1 << 20 < sample.pss_bytes <= sample.rss_bytes
    assert sample.cpu_seconds > 0
    assert sample.descriptors in (None, len(os.listdir("/proc/self/fd")) - 1)


def test_where_no_file_can_be_opened_nothing_is_known_for_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    taker, other = Sampler(), Sampler()
    taker.sample([os.getpid()])

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(psutil.Process, "cpu_percent", refuse)
        patched.setattr(psutil.Process, "__init__", refuse)
        assert taker.sample([os.getpid()], at_most_every_s=0) == {}
        assert other.sample([os.getpid()], at_most_every_s=0) == {}
    assert os.getpid() in taker.sample([os.getpid()], at_most_every_s=0)
    assert os.getpid() in other.sample([os.getpid()], at_most_every_s=0)


def test_cpu_percent_is_since_the_sample_before() -> None:
    taker = Sampler()
    taker.sample([os.getpid()], at_most_every_s=0)
    burnt = os.times().user
    while os.times().user - burnt < 0.1:
        pass
    assert taker.sample([os.getpid()], at_most_every_s=0)[os.getpid()].cpu_percent > 10


def test_asking_often_does_not_sample_often(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    taker = Sampler()
    take = taker.take

    def noted(pid: int) -> Sample | None:
        taken.append(pid)
        return take(pid)

    monkeypatch.setattr(taker, "take", noted)
    for _ in range(10):
        taker.sample([os.getpid()], at_most_every_s=60)
    assert taken == [os.getpid()]


def test_where_sampling_takes_long_it_is_done_seldom() -> None:
    taker = Sampler()
    assert taker.pause_s == 1.0
    taker.took_s = 0.2
    assert taker.pause_s == 4.0


def test_a_new_process_is_sampled_at_once_and_a_dead_one_is_forgotten() -> None:
    taker = Sampler()
    taker.sample([os.getpid()], at_most_every_s=60)
    with subprocess.Popen(["sleep", "60"]) as child:
        assert set(taker.sample([os.getpid(), child.pid], at_most_every_s=60)) == {os.getpid(), child.pid}
        child.kill()
    assert set(taker.sample([os.getpid(), child.pid], at_most_every_s=0)) == {os.getpid()}
    taker.sample([os.getpid()], at_most_every_s=0)
    assert set(taker.processes) == {os.getpid()}


def test_a_process_that_is_gone_has_no_figures() -> None:
    assert memory(2**22 + 1) == (None, None)
    assert descriptors(2**22 + 1) is None


def test_the_folder_of_descriptors_is_never_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    listdir = os.listdir

    def noted(path: str = ".") -> list[str]:
        listed.append(str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", noted)
    Sampler().sample([os.getpid()])
    assert not [path for path in listed if path.endswith("/fd")]
