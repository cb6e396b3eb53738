"""docs/reference/ctl.md, which is written by hand: its verbs, and what each answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs.pages import DOCS
from tests.examples.serving import ROOT, Serving
from unlimitedws import ctl

PAGE = (DOCS / "reference/ctl.md").read_text(encoding="utf-8")


def answers() -> dict[str, set[str]]:
    """Verb to the names that its row gives for `--json`."""
    rows = re.findall(r"^\| `(\w+)(?: N)?` \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    return {verb: set(re.findall(r"`(\w+)`", names)) for verb, names in rows if verb in ctl.SHOWN}


def fields() -> set[str]:
    """Those of the table on `status`; of a worker as `workers[].pid`."""
    cells = re.findall(r"^\| (`.*?`) \|", PAGE.partition("## status")[2].partition("##")[0], re.MULTILINE)
    names = [re.findall(r"`([\w.\[\]]+)`", cell) for cell in cells]
    return {f"workers[]{name}" if name.startswith(".") else name for row in names for name in row}


def names_of(answer: dict[str, Any]) -> set[str]:
    workers = {f"workers[].{name}" for worker in answer["workers"] for name in worker}
    return (answer.keys() - {"workers"}) | workers


def test_the_page_has_a_row_for_each_verb() -> None:
    assert list(answers()) == list(ctl.SHOWN)


def test_each_verb_answers_what_its_row_says(tmp_path: Path) -> None:
    control = {"UNLIMITEDWS_CONTROL_SOCKET": str(tmp_path / "control.sock")}
    arguments = ["-m", "unlimitedws", "examples.echo:handlers", "--port", "0", "--admin-port", "0", "--workers", "2"]
    serving = Serving(arguments, tmp_path, control)

    def ask(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "unlimitedws", "ctl", *words, "--json"]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **control}, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + serving.log
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    try:
        assert names_of(ask("status")) == fields()
        for verb, names in answers().items():
            if verb not in ("status", "stop"):
                assert ask(verb, *(["3"] if verb == "workers" else [])).keys() == names, verb
        assert ask("stop").keys() == answers()["stop"]
        assert serving.process.wait(30) == 0
    finally:
        serving.process.kill()
        serving.process.wait()
