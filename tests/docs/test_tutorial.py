"""The tutorial, step by step: its files are written, its commands run and its clients answered as its pages say.

Only the ports differ from the page: 8000 and 9000 become free ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.docs.pages import all_blocks
from tests.docs.shell import lines_of
from tests.examples.browser import Browser
from tests.examples.browser import program as browser_program
from tests.examples.serving import ROOT, Serving, eventually

WAIT_S = 30.0
STEPS = ("echo", "chat", "workers", "load", "reload")

Step = Callable[[str], "Reader"]


class Reader:
    """Somebody who has followed the tutorial up to a step: a folder with its files, and the server that it tells to start."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder, self.engine = folder, engine
        self.serving: Serving | None = None

    def write(self, step: str) -> None:
        for block in all_blocks(f"tutorial/{step}.md"):
            if block.file:
                (self.folder / block.file).write_text(block.code)

    def serve(self, step: str) -> None:
        line = next(line for line in lines(step) if line.startswith("unlimitedws serve"))
        arguments = ["-m", *shlex.split(line), "--port", "0", "--admin-port", "0", "--engine", self.engine]
        logs = self.folder / "log"
        logs.mkdir()
        self.serving = Serving(arguments, logs, self.control, cwd=self.folder)

    @property
    def control(self) -> dict[str, str]:
        """Where this server takes orders: not every server of this machine is ours."""
        return {"UNLIMITEDWS_CONTROL_SOCKET": str(self.folder / "control.sock")}

    @property
    def there(self) -> Serving:
        assert self.serving is not None
        return self.serving

    def client(self, room: str, name: str) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.there.port}/{room}?name={name}", proxy=None, open_timeout=WAIT_S, close_timeout=WAIT_S)

    def run(self, line: str, *, code: int = 0) -> str:
        """What a command line of the tutorial prints, which ends with `code`. Its Python is the one that has the server."""
        here = line.replace("127.0.0.1:8000", f"127.0.0.1:{self.there.port}").replace(
            "127.0.0.1:9000", f"127.0.0.1:{self.there.admin_port}"
        )
        environ = {
            **os.environ,
            **self.control,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "no_proxy": "*",
        }
        done = subprocess.run(here, shell=True, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == code, f"{here}\n{done.stdout}{done.stderr}\n{self.there.log}"
        return done.stdout + done.stderr

    def run_client(self) -> str:
        file = self.folder / "client.py"
        file.write_text(file.read_text().replace(":8000", f":{self.there.port}"))
        return self.run("python client.py")


def lines(step: str) -> list[str]:
    return [line for block in all_blocks(f"tutorial/{step}.md") if block.language == "sh" for line in lines_of(block.code)]


def printed(step: str) -> str:
    """What the page says that its client prints."""
    (block,) = (block for block in all_blocks(f"tutorial/{step}.md") if block.language == "text")
    return block.code


@pytest.fixture
def at(tmp_path: Path, engine_name: str) -> Iterator[Step]:
    """A reader at the given step, with all files so far and the server of the last step that starts one."""
    readers: list[Reader] = []

    def go(step: str) -> Reader:
        reader = Reader(tmp_path, engine_name)
        readers.append(reader)
        done = STEPS[: STEPS.index(step) + 1]
        for each in done:
            reader.write(each)
        reader.serve(next(each for each in reversed(done) if any(line.startswith("unlimitedws serve") for line in lines(each))))
        return reader

    yield go
    for reader in readers:
        if reader.serving is not None:
            reader.serving.stop()


@pytest.mark.parametrize("step", ["echo", "chat", "workers"])
def test_the_client_of_a_step_prints_what_the_page_says(at: Step, step: str) -> None:
    assert at(step).run_client() == printed(step)


def test_the_chat_serves_its_page_and_refuses_who_has_no_name(at: Step) -> None:
    reader = at("chat")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{reader.there.port}/", timeout=WAIT_S) as answer:
        assert answer.read().decode() == (reader.folder / "chat.html").read_text()
    with pytest.raises(Exception, match="400"), reader.client("kitchen", ""):
        pass


@pytest.mark.skipif(browser_program() is None, reason="needs chromium (Debian, Ubuntu: apt install chromium)")
def test_two_people_talk_in_their_browsers(at: Step, tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"http://127.0.0.1:{at('chat').there.port}/?kitchen"
    heard = "[...document.querySelectorAll('#lines div')].map(line => line.textContent).join(' / ')"
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        tabs = {}
        for name in ("ada", "bob"):
            tabs[name] = browser.open("about:blank")
            tabs[name].command("Page.enable")
            tabs[name].command("Page.addScriptToEvaluateOnNewDocument", source=f"window.prompt = () => '{name}'")
            tabs[name].command("Page.navigate", url=url)
            tabs[name].until(heard, "ada has come" if name == "ada" else "bob has come")
        tabs["bob"].evaluate("document.querySelector('input').value = '<b>hello</b>'; document.querySelector('form').requestSubmit()")
        tabs["ada"].until(heard, "ada has come / bob has come / bob: <b>hello</b>")
        tabs["bob"].until(heard, "bob has come / bob: <b>hello</b>")


def test_everybody_in_a_room_hears_everybody_whichever_worker_has_them(at: Step) -> None:
    reader = at("workers")
    with ExitStack() as stack:
        people = [stack.enter_context(reader.client("garden", f"p{number}")) for number in range(12)]
        slots = [worker["connections_open"] for worker in reader.there.stats()["workers"]]
        assert len(slots) == 4
        for number, person in enumerate(people):
            person.send(f"line {number}")
        expected = {f"p{number}: line {number}" for number in range(12)}
        for person in people:
            said: set[str] = set()
            while not expected <= said:
                said.add(str(person.recv(WAIT_S)))


def test_a_reload_changes_the_code_and_disconnects_nobody(at: Step) -> None:
    reader = at("workers")
    look, sed, renew, spoil, again, mend, more = lines("reload")
    assert look.startswith("curl")
    with reader.client("kitchen", "ada") as ada, reader.client("kitchen", "bob") as bob:
        assert {ada.recv(WAIT_S), ada.recv(WAIT_S)} == {"ada has come", "bob has come"}
        reader.run(sed)
        reader.run(renew)
        ada.send("hello")
        assert ada.recv(WAIT_S) == "ada says: hello"  # nobody has left, or come once more
        heard = [bob.recv(WAIT_S)]
        while heard[-1] != "ada says: hello":
            heard.append(bob.recv(WAIT_S))
        assert "bob has left" not in heard
        assert heard.count("bob has come") == 1
        reader.run(spoil)
        assert "SyntaxError" in reader.run(again, code=1)
        bob.send("still here")
        assert ada.recv(WAIT_S) == "bob says: still here"
        reader.run(mend)
        assert "6 workers, 4 before" in reader.run(more)
        ada.send("so many")
        while heard[-1] != "ada says: so many":
            heard.append(bob.recv(WAIT_S))
        assert "ada has left" not in heard


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (Debian, Ubuntu: apt install curl)")
def test_the_numbers_of_the_server_are_shown_as_json(at: Step) -> None:
    reader = at("workers")
    for step in ("workers", "reload"):
        (curl,) = (line for line in lines(step) if line.startswith("curl"))
        assert len(json.loads(reader.run(curl))["workers"]) == 4


def test_who_is_connected_to_a_worker_that_is_killed_comes_back_to_another(at: Step) -> None:
    reader = at("workers")
    victim = reader.there.stats()["workers"][0]["pid"]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in pids(reader) and len(pids(reader)) == 4, "another worker is in its place")
    assert reader.run_client() == printed("workers")


def pids(reader: Reader) -> list[int]:
    return [worker["pid"] for worker in reader.there.stats()["workers"]]


def test_the_load_test_of_the_chat_finds_nothing_wrong(at: Step) -> None:
    reader = at("workers")
    for line in (line for line in lines("load") if "--mode broadcast" in line):
        reader.run(shorter(line))


@pytest.mark.skipif("UNLIMITEDWS_TEST_SANITIZED" in os.environ, reason="a sanitizer's own memory is what would be measured")
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (Debian, Ubuntu: apt install curl)")
def test_the_load_test_of_the_echo_reads_the_servers_memory(at: Step) -> None:
    reader = at("load")
    pid, bench = lines("load")[-2:]
    assert "server memory" in reader.run(f"{pid}\n{shorter(bench)}")


def shorter(line: str) -> str:
    """A load test with fewer connections and little time. 200 who come at once are what a bus of ours once could not bear."""
    times = "--warm-s 0.1 --measure-s 0.5 --rest-s 0.1 --after-s 0.1 --timeout-s 60 --quiet"
    return re.sub(r"--connections \d+", "--connections 200", line) + f" {times}"
