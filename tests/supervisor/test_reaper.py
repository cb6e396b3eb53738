"""Dead children are waited for; those of the embedding program are left to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.supervisor.running import ROOT
from unlimitedws.supervisor.reaper import children


def run_script(source: str) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


BEGIN = """
import os, signal, subprocess, time
from unlimitedws.supervisor.reaper import Reaper, become_subreaper, children

found = {}
def reap_until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        reaper.reap()
        time.sleep(0.01)
"""


def test_children_and_adopted_orphans_are_reaped_with_their_status() -> None:
    source = (
        BEGIN
        + """
become_subreaper()
reaper = Reaper(found.__setitem__)
child = os.fork()
if child == 0:
    os._exit(5)
read, write = os.pipe()
parent = os.fork()
if parent == 0:
    maker = os.getpid()
    orphan = os.fork()
    if orphan == 0:
        while os.getppid() == maker:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(write, str(orphan).encode())
    os._exit(0)
os.waitpid(parent, 0)
orphan = int(os.read(read, 20))
os.close(write)
reap_until(lambda: len(found) == 2)
print(found.pop(child), found.pop(orphan), found, children())
"""
    )
    assert run_script(source) == ["5", "-9", "{}", "set()"]


def test_a_child_that_the_program_had_before_keeps_its_exit_status_for_the_program() -> None:
    source = (
        BEGIN
        + """
programs = subprocess.Popen(["sh", "-c", "exit 4"])
reaper = Reaper(found.__setitem__)
ours = os.fork()
if ours == 0:
    os._exit(6)
reap_until(lambda: ours in found)
print(found == {ours: 6}, programs.wait())
"""
    )
    assert run_script(source) == ["True", "4"]


def test_after_an_upgrade_the_children_of_the_program_before_are_waited_for() -> None:
    source = (
        BEGIN
        + """
ours, programs = os.fork(), None
if ours == 0:
    os._exit(6)
programs = subprocess.Popen(["sh", "-c", "exit 4"])
reaper = Reaper(found.__setitem__, [ours])
reap_until(lambda: ours in found)
print(found == {ours: 6}, programs.wait())
"""
    )
    assert run_script(source) == ["True", "4"]


def test_without_a_list_of_children_every_child_is_reaped() -> None:
    source = (
        BEGIN
        + """
import unlimitedws.supervisor.reaper as module
module.children = lambda: None
reaper = Reaper(found.__setitem__)
pids = []
for code in (1, 2, 3):
    pids.append(os.fork())
    if pids[-1] == 0:
        os._exit(code)
reap_until(lambda: len(found) == 3)
print([found[pid] for pid in pids] == [1, 2, 3])
"""
    )
    assert run_script(source) == ["True"]


def test_a_kernel_that_lists_no_children_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "77").mkdir()
    assert children(tmp_path) is None
