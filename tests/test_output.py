"""What commands show: where it cannot be written, and where nobody reads it any more."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from unlimitedws.errors import OutputFailed
from unlimitedws.output import show, writing

PROGRAM = [sys.executable, "-m", "unlimitedws"]
COMMANDS = [["--version"], ["--help"], ["serve", "--help"], ["serve", "--print-config"], ["doctor"], ["doctor", "--json"]]
EACH = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)

FAILED = 74
"""EX_IOERR of <sysexits.h>."""

AFTER_ITS_READER = """
import os, subprocess, sys
read, write = os.pipe()
os.close(read)
print(subprocess.run(sys.argv[1:], stdout=write, stderr=sys.stderr).returncode)
"""


def shell(line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which $@ is a command."""
    return subprocess.run(["bash", "-c", line, "bash", *PROGRAM, *arguments], capture_output=True, text=True, timeout=120)


@EACH
def test_a_full_disk_is_one_line_and_an_exit_code_of_its_own(command: list[str]) -> None:
    done = shell('"$@" > /dev/full', *command)
    assert (done.returncode, done.stderr) == (FAILED, "unlimitedws: cannot write to stdout: No space left on device\n")


@EACH
def test_a_closed_stdout_is_one_too(command: list[str]) -> None:
    done = shell('"$@" >&-', *command)
    assert (done.returncode, done.stderr) == (FAILED, "unlimitedws: cannot write to stdout: it is closed\n")


@EACH
def test_a_reader_that_leaves_early_ends_a_command_by_sigpipe_and_in_silence(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", AFTER_ITS_READER, *PROGRAM, *command], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == (f"-{signal.SIGPIPE.value}\n", "")


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ">&- 2>&-"])
def test_an_error_that_cannot_be_told_keeps_its_exit_code_and_does_not_come_as_output(where: str) -> None:
    done = shell(f'"$@" {where}', "ctl", "nonsense")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_what_the_encoding_of_stdout_lacks_is_escaped() -> None:
    command = [*PROGRAM, "serve", "--print-config", "--static-path", "/bücher"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=120)
    assert done.stderr == b""
    assert rb"/b\xfccher" in done.stdout


def test_a_text_is_written_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8"))  # type: ignore[arg-type]
    show("this")
    show(", that", end="")
    assert raw.getvalue() == b"this\n, that"


def test_what_the_system_says_is_kept() -> None:
    with pytest.raises(OutputFailed) as failed, writing():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert failed.value.errno == errno.EIO
    assert str(failed.value) == "cannot write to stdout: Input/output error"
