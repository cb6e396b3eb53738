"""What one program leaves to the next in its process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.supervisor.running import ROOT
from unlimitedws.errors import UpgradeError
from unlimitedws.sources import UPGRADE_VARIABLE
from unlimitedws.supervisor.inheritance import FORMAT, Inheritance, descriptors_of, read, written


def document(**facts: Any) -> dict[str, Any]:
    return {"format": FORMAT, "version": "1.0", "python": "3.11", "pid": os.getpid(), "is_check": False, **facts}


@contextlib.contextmanager
def left(given: dict[str, Any]) -> Iterator[dict[str, str]]:
    """An environment that names the memfd with a document, which is closed by who takes it, or here."""
    memory = written(given)
    try:
        yield {UPGRADE_VARIABLE: str(memory), "OTHER": "1"}
    finally:
        with contextlib.suppress(OSError):
            os.close(memory)


def test_it_is_taken_once_and_its_descriptors_are_passed_on_to_nobody_else() -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    with left(document(fleet={"children": [{"inherited": {"channel": read_end}}]}, listeners={"inherited": [write_end]})) as environ:
        found = Inheritance.take(environ)
        assert environ == {"OTHER": "1"}
        assert found is not None
        assert found.descriptors == {read_end, write_end}
        assert not os.get_inheritable(read_end)
        assert str(found) == "unlimitedws 1.0, Python 3.11"
        assert Inheritance.take(environ) is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(found.memory)
    os.close(read_end)
    os.close(write_end)


def test_another_format_is_refused_and_says_what_to_do() -> None:
    with left(document(format=FORMAT + 1)) as environ, pytest.raises(UpgradeError, match=f"in format {FORMAT + 1}.*restart the server"):
        Inheritance.take(environ)


def test_that_of_another_process_is_refused() -> None:
    with left(document(pid=os.getppid())) as environ, pytest.raises(UpgradeError, match="meant for another process"):
        Inheritance.take(environ)


@pytest.mark.parametrize("value", ["", "none", "0", "999999"])
def test_a_variable_that_names_nothing_of_ours_is_ignored(value: str) -> None:
    environ = {UPGRADE_VARIABLE: value}
    assert Inheritance.take(environ) is None
    assert not environ


def test_a_check_answers_in_the_same_place_and_runs_nothing_that_follows() -> None:
    source = (
        "import os; from unlimitedws.supervisor.inheritance import *; Inheritance.take(os.environ).answer(version='2.0'); print('more')"
    )
    memory = written(document(is_check=True))
    try:
        env = {**os.environ, "PYTHONPATH": str(ROOT), UPGRADE_VARIABLE: str(memory)}
        done = subprocess.run([sys.executable, "-c", source], env=env, pass_fds=[memory], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert read(memory) == {"checked": {"version": "2.0"}}
    finally:
        os.close(memory)


def test_descriptors_are_found_wherever_they_are() -> None:
    assert list(descriptors_of({"a": [{"inherited": [3, 4]}, {"b": {"inherited": {"c": 5}}}], "descriptors": 6, "d": None})) == [3, 4, 5]
