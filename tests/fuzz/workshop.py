"""What fuzzing needs: atheris in an environment of its own, and the codec compiled by clang with coverage and sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/fuzz"
PYTHON = BUILD / "venv/bin/python"
TREE = BUILD / "tree"
REQUIREMENTS = ("atheris>=2.3", "Cython>=3.1", "setuptools>=77", "wsproto>=1.2", "h11>=0.14", "uvloop", "psutil")
SANITIZERS = "fuzzer-no-link,address,undefined"

# What is compiled: the codec. Nothing else.
MODULES = ("codec", "head")
SOURCES = ("setup.py", "pyproject.toml", "LICENSE", "unlimitedws", "tests/fuzz", "tests/wire/second_opinion.py")

NOT_COMPILED = (
    "clang cannot compile the codec; it needs its run-time libraries and the headers of Python. "
    "Debian, Ubuntu: apt install clang libclang-rt-dev python3-dev"
)


class CannotFuzz(Exception):
    """Something is missing; the text says what to do."""


def prepare() -> None:
    """Makes the environment and the instrumented codec, as far as they are not there. Raises CannotFuzz."""
    if shutil.which("clang") is None:
        raise CannotFuzz("clang is needed, for a codec with coverage counters. Debian, Ubuntu: apt install clang libclang-rt-dev")
    make_environment()
    copy_tree()
    settings = {"UNLIMITEDWS_NATIVE": "1", "UNLIMITEDWS_SANITIZE": SANITIZERS, "CC": "clang", "LDSHARED": "clang -shared"}
    run([str(PYTHON), "setup.py", "--quiet", "build_ext", "--inplace"], NOT_COMPILED, settings, TREE)


def make_environment() -> None:
    stamp, wanted = BUILD / "venv/.requirements", "\n".join(REQUIREMENTS)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(BUILD / "venv", ignore_errors=True)
    run([sys.executable, "-m", "venv", str(BUILD / "venv")], "no virtual environment can be made. Debian, Ubuntu: apt install python3-venv")
    why = f"atheris cannot be installed for Python {sys.version.split()[0]}; another one can be named: PYTHON=python3.11 tests/fuzz/run"
    run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS], why)
    stamp.write_text(wanted)


def copy_tree() -> None:
    """A copy of the sources, so that the instrumented module never lies where a plain interpreter would load it."""
    for folder in ("unlimitedws", "tests"):
        shutil.rmtree(TREE / folder, ignore_errors=True)
    TREE.mkdir(parents=True, exist_ok=True)
    (TREE / "README.md").touch()  # pyproject.toml names it
    archive = BUILD / "tree.tar"
    with tarfile.open(archive, "w") as tar:
        for name in SOURCES:
            tar.add(ROOT / name, name, filter=wanted)
    with tarfile.open(archive) as tar:
        tar.extractall(TREE, filter="data")  # times are kept: what did not change is not compiled again
    archive.unlink()


def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = Path(member.name)
    other_module = path.suffix in (".pyx", ".pxd") and path.stem not in MODULES
    left_out = (
        path.suffix == ".so" or path.name == "__pycache__" or path.parts[:3] in (("tests", "fuzz", "corpus"), ("tests", "fuzz", "crashes"))
    )
    return None if other_module or left_out else member


def environment() -> dict[str, str]:
    """The variables under which the instrumented codec can be loaded: the sanitizer comes first."""
    runtime = next(BUILD.glob("venv/lib/python3.*/site-packages/asan_with_fuzzer.so"), None)
    if runtime is None:
        raise CannotFuzz("this build of atheris brings no sanitizer (asan_with_fuzzer.so); remove build/fuzz/venv and try again")
    return {
        "LD_PRELOAD": str(runtime),
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=32:abort_on_error=1:handle_abort=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",  # so that the sanitizer sees where an object ends
        "PYTHONPATH": str(TREE),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(command: Sequence[str], why: str, settings: Mapping[str, str] | None = None, folder: Path = ROOT) -> None:
    """Raises CannotFuzz with `why` and the last words of a command that fails."""
    environment = {**os.environ, **(settings or {})}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode != 0:
        raise CannotFuzz(f"{why}\n{done.stdout.strip()[-2000:]}")
