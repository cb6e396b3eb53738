"""Programs that judge or use the files of deploy/: found or skipped, run to their end, or kept running for a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

START_S = 30.0
END_S = 30.0
TRIES = 5

HOW = {
    "caddy": "apt-get install caddy",
    "docker-compose": "apt-get install docker-compose",
    "haproxy": "apt-get install haproxy",
    "nginx": "apt-get install nginx",
    "promtool": "apt-get install prometheus",
    "sysctl": "apt-get install procps",
    "systemd-analyze": "apt-get install systemd",
    "prometheus": "apt-get install prometheus",
    "unshare": "apt-get install util-linux",
}


def program(name: str) -> str:
    """The path of a program; skips where it is missing. Debian has servers in sbin, where not every PATH looks."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (on Debian: {HOW[name]})")
    return found


def clean() -> dict[str, str]:
    """The environment, without what is meant for the test's own Python (a preloaded sanitizer) and for our settings."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD" and not name.startswith("UNLIMITEDWS_")}


def judge(*command: str | Path, **environ: str) -> str:
    """What a program says of a file that it accepts; a failure where it does not."""
    done = subprocess.run([*map(str, command)], env=clean() | environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command[0]} does not accept it:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def free_ports(number: int) -> list[int]:
    """Ports of loopback on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [sock.getsockname()[1] for sock in socks]


@contextlib.contextmanager
def running(make: Callable[[list[int]], Sequence[str | Path]], folder: Path, *, ports: int = 1, **environ: str) -> Iterator[list[int]]:
    """A child that listens on some ports of loopback, which it gives; ended at the end, by its pid.

    make: gives the command for ports that were free a moment ago; asked again where somebody else took one."""
    log = folder / "child.log"
    for left in reversed(range(TRIES)):
        taken = free_ports(ports)
        with log.open("w") as out:
            child = subprocess.Popen([*map(str, make(taken))], cwd=folder, env=clean() | environ, stdout=out, stderr=out)
        try:
            if listens(child, taken):
                yield taken
                assert child.poll() is None, f"it ended by itself:\n{log.read_text()}"
                return
            assert left, f"it does not listen on {taken}:\n{log.read_text()}"
        finally:
            end(child)


def listens(child: subprocess.Popen[bytes], ports: Sequence[int]) -> bool:
    """Whether it comes to listen on all these ports; False once it has ended instead."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and child.poll() is None:
        try:
            for port in ports:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return True
        except OSError:
            time.sleep(0.02)
    return False


def end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
