"""The document has the fields that the reference names; the text says the same to people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.doctor.conftest import Judge
from tests.doctor.trees import TREES
from unlimitedws.doctor import fields, report
from unlimitedws.doctor.report import document, text
from unlimitedws.doctor.versions import versions

WHOLE = ("lines", "server.settings", "machine.sysctls", "machine.unknown")
"""Objects whose keys are names of other things."""


def paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and path not in WHOLE:
        for key, item in value.items():
            yield from paths(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from paths(item, f"{path}[]")
    else:
        yield path


def test_the_document_has_exactly_the_fields_of_the_reference(judge: Judge) -> None:
    found = set(paths(json.loads(json.dumps(document(judge("kubernetes_v2", 5_000_000, workers=9))))))
    assert found == {*fields.VERDICT, *fields.SERVER, *fields.MACHINE}


@pytest.mark.parametrize("name", TREES)
def test_the_text_names_the_number_what_ends_it_and_each_line(judge: Judge, name: str) -> None:
    verdict = judge(name, 3_000_000)
    shown = text(verdict)
    assert shown.startswith(f"{verdict.held:,} connections (2 workers, native engine): {verdict.bound.name} ends it first\n")
    assert f"3,000,000 are wanted: {'enough' if verdict.is_enough else 'not enough'}" in shown
    for lines in document(verdict)["lines"].values():
        for line in lines:
            assert f"    {line}\n" in shown + "\n"
    for problem in verdict.problems:
        assert problem.text in shown
    for path in (*verdict.machine.unknown, *verdict.machine.sysctls):
        assert path in shown
    for part in (*verdict.price.parts, *verdict.price.on_top):
        assert f"{part.bytes:,}  {part.what} ({part.source})" in shown


@pytest.mark.parametrize("columns", [1, 80, 132])
def test_reasons_fit_into_a_terminal_and_say_the_same(judge: Judge, columns: int) -> None:
    verdict = judge("docker_v1", 1_000_000, trusted_proxies="127.0.0.1", ping_interval_s=0.0)
    narrow, wide = text(verdict, columns), text(verdict)
    reasons = (
        narrow[narrow.index("ends it at") : narrow.index("An idle connection")] + narrow[narrow.index("problem:") : narrow.index("To hold")]
    )
    assert max(map(len, reasons.splitlines())) <= max(80, columns)
    assert narrow.split() == wide.split()


def test_what_no_line_changes_is_said(judge: Judge) -> None:
    shown = text(judge("plain", 20_000_000, trusted_proxies="192.0.2.1"))
    for words in ("of memory more", "for a message to everybody at once", "CPUs more, for the heartbeats", "addresses of proxies more"):
        assert words in shown
    assert shown.count("no line does it") == 4


def test_what_only_slows_down_is_not_said_to_be_in_the_way(judge: Judge) -> None:
    assert "\nTo hold 300,000 and slow nobody down, change:\n" in text(judge("plain", 300_000))
    assert "\nTo hold 5,000,000, change:\n" in text(judge("plain", 5_000_000))


def test_without_a_number_only_what_is_wrong_is_to_be_changed(judge: Judge) -> None:
    shown = text(judge("plain"))
    assert "wanted" not in shown
    assert "To mend this, change:" in shown
    assert "LimitNOFILE" not in shown


def test_what_would_run_is_named(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = versions()
    line = f"unlimitedws {installed['unlimitedws']}, native engine, uvloop {installed['uvloop']}, Python {installed['python']}\n"
    assert line in text(judge("plain"))
    assert document(judge("plain"))["server"]["versions"] == installed
    monkeypatch.setattr(report, "versions", lambda: installed | {"uvloop": None})
    assert "native engine, no uvloop, Python" in text(judge("plain"))


def test_a_container_is_told_what_it_cannot_see_or_set(judge: Judge) -> None:
    shown = text(judge("docker_v1"))
    assert "network namespace of its own" in shown
    assert "/proc/sys is read-only here" in shown
    assert "/sys/fs/cgroup/pids/pids.max: 4 of 100 in use" in shown
