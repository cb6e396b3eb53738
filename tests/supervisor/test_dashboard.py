"""The dashboard: its files, its policy, and itself in headless Chromium."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.browser import Browser, Tab, program
from tests.supervisor.conftest import Run
from tests.supervisor.running import Running, until
from unlimitedws.supervisor import dashboard


def test_the_page_and_its_library_are_served_with_their_types(run: Run) -> None:
    server = run(workers=1).ready()
    assert "<title>unlimitedws</title>" in server.get("/")[1]
    assert server.headers("/")["Content-Type"] == "text/html; charset=utf-8"
    assert "uPlot" in server.get("/uPlot.js")[1]
    assert server.headers("/uPlot.js")["Content-Type"] == "text/javascript; charset=utf-8"
    assert server.headers("/uPlot.css")["Content-Type"] == "text/css; charset=utf-8"


def test_the_policy_allows_the_page_its_own_script_and_this_port_and_nothing_else() -> None:
    page = dashboard.page()
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert (rules["default-src"], rules["connect-src"], rules["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert re.fullmatch(r"'self' 'sha256-[\w+/=]+'", rules["script-src"])
    assert "unsafe" not in page.policy


def test_the_page_names_no_other_place() -> None:
    text = (dashboard.FOLDER / dashboard.PAGE).read_text()
    assert not re.search(r"https?:|//[a-z]+\.", text)
    assert "innerHTML" not in text
    assert "MIT" in (dashboard.FOLDER / "uPlot.LICENSE").read_text()


needs_browser = pytest.mark.skipif(program() is None, reason="no Chromium to open the page in; Debian, Ubuntu: apt install chromium")

STATE = "document.getElementById('state')?.textContent"
TILE = "[...document.querySelectorAll('.tile')].find((tile) => tile.firstChild.textContent === {!r}).children[1].textContent"
ROWS = "[...document.querySelectorAll('#{} tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
# From the beginning of the document on, whatever the policy forbade.
WATCH = "window.forbidden = []; document.addEventListener('securitypolicyviolation', (event) => forbidden.push(event.blockedURI))"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as browser:
        yield browser


def watched(browser: Browser, server: Running, path: str = "/") -> Tab:
    """The dashboard in a tab that notes what the policy forbade."""
    tab = browser.open("about:blank")  # so that the watch is there before the page
    tab.command("Page.enable")
    tab.command("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
    tab.command("Page.navigate", url=f"http://127.0.0.1:{server.admin_port}{path}")
    tab.until(STATE, "ready")
    return tab


@needs_browser
def test_the_page_shows_what_the_server_does(run: Run, browser: Browser) -> None:
    server = run(workers=2).ready()
    tab = watched(browser, server)
    tab.until(TILE.format("Connections"), "0")
    clients = [server.connect() for _ in range(3)]
    tab.until(TILE.format("Connections"), "3")
    clients[0].close()
    tab.until(f"{ROWS.format('causes')}.map((row) => [row[0], row[2]])", [["peer closed", "1"]])
    tab.until(f"{ROWS.format('closes')}.map((row) => row.slice(1, 3))", [["peer closed", "1000"]])
    assert [row[:3] for row in tab.evaluate(ROWS.format("workers"))] == [
        [str(slot), str(pid), "ready"] for slot, pid in enumerate(server.workers())
    ]
    assert tab.evaluate("document.querySelectorAll('#charts canvas').length") == tab.evaluate("CHARTS.length") > 8
    assert tab.evaluate("forbidden") == []


@needs_browser
def test_each_worker_has_a_line_of_its_own(run: Run, browser: Browser) -> None:
    server = run(workers=3).ready()
    tab = watched(browser, server, "/#workers")
    tab.until("charts.every((chart) => chart.series?.map((one) => one.label).join() === 'worker 0,worker 1,worker 2')", True)
    tab.evaluate("document.querySelector('[data-view=total]').click()")
    tab.until("charts[0].series.map((one) => one.label)", ["open", "in handshake"])


@needs_browser
def test_one_worker_can_be_chosen_and_left_again(run: Run, browser: Browser) -> None:
    server = run(workers=3).ready()
    labels = "charts[2].series?.map((one) => one.label).join()"
    tab = watched(browser, server, "/#worker-2")
    tab.until(labels, "in,out")
    tab.until("document.getElementById('which').value", "2")
    tab.until("document.querySelector('tr.chosen')?.cells[0].textContent", "2")
    tab.until(TILE.format("Connections").replace("children[1]", "children[2]"), "0 in handshake")
    tab.evaluate("document.querySelector('#workers [data-slot=\"1\"]').click()")
    tab.until("document.getElementById('which').value + location.hash", "1#worker-1")
    tab.evaluate(
        "document.getElementById('which').value = ''; document.getElementById('which').dispatchEvent(new Event('change', {bubbles: true}))"
    )
    tab.until(labels, "worker 0,worker 1,worker 2")
    tab.evaluate("document.querySelector('[data-view=total]').click()")
    tab.until("document.getElementById('which').hidden", True)
    assert tab.evaluate("forbidden") == []


@needs_browser
def test_a_page_begins_with_what_each_worker_did_before_it(run: Run, browser: Browser) -> None:
    server = run(workers=2).ready()
    with server.connect() as client:
        client.send("hello")
        assert client.recv(timeout=30) == "hello"
        # Two looks, so that there is a rate between them.
        until(lambda: len(json.loads(server.get("/history/workers")[1])["times"]) > 1, timeout_s=60)
        tab = watched(browser, server, "/#workers")
        before = "(point, at) => point && history.times[at] < performance.timeOrigin / 1000"
        points = f"[...history.slots.values()].map((points) => points.filter({before}))"
        tab.until(f"{points}.every((mine) => mine.length > 1)", True)
        tab.until(f"{points}.every((mine) => mine.at(-1).messagesIn >= 0 && mine.at(-1).causes['peer_closed'] >= 0)", True)
        tab.until(f"Math.max(...{points}.map((mine) => mine.at(-1).connections))", 1)


@needs_browser
def test_a_page_begins_with_what_was_before_it(run: Run, browser: Browser) -> None:
    server = run(workers=1).ready()
    until(lambda: server.get("/history")[1].count('"time"'))
    tab = watched(browser, server)
    assert tab.evaluate("history.times[0] < (performance.timeOrigin / 1000)")
    tab.until("history.times.every((time, number) => !number || time > history.times[number - 1])", True)


@needs_browser
def test_the_page_says_that_the_server_is_gone(run: Run, browser: Browser) -> None:
    server = run(workers=1).ready()
    tab = watched(browser, server)
    server.signal(signal.SIGTERM)
    assert server.ends() == 0
    tab.until(STATE, "no answer")


@needs_browser
@pytest.mark.parametrize(("width", "height", "theme"), [(1400, 1000, "light"), (390, 844, "dark")])
def test_it_fits_on_a_desk_and_on_a_phone_in_both_themes(
    run: Run, browser: Browser, width: int, height: int, theme: str, tmp_path: Path
) -> None:
    server = run(workers=2).ready()
    tab = watched(browser, server)
    tab.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    tab.size(width, height)
    tab.until("history.total.length > 2 && charts.every((chart) => chart.plot.width === chart.box.clientWidth)", True)
    tab.screenshot(tmp_path / f"dashboard-{width}.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((part) => part > 128)")
    assert light == (theme == "light")
