"""Which files are watched, and what counts as a change."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from unlimitedws.supervisor import watcher
from unlimitedws.supervisor.watcher import SourceWatcher, files_below, source_files, stamps


class Changes:
    def __init__(self, folder: Path, imported: list[str] | None = None) -> None:
        self.count = 0
        self.imported = imported or []
        self.watcher = SourceWatcher(folder, lambda: self.imported, self.changed)

    def changed(self) -> None:
        self.count += 1

    def look(self) -> int:
        """How many changes were told of so far."""
        self.watcher.compare(self.watcher.look())
        return self.count


def write(file: Path, text: str, mtime_ns: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, ns=(mtime_ns, mtime_ns))
    return file


def test_a_written_a_new_and_a_deleted_file_are_changes(tmp_path: Path) -> None:
    file = write(tmp_path / "app.py", "a", 1)
    changes = Changes(tmp_path)
    assert changes.look() == 0
    write(file, "b", 2)
    assert changes.look() == 1
    write(tmp_path / "package" / "new.py", "", 1)
    assert changes.look() == 2
    file.unlink()
    assert changes.look() == 3
    assert changes.look() == 3


def test_an_imported_module_elsewhere_counts_when_written_but_not_when_first_imported(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    module = write(elsewhere / "library.py", "a", 1)
    changes = Changes(here)
    changes.imported = [str(module)]
    assert changes.look() == 0
    write(module, "b", 2)
    assert changes.look() == 1


def test_other_files_hidden_folders_caches_and_environments_are_not_watched(tmp_path: Path) -> None:
    write(tmp_path / "app.py", "", 1)
    write(tmp_path / "notes.txt", "", 1)
    write(tmp_path / ".git" / "hook.py", "", 1)
    write(tmp_path / "node_modules" / "tool.py", "", 1)
    write(tmp_path / "__pycache__" / "app.py", "", 1)
    write(tmp_path / "env" / "lib" / "module.py", "", 1)
    write(tmp_path / "env" / "pyvenv.cfg", "", 1)
    assert list(files_below(tmp_path)) == [str(tmp_path / "app.py")]


def test_a_file_that_vanishes_while_we_look_is_left_out(tmp_path: Path) -> None:
    assert stamps([str(tmp_path / "never.py")]) == {}


def test_modules_of_python_and_of_installed_packages_are_not_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ModuleType("mine")
    mine.__file__ = str(tmp_path / "mine.py")
    compiled = ModuleType("compiled")
    compiled.__file__ = str(tmp_path / "compiled.so")
    monkeypatch.setitem(sys.modules, "mine", mine)
    monkeypatch.setitem(sys.modules, "compiled", compiled)
    files = source_files()
    assert mine.__file__ in files
    assert watcher.__file__ in files
    assert compiled.__file__ not in files
    assert os.__file__ not in files
    assert pytest.__file__ not in files
