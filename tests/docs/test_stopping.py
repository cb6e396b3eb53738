"""The pages on systemd and on stops: their units are valid, their figures are the server's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS
from tests.docs.test_listening import code
from unlimitedws.config import DEFAULTS
from unlimitedws.farewell import CLIENTS_PER_S, Farewell
from unlimitedws.supervisor.departure import SETTLE_S
from unlimitedws.supervisor.fleet import STOP_GRACE_S
from unlimitedws.supervisor.progress import EVERY_S
from unlimitedws.supervisor.renewal import GROWTH_S, JITTER

PAGE = DOCS / "how-to" / "stop-and-replace-workers.md"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze (Debian, Ubuntu: apt install systemd)")
def test_systemd_accepts_the_unit_of_the_page(tmp_path: Path) -> None:
    unit = code("start-with-systemd.md", "ini")[0]
    assert "Type=notify\n" in unit
    file = tmp_path / "app.service"
    file.write_text(unit.replace("/srv/app/.venv/bin/unlimitedws", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "app.service" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_the_figures_of_the_page_on_stops_are_the_servers() -> None:
    text = PAGE.read_text()
    for name, value in re.findall(r"`(\w+)` \(([\d.]+)(?: s)?\)", text):
        assert float(value) == DEFAULTS[name], name
    assert {"drain_delay_s", "drain_batch", "drain_pause_s", "stop_timeout_s", "retry_window_s"} <= {
        name for name, _ in re.findall(r"`(\w+)` \(([\d.]+)(?: s)?\)", text)
    }
    assert (SETTLE_S, EVERY_S, STOP_GRACE_S, CLIENTS_PER_S, JITTER, GROWTH_S) == (0.1, 2, 5, 1000, 0.1, 60)
    assert DEFAULTS["drain_batch"] / DEFAULTS["drain_pause_s"] == 10_000


def test_the_expression_of_the_page_finds_the_seconds_in_a_reason() -> None:
    found = re.search(r"/(retry in .*? s)/\.exec", PAGE.read_text())
    assert found
    (reason, _), *_ = Farewell("server is stopping", 1, 60).parts(1)
    said = re.search(found[1], reason)
    assert said
    assert said[1] == "1"
