"""The package installs without a compiler and says why; where the native engine must be there, a failure is one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOOD = "def answer():\n    return 42\n"
UNCOMPILABLE = 'cdef extern from "no_such_header_anywhere.h":\n    int nothing\ndef answer():\n    return nothing\n'
UNREADABLE = "def answer(:\n"

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("Cython") is None, reason="building needs Cython: pip install Cython"),
    pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="under a preloaded sanitizer, compilers are not what is tested"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of the same layout with a native engine of two lines."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    engine = tmp_path / "unlimitedws" / "engine"
    engine.mkdir(parents=True)
    for folder in (engine.parent, engine):
        (folder / "__init__.py").touch()
    (engine / "native.pyx").write_text(GOOD)
    return tmp_path


def build(tree: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("UNLIMITEDWS_")}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=tree, env=clean | environ, capture_output=True, text=True, timeout=150)


def answer(tree: Path) -> str:
    program = "from unlimitedws.engine.native import answer; print(answer())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() or done.stderr.splitlines()[-1]


def test_the_engine_is_compiled_next_to_its_source_and_nothing_else_is_left_there(tree: Path) -> None:
    done = build(tree)
    assert done.returncode == 0, done.stderr
    assert answer(tree) == "42"
    assert "-march" not in done.stdout
    left = {path.suffix for path in (tree / "unlimitedws" / "engine").iterdir() if path.is_file()}
    assert left == {".py", ".pyx", ".so"}


@pytest.mark.parametrize(("source", "why"), [(UNCOMPILABLE, "CompileError"), (UNREADABLE, "Cython could not translate")])
def test_a_failed_compile_is_explained_and_does_not_fail_the_install(tree: Path, source: str, why: str) -> None:
    (tree / "unlimitedws" / "engine" / "native.pyx").write_text(source)
    done = build(tree)
    assert done.returncode == 0, done.stderr
    assert "the native engine was NOT built" in done.stderr
    assert why in done.stderr
    assert "apt install gcc python3-dev" in done.stderr
    assert answer(tree) == "ModuleNotFoundError: No module named 'unlimitedws.engine.native'"


def test_a_missing_compiler_is_explained_and_does_not_fail_the_install(tree: Path) -> None:
    done = build(tree, CC="/nonexistent/gcc")
    assert done.returncode == 0, done.stderr
    assert "the native engine was NOT built" in done.stderr
    assert "/nonexistent/gcc" in done.stderr


def test_a_failed_compile_is_fatal_where_the_native_engine_is_asked_for(tree: Path) -> None:
    (tree / "unlimitedws" / "engine" / "native.pyx").write_text(UNCOMPILABLE)
    assert build(tree, UNLIMITEDWS_NATIVE="1").returncode != 0


def test_the_native_engine_can_be_left_out(tree: Path) -> None:
    (tree / "unlimitedws" / "engine" / "native.pyx").write_text(UNREADABLE)
    done = build(tree, UNLIMITEDWS_NATIVE="0")
    assert (done.returncode, list(tree.rglob("*.so"))) == (0, [])


@pytest.mark.parametrize(("name", "value"), [("UNLIMITEDWS_NATIVE", "yes"), ("UNLIMITEDWS_SANITIZE", "address -o x")])
def test_a_bad_build_switch_is_one_line_that_names_what_is_accepted(tree: Path, name: str, value: str) -> None:
    done = build(tree, **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name} cannot be {value!r}; accepted: ")


def test_a_sanitized_build_shares_no_object_with_a_plain_one(tree: Path) -> None:
    assert build(tree, UNLIMITEDWS_NATIVE="1").returncode == 0
    done = build(tree, UNLIMITEDWS_NATIVE="1", UNLIMITEDWS_SANITIZE="undefined")
    assert done.returncode == 0, done.stderr
    assert "-fsanitize=undefined" in done.stdout
    assert len(list((tree / "build").rglob("native*.o"))) == 2
