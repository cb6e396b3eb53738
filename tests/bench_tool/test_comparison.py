"""Two runs side by side."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.bench_tool.tool import SHORT, Done, bench, echo, websockets_server
from unlimitedws.bench.comparison import names, table
from unlimitedws.bench.fields import FIELDS, HISTOGRAM


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run against a server of another library, whose report is compared with others."""
    with websockets_server(echo) as url:
        return bench(url, *SHORT, "--connections", "2", "--rate", "100")


@pytest.fixture
def files(done: Done, tmp_path: Path) -> tuple[dict[str, Any], Path, Path]:
    """A report that may be changed and is written to the second file by `compared`."""
    report = copy.deepcopy(done.report)
    (tmp_path / "before.json").write_text(json.dumps(report))
    return report, tmp_path / "before.json", tmp_path / "after.json"


def compared(files: tuple[dict[str, Any], Path, Path], *more: str) -> Done:
    report, before, after = files
    after.write_text(json.dumps(report))
    return bench("--compare", str(before), str(after), *more)


def test_the_report_says_what_it_is(done: Done) -> None:
    report = done.report
    assert (report["tool"], report["format"], report["mode"], report["loop"]) == ("unlimitedws bench", 1, "echo", "open")
    assert report["options"]["connections"] == 2
    assert report["server"] is None
    assert report.keys() == FIELDS.keys()
    assert report["latency_us"]["latency"].keys() == HISTOGRAM.keys() | {"p90", "p99", "p99_9", "p99_99"}


def test_every_part_of_the_report_is_documented() -> None:
    with websockets_server(echo) as url:
        report = bench(url, *SHORT, "--connections", "2", "--mode", "idle", "--sample", "2", "--pid", str(os.getpid())).report
    parts = [(field, report[field]) for field, value in report.items() if isinstance(value, dict) and field not in OPEN]
    parts += [("server", report["server"]["memory"]), ("server", report["server"]["memory"]["full"])]
    parts += [("kernel", report["kernel"]["bytes_per_connection"])]
    assert [key for field, part in parts for key in part if f"`{key}`" not in FIELDS[field]] == []
    assert report["connect_us"].keys() == HISTOGRAM.keys() | {"p90", "p99", "p99_9", "p99_99"}


OPEN = ("options", "connect_us", "errors", "closes", "statuses", "errnos", "counters")
"""Fields whose keys are options, numbers, or what has happened."""


def test_a_run_compared_with_itself_has_not_changed(files: tuple[dict[str, Any], Path, Path]) -> None:
    done = compared(files)
    assert done.code == 0
    assert "before.json" in done.out
    assert {line.split()[-1] for line in done.out.splitlines() if "us" in line or "/s" in line} <= {"+0.0%", "0", "0.00"}
    assert "NOT THE SAME" not in done.out


def test_a_change_is_shown_in_percent(files: tuple[dict[str, Any], Path, Path]) -> None:
    files[0]["latency_us"]["latency"]["p99"] *= 1.5
    line = next(line for line in compared(files).out.splitlines() if line.startswith("answer p99,"))
    assert line.endswith("+50.0%")


def test_runs_of_different_loads_are_called_so(files: tuple[dict[str, Any], Path, Path]) -> None:
    files[0]["options"]["connections"], files[0]["loop"], files[0]["ok"] = 3, "closed", False
    done = compared(files)
    assert "NOT THE SAME LOAD: loop open against closed" in done.out
    assert "connections 2 against 3" in done.out
    assert "over TLS" not in done.out
    assert "the second run was not ok" in done.out


def test_runs_over_tls_or_on_other_machines_are_other_loads(files: tuple[dict[str, Any], Path, Path]) -> None:
    files[0]["urls"], files[0]["machine"]["cpu"] = ["wss://127.0.0.1/"], "another"
    out = compared(files).out
    assert "NOT THE SAME LOAD: one is over TLS, the other is not" in out
    assert "against another" in out


def test_memory_of_a_connection_is_compared_only_where_there_are_many(done: Done) -> None:
    report = copy.deepcopy(done.report)
    report["kernel"] = {"connections": 999, "bytes_per_connection": {"slab": 5000.0}}
    assert "kernel slab" not in table(report, report, ("a", "b"))
    report["kernel"]["connections"] = 1000
    assert "kernel slab a connection, bytes" in table(report, report, ("a", "b"))


def test_files_of_the_same_name_are_told_apart_by_their_paths() -> None:
    assert names("a/run.json", "b/run.json") == ("a/run.json", "b/run.json")
    assert names("a/old.json", "b/new.json") == ("old.json", "new.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"tool": "unlimitedws bench", "format": 1, "mode": "echo"}', "lacks kernel, latency_us, loop, options, urls"),
        ("no json", "is no JSON"),
        ("[]", "was not written by unlimitedws bench"),
        ('{"tool": "unlimitedws bench", "format": 99}', "has format 99"),
    ],
)
def test_what_is_no_report_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    done = bench("--compare", str(file), str(file))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert words in done.err


def test_both_are_drawn_into_one_plot(files: tuple[dict[str, Any], Path, Path], tmp_path: Path) -> None:
    assert compared(files, "--plot", str(tmp_path / "both.svg")).code == 0
    assert (tmp_path / "both.svg").read_bytes().startswith(b"<?xml")


def test_a_run_is_drawn_as_well(tmp_path: Path) -> None:
    with websockets_server(echo) as url:
        assert bench(url, *SHORT, "--connections", "2", "--plot", str(tmp_path / "run.png")).code == 0
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
