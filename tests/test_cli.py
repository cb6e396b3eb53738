"""What an operator types, and what comes back."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from unlimitedws import __version__, cli, commands
from unlimitedws.commands import COMMANDS

ENTRIES = [["-c", "import sys; from unlimitedws.cli import main; sys.exit(main())", "serve"], ["-m", "unlimitedws"]]
ENTRIES += [["-m", "unlimitedws", "serve"], ["-m", "unlimitedws.supervisor"], ["-m", "unlimitedws.supervisor", "serve"]]
SPELLINGS = pytest.mark.parametrize("entry", ENTRIES, ids=[" ".join(e[-2:]) if e[0] == "-m" else "console script" for e in ENTRIES])


def run(*arguments: str, entry: list[str] = ENTRIES[0], **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("UNLIMITEDWS_")}
    return subprocess.run([sys.executable, *entry, *arguments], capture_output=True, text=True, timeout=60, env=clean | environ)


@SPELLINGS
def test_every_spelling_of_the_command_reads_the_same_flags(entry: list[str]) -> None:
    done = run("app:handlers", "--port", "8001", "--print-config", entry=entry, UNLIMITEDWS_WORKERS="3")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["port"] == ["8001", "--port"]
    assert rows["workers"] == ["3", "UNLIMITEDWS_WORKERS"]
    assert rows["host"] == ["127.0.0.1", "default"]
    assert (done.returncode, done.stderr) == (0, "")


@SPELLINGS
def test_a_missing_app_is_one_clear_line_and_exit_code_2(entry: list[str]) -> None:
    done = run(entry=entry)
    assert done.stderr == ("unlimitedws: which app? Name it as module:attribute (unlimitedws serve app:handlers), or set UNLIMITEDWS_APP\n")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--prt", "1"], "command line: unknown setting --prt (did you mean --port?); all of them: unlimitedws serve --help"),
        (["a", "--prt=1"], "command line: unknown setting --prt (did you mean --port?); all of them: unlimitedws serve --help"),
        (["a", "--por", "1"], "command line: unknown setting --por (did you mean --port?)"),
        (["a", "--zzzqqq"], "command line: unknown setting --zzzqqq; all of them: unlimitedws serve --help"),
        (["a", "--port", "x"], "--port: port cannot be 'x'; accepted: a whole number from 0 to 65535"),
        (["a", "--engine", "fast"], "--engine: engine cannot be 'fast'; accepted: auto, native, portable"),
        (["a", "--port"], "argument --port: expected one argument; see unlimitedws serve --help"),
        (["--", "a", "--port", "1"], "command line: --port comes behind --, where nothing is a flag"),
        (["a", "b"], "b is one argument too many; see unlimitedws serve --help"),
        (["a", "--config", "/nonexistent/x.toml"], "cannot read the configuration file /nonexistent/x.toml: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"unlimitedws: {message}")
    assert err.count("\n") == 1


def test_a_flag_that_a_command_has_not_points_to_the_help_of_that_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--jsno"]) == 2
    assert capsys.readouterr().err == (
        "unlimitedws: command line: unknown setting --jsno (did you mean --json?); all of them: unlimitedws doctor --help\n"
    )


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sevre", "app"]) == 2
    assert "serve" in capsys.readouterr().err


def test_the_variable_names_the_app_and_an_app_that_is_missing_ends_with_3(tmp_path: Path) -> None:
    done = run("--port", "0", "--admin-port", "-1", UNLIMITEDWS_APP="no_such_module_here:handlers")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("unlimitedws: no app at 'no_such_module_here:handlers'")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "serve"])
def test_every_command_can_be_run_without_the_console_script(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "unlimitedws", command, "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: unlimitedws {command}")


@pytest.mark.parametrize("entry", [["-m", "unlimitedws"], ["-m", "unlimitedws.supervisor"], ENTRIES[0][:2]])
def test_the_version_is_shown(entry: list[str]) -> None:
    done = run("--version", entry=entry)
    assert (done.stdout, done.stderr, done.returncode) == (f"unlimitedws {__version__}\n", "", 0)


def test_a_reader_of_the_table_may_leave_early() -> None:
    entry = f"{sys.executable} -m unlimitedws --print-config"
    done = subprocess.run(["bash", "-c", f"{entry} | true"], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EMFILE, "Too many open files"), r"Too many open files \(raise the limit of open files: ulimit -n, "),
        (OSError(errno.ENOSPC, "No space left on device", "/run/x"), r"/run/x: No space left on device \(free some space on that disk\)"),
        (MemoryError(), r"Cannot allocate memory \(free some memory, or raise the limit: ulimit -v, "),
    ],
)
def test_a_machine_that_has_no_more_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "run", raising(error))
    assert cli.main(["doctor"]) == 1
    assert re.fullmatch(rf"unlimitedws: {line}.*\n", capsys.readouterr().err)


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "run", raising(OSError(errno.EBADF, "Bad file descriptor")))
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main(["doctor"])


def raising(error: Exception) -> Callable[..., NoReturn]:
    def run(_: Sequence[str]) -> NoReturn:
        raise error

    return run
