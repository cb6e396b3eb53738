from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from tests.examples.browser import Browser, Tab, program
from tests.examples.conftest import Serve
from tests.examples.serving import Serving

APP = "examples.chat.app:handlers"


@pytest.fixture
def serving(serve: Serve) -> Serving:
    return serve(APP, "--workers", "1")


def news(client: ClientConnection) -> dict[str, object]:
    found: dict[str, object] = json.loads(client.recv(timeout=30))
    return found


def test_everybody_gets_what_one_says_and_a_newcomer_the_last_lines(serving: Serving) -> None:
    with connect(serving.url, proxy=None) as ann, connect(serving.url, proxy=None) as bob:
        assert [news(ann), news(ann)] == [{"people": 1}, {"people": 2}]
        assert news(bob) == {"people": 2}
        ann.send(json.dumps({"name": " Ann ", "text": "hello"}))
        line = news(ann)
        assert (line["name"], line["text"]) == ("Ann", "hello")
        assert news(bob) == line
        with connect(serving.url, proxy=None) as newcomer:
            assert [news(newcomer), news(newcomer)] == [line, {"people": 3}]
        assert [news(bob), news(bob)] == [{"people": 3}, {"people": 2}]


@pytest.mark.parametrize("message", ["not JSON", "[]", "{}", '{"name": "x", "text": " "}', "1"])
def test_what_is_no_chat_message_is_refused_with_a_reason(serving: Serving, message: str) -> None:
    with connect(serving.url, proxy=None) as client:
        assert news(client) == {"people": 1}
        client.send(message)
        with pytest.raises(ConnectionClosedError) as caught:
            client.recv(timeout=30)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1003, "send JSON with a name and a text")


def test_the_page_is_served_on_the_same_port(serving: Serving) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{serving.port}/", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
        assert answer.read() == Path("examples/chat/index.html").read_bytes()


needs_browser = pytest.mark.skipif(program() is None, reason="no Chromium to open the page in; Debian, Ubuntu: apt install chromium")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as browser:
        yield browser


LINES = "[...document.querySelectorAll('#lines p')].map((line) => line.textContent)"
STATUS = "document.getElementById('status').textContent"


def say(tab: Tab, name: str, text: str) -> None:
    fields = json.dumps({"name": name, "text": text})
    tab.evaluate(f"for (const [id, value] of Object.entries({fields})) document.getElementById(id).value = value")
    tab.evaluate("document.getElementById('send').click()")


@needs_browser
def test_two_tabs_talk_and_markup_stays_text(serving: Serving, browser: Browser) -> None:
    page = f"http://127.0.0.1:{serving.port}/"
    ann, bob = browser.open(page), browser.open(page)
    ann.until(STATUS, "2 people here")
    bob.until(STATUS, "2 people here")
    say(ann, "Ann", "<b onclick='x'>hello</b>")
    bob.until(LINES, ["<b onclick='x'>hello</b>"])
    say(bob, "Bob", "good to see you")
    ann.until(LINES, ["<b onclick='x'>hello</b>", "good to see you"])
    assert ann.evaluate("document.querySelectorAll('li.mine').length") == 1
    assert ann.evaluate("document.querySelectorAll('#lines b').length") == 0


@needs_browser
def test_the_page_comes_back_by_itself_when_the_worker_dies(serving: Serving, browser: Browser) -> None:
    tab = browser.open(f"http://127.0.0.1:{serving.port}/")
    tab.until(STATUS, "only you here")
    before = tab.evaluate("performance.timeOrigin")
    (worker,) = serving.stats()["workers"]
    serving.expected_errors.append(f"worker {worker['pid']} of slot 0 was killed by SIGKILL")
    os.kill(worker["pid"], signal.SIGKILL)
    tab.until(f"{STATUS}.startsWith('connection lost')", True)
    tab.until(STATUS, "only you here")
    say(tab, "Ann", "still here")
    tab.until(LINES, ["still here"])
    assert tab.evaluate("performance.timeOrigin") == before, "the page was loaded again"


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 640)])
def test_everything_fits_on_a_desk_and_on_a_phone(serving: Serving, browser: Browser, width: int, height: int, tmp_path: Path) -> None:
    tab = browser.open(f"http://127.0.0.1:{serving.port}/")
    tab.size(width, height)
    tab.until(STATUS, "only you here")
    for number in range(12):
        say(tab, "Ann" if number % 3 else "Bob", f"{number}: " + "a longer line of chat, " * (number % 4 + 1) + "w" * (number * 8))
    tab.until(f"{LINES}.length", 12)
    tab.screenshot(tmp_path / f"chat-{width}.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.documentElement.scrollHeight") <= height
    rectangle = tab.evaluate("document.getElementById('send').getBoundingClientRect().toJSON()")
    assert rectangle["right"] <= width
    assert rectangle["bottom"] <= height
    assert tab.evaluate("(({scrollTop, scrollHeight, clientHeight}) => scrollHeight - scrollTop - clientHeight)(lines)") < 2
