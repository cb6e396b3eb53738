"""What the benchmark needs besides Python: two C programs and the peers, all in build/bench."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build/bench"
PYTHON = BUILD / "venv/bin/python"
NODE_MODULES = BUILD / "node/node_modules"


class Missing(Exception):
    """Something that cannot be had on this machine; the text says why."""


def compile_tools() -> None:
    """Builds wsload (the load generator) and floor (the yardstick). Raises Missing."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise Missing("no C compiler for the load generator. Debian, Ubuntu: apt install gcc")
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("wsload", "floor"):
        source, program = HERE / f"{name}.c", BUILD / name
        if not program.exists() or program.stat().st_mtime < max(source.stat().st_mtime, (HERE / "wsproto.h").stat().st_mtime):
            run([compiler, "-std=gnu11", "-O3", "-march=native", "-Wall", "-Wextra", "-o", str(program), str(source), "-lm"])


def install_python(*packages: str) -> str:
    """Installs a peer from PyPI, with the uvloop that all of them run on; its version. Raises Missing."""
    if not PYTHON.exists():
        run([sys.executable, "-m", "venv", str(BUILD / "venv")])
    ask = f"from importlib.metadata import version; import uvloop, {packages[0]}; print(version({packages[0]!r}))"
    with suppress(Missing):
        return run([str(PYTHON), "-c", ask]).strip()
    run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uvloop", *packages])
    return run([str(PYTHON), "-c", ask]).strip()


def install_node(package: str) -> str:
    """Installs a peer from npm; its version. Raises Missing."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed")
    folder = NODE_MODULES.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not (NODE_MODULES / package).is_dir():
        run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder), package])
    return run(["node", "-p", f"require('{NODE_MODULES / package}/package.json').version"]).strip()


def run(command: Sequence[str]) -> str:
    """What a command prints. Raises Missing with its last words when it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())[-200:]
        raise Missing(f"{' '.join(command[:4])} ... failed: {words}")
    return done.stdout
