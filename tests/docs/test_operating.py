"""The pages of docs/how-to on load and logs: their settings are accepted, and their code does what they say."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, app_of
from tests.serving import WAIT_S, eventually, served
from unlimitedws.access import log as access_log
from unlimitedws.config import DEFAULTS
from unlimitedws.logs import BURST_LINES, TELL_EVERY_S, JsonFormatter
from unlimitedws.pressure import RELIEF
from unlimitedws.sources import load


def test_the_settings_of_the_page_on_load_are_accepted(tmp_path: Path) -> None:
    text = re.findall(r"```toml\n(.*?)```", (DOCS / "how-to/shed-load.md").read_text(), re.DOTALL)[0]
    file = tmp_path / "unlimitedws.toml"
    file.write_text(text)
    config, sources = load({}, {}, str(file))
    assert config.max_connections_total == 200_000
    assert {sources[name] for name in ("shed_memory", "rate_policy", "handshakes_per_s")} != {"default"}


def test_the_defaults_that_the_pages_name_are_those() -> None:
    assert (DEFAULTS["retry_after_s"], DEFAULTS["shed_memory"], DEFAULTS["stuck_timeout_s"], DEFAULTS["access_lines_per_s"]) == (
        30,
        0.95,
        60,
        200,
    )
    assert (BURST_LINES, TELL_EVERY_S, RELIEF) == (10, 10, 0.02)


def test_the_app_of_the_page_on_logs_writes_its_own_fields(engine_name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with served(app_of("how-to/write-logs.md")["handlers"], engine=engine_name, access_log=True) as there:
        with there.client("/shop") as client:
            client.ping().wait(WAIT_S)
        eventually(lambda: [record for record in caplog.records if record.name == access_log.name])
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    (ours,) = (line for line in lines if line["logger"] == "shop")
    assert (ours["message"], ours["path"]) == ("a customer came", "/shop")
    (access,) = (line for line in lines if line["logger"] == access_log.name)
    assert {"address", "path", "cause", "code", "bytes_in", "bytes_out", "duration_s", "id"} <= access.keys()
