"""How a process was started, from what Python and the kernel say of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervisor.running import ROOT
from unlimitedws.supervisor.program import NotAgain, command, folder, subject

PYTHON = "/venv/bin/python"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("python -m unlimitedws app", "-m"),
        ("python -munlimitedws app", "-m"),
        ("python -Im unlimitedws app", "-m"),
        ("python -W error -X dev -Xutf8 launcher.py -c", "launcher.py"),
        ("python -WXm launcher.py", "launcher.py"),
        ("python -OO launcher.py -m", "launcher.py"),
        ("python --check-hash-based-pycs never launcher.py", "launcher.py"),
        ("python -c code", "-c"),
        ("python -Ic code", "-c"),
        ("python -", "-"),
        ("python -i -W", None),
        ("python", None),
    ],
)
def test_what_a_command_line_runs(line: str, what: str | None) -> None:
    assert subject(line.split()) == what


def test_the_same_arguments_go_to_the_interpreter_of_the_path() -> None:
    line = ["python", "-X", "dev", "-m", "unlimitedws", "app:handlers", "--port", "80"]
    assert command(line, PYTHON, "/usr/bin/python3") == [PYTHON, *line[1:]]


def test_a_script_that_was_executed_is_executed_again(tmp_path: Path) -> None:
    script = tmp_path / "serve"
    script.write_text("#!/one/python -I\n")
    line = ["/one/python", "-I", str(script), "app:handlers", str(script)]
    assert command(line, "/one/python", str(script)) == [str(script), "app:handlers", str(script)]
    assert command(line, "/one/python", "/one/python") == ["/one/python", *line[1:]]  # started as `python -I serve`


@pytest.mark.parametrize("line", ["python", "python -", "python -c code", "python -i"])
def test_a_program_without_a_file_cannot_be_started_again(line: str) -> None:
    with pytest.raises(NotAgain, match="write it into a script"):
        command(line.split(), PYTHON, "/usr/bin/python3")


def test_a_python_that_does_not_know_where_it_is_cannot_be_started_again() -> None:
    with pytest.raises(NotAgain, match="embedded"):
        command(["server", "launcher.py"], "", "/usr/bin/server")


def test_a_process_knows_its_own(tmp_path: Path) -> None:
    script = tmp_path / "itself"
    script.write_text(f"#!{sys.executable}\nfrom unlimitedws.supervisor.program import Program\nprint(Program.of_this_process())\n")
    script.chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PWD": str(tmp_path)}
    for line in ([str(script), "an argument"], [sys.executable, "-Xutf8", str(script)]):
        said = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True).stdout
        assert said.strip() == f"Program(command={tuple(line)}, folder={str(tmp_path)!r})"


def test_the_folder_keeps_the_name_that_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, link = tmp_path / "release-1", tmp_path / "current"
    here.mkdir()
    link.symlink_to(here)
    monkeypatch.chdir(here)
    assert folder(str(link)) == str(link)
    assert folder(str(tmp_path)) == str(here)  # another one: somebody changed the directory
    assert folder(str(tmp_path / "gone")) == str(here)
    assert folder("") == str(here)
