"""Every block of code of every page, and of each README, is what it says it is, and every app in them serves."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.checks.signing import jwk, write_keys
from tests.docs.kinds import KINDS, unknown
from tests.docs.pages import DOCS, PAGES, Block, all_blocks, modules
from tests.serving import Served, eventually, served
from unlimitedws.app import App

READMES = ("../README.md", "../examples/README.md", "../deploy/README.md")
WRITTEN = (*PAGES, *READMES)
BLOCKS = [block for page in WRITTEN for block in all_blocks(page)]
PYTHON = [(page, number, *module) for page in WRITTEN if not page.startswith("reference/") for number, module in enumerate(modules(page))]


@pytest.mark.parametrize("page", WRITTEN)
def test_every_block_is_of_a_kind_that_can_be_judged(page: str) -> None:
    assert list(unknown(all_blocks(page))) == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in KINDS], ids=str)
def test_every_block_is_what_it_says(block: Block, tmp_path: Path) -> None:
    KINDS[block.language](block, tmp_path)


# ---- Python


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory from which modules are imported, and what the apps of the manual find in the environment."""
    keys = write_keys(tmp_path / "keys.json", jwk("ES256", kid="k"))
    for name, value in {"OPS_PASSWORD": "a", "ALICE_PASSWORD": "b", "JWKS_FILE": str(keys), "SESSION_KEYS": "k" * 64}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write_up_to(page: str, number: int, folder: Path) -> str:
    """Writes the files of a page up to this one, as its reader has; the name of the last."""
    files = list(modules(page))[: number + 1]
    for name, text in files:
        (folder / name).write_text(text)
    return files[-1][0]


@pytest.mark.parametrize(("page", "number", "name", "text"), PYTHON, ids=[f"{page}-{name}-{number}" for page, number, name, _ in PYTHON])
def test_every_app_serves_and_every_test_passes(page: str, number: int, name: str, text: str, folder: Path) -> None:
    write_up_to(page, number, folder)
    if name.startswith("test_"):
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(DOCS.parent)])}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    elif "127.0.0.1" not in text:  # those talk to a server or are one: test_tutorial.py and test_programs.py run them
        importlib.invalidate_caches()
        serve_well(vars(importlib.import_module(name.removesuffix(".py"))))


def serve_well(names: dict[str, Any]) -> None:
    """Serves the `handlers` of a module, if it has any: each path lets in or refuses, and no handler raises."""
    if "handlers" not in names:
        return
    app = App.of(names["handlers"])
    with served(app, engine="portable") as there:
        for path in app.paths or ("/",):
            assert talk(there, path) < 500, path
    assert there.server.counters["handler_errors"] == 0


def talk(there: Served, path: str) -> int:
    """Sends one message to a path, if it lets in; the status of its answer."""
    try:
        with there.client(path, close_timeout=0.5) as client:  # some say more than it reads, and it gets no answer to its Close
            client.send("hello")
            eventually(lambda: there.counters["messages_in"], "the server reads a message")
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101
