"""What `make` says on a machine that lacks something, before it says anything else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed; Debian, Ubuntu: apt install make")


def make(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "UNLIMITEDWS_"))}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=clean | environ, capture_output=True, text=True, timeout=60)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A stand-in for an interpreter; the test writes what it does."""
    file = tmp_path / "python-of-the-test"
    file.touch(mode=0o755)
    return file


def test_the_list_names_every_target_that_people_use() -> None:
    listed = {line.split()[1] for line in make().stdout.splitlines()}
    assert listed >= {"run", "test", "check", "build", "dist", "docs", "docs-reference", "sanitize", "fuzz", "bench", "autobahn", "clean"}


def test_an_old_python_is_named_with_what_to_do(python: Path, tmp_path: Path) -> None:
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    done = make("run", f"PYTHON={python}", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert f"unlimitedws needs Python 3.11 or newer; '{python}' is Python 3.9.2." in done.stderr
    assert "make PYTHON=python3.12" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    done = make("test", "PYTHON=/nonexistent/python", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "'/nonexistent/python' is not there." in done.stderr


def test_a_python_without_venv_names_the_package(python: Path, tmp_path: Path) -> None:
    python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n')
    done = make("run", f"PYTHON={python}", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A set-up that is complete but for the native engine."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    for stamp in (".made", ".run", ".test"):
        (folder / stamp).touch()
    return folder


def test_tests_without_a_compiler_are_refused(venv: Path) -> None:
    done = make("test", f"VENV={venv}", CC="no-such-compiler-anywhere")
    assert done.returncode != 0
    assert "No C compiler, so the native engine cannot be built and tested. Debian, Ubuntu: apt install gcc" in done.stderr


def test_tests_without_the_headers_are_refused(venv: Path) -> None:
    python = venv / "bin" / "python"
    python.unlink()
    python.write_text('#!/bin/sh\ncase "$2" in *Python.h*) exit 1;; esac\nexit 0\n')
    python.chmod(0o755)
    done = make("test", f"VENV={venv}", CC="sh")
    assert done.returncode != 0
    assert "apt install python3-dev" in done.stderr


@pytest.mark.parametrize("target", ["test", "sanitize"])
def test_so_many_tests_run_at_once_as_one_says(target: str, venv: Path) -> None:
    assert "-m pytest -n 3 " in make("--dry-run", target, f"VENV={venv}", "JOBS=3").stdout
