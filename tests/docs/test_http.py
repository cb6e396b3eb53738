"""docs/how-to/answer-plain-http.md: what it shows is served, and answers as the page says."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import app_of
from tests.serving import WAIT_S, served

Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(engine_name: str, tmp_path: Path) -> Iterator[Ask]:
    (tmp_path / "a.css").write_text("p {}")
    handlers = app_of("how-to/answer-plain-http.md")["handlers"]
    with served(handlers, engine=engine_name, static_dir=str(tmp_path), health_path="/healthz") as there:
        client = http.client.HTTPConnection("127.0.0.1", there.port, timeout=WAIT_S)

        def fetch(method: str, target: str, body: str | None = None) -> tuple[int, str]:
            client.request(method, target, body)
            response = client.getresponse()
            return response.status, response.read().decode()

        yield fetch
        client.close()


def test_the_routes_of_the_page_answer_as_it_says(ask: Ask) -> None:
    assert ask("GET", "/") == (200, "<p>0 notes")
    assert ask("POST", "/notes", '"milk"') == (201, "")
    assert ask("POST", "/notes", "milk") == (400, "send JSON\n")
    assert ask("GET", "/notes") == (200, "milk")
    assert ask("GET", "/report") == (200, "499999500000")
    assert ask("GET", "/ticks") == (200, "0\n1\n2\n")


def test_files_and_health_are_served_beside_them(ask: Ask) -> None:
    assert ask("GET", "/static/a.css") == (200, "p {}")
    assert ask("GET", "/healthz") == (200, "ok\n")


def test_what_nothing_answers_is_refused_as_the_table_says(ask: Ask) -> None:
    assert ask("GET", "/nowhere")[0] == 426  # one Handlers serves every path
    assert ask("DELETE", "/notes")[0] == 405
