"""The programs of the manual that serve, or ask a server, run as they stand there. Only ports differ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.deploy.programs import free_ports
from tests.docs.pages import all_blocks, modules
from tests.examples.serving import ROOT, START_S, STOP_S, Serving, eventually
from unlimitedws.cli import main

ENVIRON = {**{key: value for key, value in os.environ.items() if not key.startswith("UNLIMITEDWS_")}, "PYTHONPATH": str(ROOT)}


def program(page: str, name: str) -> str:
    return next(text for file, text in modules(page) if file == name)


@contextmanager
def running(text: str, folder: Path, *, code: int) -> Iterator[str]:
    """Runs a program that listens on port 8000, on another one; gives its URL. Ctrl-C ends it with `code`."""
    port = free_ports(1)[0]
    (folder / "program.py").write_text(text.replace("8000", str(port)))
    with subprocess.Popen([sys.executable, "program.py"], cwd=folder, env=ENVIRON) as process:
        try:
            eventually(lambda: answers(port), "the program listens")
            yield f"ws://127.0.0.1:{port}/"
            process.send_signal(signal.SIGINT)
            assert process.wait(STOP_S) == code
        finally:
            process.kill()


def answers(port: int) -> bool:
    try:
        with connect(f"ws://127.0.0.1:{port}/", proxy=None, open_timeout=START_S):
            return True
    except ConnectionRefusedError:
        return False


def said(url: str, message: str) -> str | bytes:
    with connect(url, proxy=None, open_timeout=START_S) as client:
        client.send(message)
        return client.recv(START_S)


def test_a_program_of_ones_own_serves_with_two_workers(tmp_path: Path) -> None:
    text = program("how-to/run-from-a-program.md", "serve.py").replace("port=8000", "port=0, admin_port=0")
    (tmp_path / "serve.py").write_text(text)
    serving = Serving(["serve.py"], tmp_path, {}, cwd=tmp_path)
    try:
        assert said(serving.url, "hello") == "hello"
        assert len(serving.stats()["workers"]) == 2
    finally:
        serving.stop()


def test_the_program_for_a_debugger_serves(tmp_path: Path) -> None:
    with running(program("how-to/develop.md", "debug.py"), tmp_path, code=0) as url:
        assert said(url, "hello") == "hello"


def test_the_program_that_is_left_behind_says_what_the_new_one_says(tmp_path: Path) -> None:
    with running(program("how-to/come-from-another-library.md", "before.py"), tmp_path, code=-signal.SIGINT) as url:
        assert said(url, "hello") == "you said 'hello'"


def test_the_past_of_each_worker_is_read_as_the_page_does(tmp_path: Path, engine_name: str) -> None:
    arguments = ["-m", "unlimitedws", "examples.echo:handlers", "--port", "0", "--admin-port", "0", "--workers", "2"]
    serving = Serving([*arguments, "--engine", engine_name], tmp_path, {})
    try:
        text = program("how-to/watch-the-server.md", "past.py").replace(":9000", f":{serving.admin_port}")
        environ = {**ENVIRON, "no_proxy": "*"}

        def look() -> str:
            return subprocess.run([sys.executable, "-c", text], env=environ, capture_output=True, text=True, check=True).stdout

        printed = eventually(look, "the first look at the workers was kept").splitlines()
        assert [line.split()[1] for line in printed[:2]] == ["0", "1"]
        assert "'connections_open': 0.0" in printed[0]
    finally:
        serving.stop()


def test_what_is_in_force_is_shown_as_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = all_blocks("how-to/configure.md")
    (tmp_path / "unlimitedws.toml").write_text(next(block.code for block in blocks if block.language == "toml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNLIMITEDWS_PORT", "8090")
    assert main(["serve", "--config", "unlimitedws.toml", "--print-config"]) == 0
    shown = next(block.code for block in blocks if block.language == "text").removesuffix("...\n")
    assert [line.split() for line in capsys.readouterr().out.splitlines()[:3]] == [line.split() for line in shown.splitlines()]


def test_what_is_wrong_is_said_as_the_page_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--ping-interval-s", "-3"], ["--sni-dir", "/tmp"]):
        assert main(["serve", "app:handlers", *arguments]) == 2
    said = next(block.code for block in all_blocks("how-to/configure.md") if block.language is None)
    assert capsys.readouterr().err == said
