"""The command, as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unlimitedws import cli
from unlimitedws.doctor.fields import BOUNDS

COMMAND = "ulimit -n {files} && exec {python} -c 'import sys; from unlimitedws.cli import main; sys.exit(main())' doctor {arguments}"


def doctor(arguments: str, *, files: int = 500) -> subprocess.CompletedProcess[str]:
    command = COMMAND.format(files=files, python=sys.executable, arguments=arguments)
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)


def test_it_says_how_many_and_ends_with_0() -> None:
    done = doctor("--workers 2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("936 connections (2 workers, ")
    assert "descriptors ends it first" in done.stdout


@pytest.mark.parametrize(("wanted", "code"), [(936, 0), (937, 1)])
def test_the_exit_code_says_whether_it_is_enough(wanted: int, code: int) -> None:
    done = doctor(f"app:handlers --workers 2 --connections {wanted} --json")
    assert (done.returncode, done.stderr) == (code, "")
    document = json.loads(done.stdout)
    assert document["enough"] == (code == 0)
    assert document["machine"]["open_files"]["hard"] == 500
    assert document["limited_by"] in BOUNDS


def test_settings_come_from_the_same_places_as_those_of_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "unlimitedws.toml"
    file.write_text("workers = 3\nmax_connections = 10\n")
    monkeypatch.setenv("UNLIMITEDWS_MAX_CONNECTIONS", "20")
    assert cli.main(["doctor", "--config", str(file), "--ping-interval-s", "50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["server"]["workers"] == 3
    assert found["connections"] == 60
    assert found["server"]["settings"]["ping_interval_s"] == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--connections", "0"], "--connections cannot be '0'; accepted: a whole number from 1 to 2147483647"),
        (["--connections", "many"], "--connections cannot be 'many'"),
        (["--connections", "-5"], "--connections cannot be '-5'"),
        (["--workers", "x"], "--workers: workers cannot be 'x'"),
        (["--wrokers", "1"], "command line: unknown setting --wrokers (did you mean --workers?)"),
        (["a", "b"], "b is one argument too many; see unlimitedws doctor --help"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"unlimitedws: {message}")
