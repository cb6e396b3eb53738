"""A server in processes of its own, as an operator runs it, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.activated import activated

ROOT = Path(__file__).parents[2]
MARK = "TEST_SERVER"

ECHO = """
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
def echo(conn, message):
    conn.send(message)
"""

CONTROL = "control.sock"


def launcher(app: str = "'app:handlers'", **settings: object) -> str:
    """A program that serves an app (an expression of it) with these settings."""
    settings = {"port": 0, "admin_port": 0, "workers": 1, "hang_timeout_s": 0, **settings}
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"from unlimitedws import Supervisor\n\nSupervisor({app}, {given}).run()\n"


CTL = [sys.executable, "-c", "import sys; from unlimitedws.cli import main; sys.exit(main())", "ctl"]


def with_open_files(limit: int, *arguments: str) -> list[str]:
    """Arguments for Python, with which it runs itself with these under a limit of open files."""
    limiting = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit})); "
    return ["-c", limiting + "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])", *arguments]


MANAGED = ("UNLIMITEDWS_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "FDSTORE")
"""Beginnings of variables that a server in a test shall not have of the tests themselves."""

PATIENCE_S = 60.0
"""For what should come at once, on a machine that is busy with other things; not a bound for anything."""

T = TypeVar("T")


def until(condition: Callable[[], T], timeout_s: float = PATIENCE_S, every_s: float = 0.02, but: Callable[[], str] = str) -> T:
    """What `condition` returns once it is true; fails after `timeout_s`. but: what to say then."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not reached in {timeout_s} s\n{but()}"
        time.sleep(every_s)
    return value


class Running:
    """`python -m unlimitedws.supervisor app:handlers` (or a launcher script) in a folder of its own.

    log: everything it has written.  sockets, names: passed to it as systemd does.  environ: more for its environment.
    python: the interpreter.  packages: a folder before all others on its path.  arguments: for Python, instead of the usual ones.
    stdin: what it can read.  current: a link to make to its folder.
    The settings are given as flags: `workers=2` as `--workers 2`; None: by none."""

    def __init__(
        self, folder: Path, *, source: str = ECHO, script: str | None = None, files: dict[str, str] | None = None,
        sockets: Sequence[socket.socket] = (), names: str = "", environ: dict[str, str] | None = None,
        python: str | Path = sys.executable, packages: Path = ROOT, arguments: Sequence[str] = (), stdin: str = "",
        current: Path | None = None, **settings: object,
    ) -> None:  # fmt: skip
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.clients = contextlib.ExitStack()
        for name, text in {"app.py": source, **(files or {})}.items():
            (folder / name).write_text(text)
        settings = {"port": 0, "admin_port": 0, "workers": 1, "hang_timeout_s": 0, "control_socket": CONTROL, **settings}
        flags = [part for name, value in settings.items() if value is not None for part in flag(name, value)]
        command = [str(python), *(arguments or ["-m", "unlimitedws.supervisor", "app:handlers", *flags])]
        if script is not None:
            (folder / "launcher.py").write_text(script)
            command = [str(python), "launcher.py"]
        if sockets:
            command = activated(sockets, names, *command[1:])
        path = f"{packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
        outside = {name: value for name, value in os.environ.items() if not name.startswith(MANAGED)}
        # A launcher script names no control socket; that of a test is not to be found by others.
        outside["XDG_RUNTIME_DIR"] = str(folder)
        env = self.env = {
            **outside,
            **(environ or {}),
            "PYTHONPATH": path,
            MARK: self.mark,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.log_file = folder / f"log.{self.mark}"
        (folder / "stdin").write_text(stdin)
        if current is not None:
            current.symlink_to(folder)
        with self.log_file.open("w") as log, (folder / "stdin").open() as read:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=read, stdout=log, stderr=log, start_new_session=True,
                pass_fds=[each.fileno() for each in sockets],
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def pid(self) -> int:
        return self.process.pid

    # ---- what it says

    def says(self, pattern: str, timeout_s: float = PATIENCE_S) -> re.Match[str]:
        """The first match of a pattern in its log; waits for it."""

        def match() -> re.Match[str] | None:
            has_ended = self.process.poll() is not None
            found = re.search(pattern, self.log)
            assert found or not has_ended, f"it ended without {pattern!r} in its log:\n{self.log}"
            return found

        found = until(match, timeout_s, but=lambda: f"{pattern!r} is not in the log:\n{self.log}")
        assert found is not None
        return found

    def ready(self) -> Running:
        self.says(r"listening on ")
        return self

    @property
    def places(self) -> list[str]:
        """Where it listens."""
        return self.says(r"listening on (.+) with \d+ worker")[1].split(", ")

    @property
    def port(self) -> int:
        return int(self.says(r"listening on \S+:(\d+) with")[1])

    @property
    def admin_port(self) -> int:
        return int(self.says(r"stats on http://\S+:(\d+)/")[1])

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and text of an answer of the admin endpoint."""
        try:
            with urllib.request.urlopen(self.admin(path, headers), timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def headers(self, path: str, **headers: str) -> dict[str, str]:
        """Of an answer of the admin endpoint."""
        with urllib.request.urlopen(self.admin(path, headers), timeout=30) as answer:
            return dict(answer.headers)

    def admin(self, path: str, headers: dict[str, str]) -> urllib.request.Request:
        return urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", headers=headers)

    @property
    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(self.get("/stats")[1])
        return stats

    def workers(self) -> list[int]:
        """Pids of the workers that serve, by slot."""
        return [worker["pid"] for worker in self.stats["workers"] if worker["state"] == "ready"]

    def successors(self, *victims: int, workers: int, timeout_s: float = PATIENCE_S) -> list[int]:
        """Pids of the workers by slot, once so many serve and none of them is a victim; waits for it."""

        def now() -> list[int]:
            pids = self.workers()  # one look: between two of them anything may happen
            return pids if len(pids) == workers and not set(victims) & set(pids) else []

        return until(now, timeout_s, but=lambda: self.log)

    def template(self) -> int:
        template: int = next(process["pid"] for process in self.stats["processes"] if process["role"] == "template")
        return template

    def ctl(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """What `unlimitedws ctl` says to these arguments, and how it ends."""
        return subprocess.run(
            [*CTL, *arguments, "--control-socket", CONTROL], cwd=self.folder, env={**self.env, MARK: ""}, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip

    def dial_control(self) -> socket.socket:
        """A raw client of the control socket; the caller's to close."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(15)
        folder = os.open(self.folder, os.O_PATH)  # a path of pytest may be too long for a socket
        try:
            sock.connect(f"/proc/self/fd/{folder}/{CONTROL}")
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(folder)
        return sock

    # ---- its clients and its end

    def connect(self, path: str = "/") -> ClientConnection:
        """A client, closed at the end of the test at the latest."""
        url = f"ws://127.0.0.1:{self.port}{path}"
        return self.clients.enter_context(connect(url, open_timeout=30, close_timeout=5))

    def connect_at(self, place: str) -> ClientConnection:
        """The same at one of its `places`."""
        if place.startswith("unix:"):
            return self.clients.enter_context(unix_connect(place.removeprefix("unix:"), open_timeout=30, close_timeout=5))
        return self.clients.enter_context(connect(f"ws://{place}/", open_timeout=30, close_timeout=5))

    def echoes(self) -> bool:
        """Whether a new client gets its echo."""
        with self.connect() as client:
            client.send("hello")
            return client.recv(timeout=30) == "hello"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self, timeout_s: float = 30.0) -> int:
        """Its exit code; waits for it."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {timeout_s} s:\n{self.log}") from None

    def stop(self) -> None:
        """Stops it as an operator would, and checks that it ends well and leaves nothing behind."""
        self.clients.close()
        if self.process.poll() is None:
            assert not zombies(self.pid), f"the supervisor did not reap {zombies(self.pid)}"
            self.signal(signal.SIGTERM)
            assert self.ends() == 0, self.log
        assert "Traceback (most recent call last)" not in self.log.replace(self.expected, ""), self.log
        left = until_gone(self.mark)
        assert not left, f"processes left behind: {left}\n{self.log}"

    expected = "\0"

    def destroy(self) -> None:
        """Whatever is left, in a test that failed."""
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def port_free_everywhere() -> int:
    """A TCP port that can be listened on at every address: one that the kernel chooses may be in use elsewhere by a client's socket."""
    while True:
        port = random.randrange(20_000, 32_000)  # below net.ipv4.ip_local_port_range
        with contextlib.suppress(OSError), socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True):
            return port


def flag(name: str, value: object) -> list[str]:
    name = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [name] if value else []
    return [name, str(value)]


def marked(mark: str) -> list[int]:
    """Living processes that were started with this mark in their environment."""
    return [pid for pid in pids() if f"{MARK}={mark}".encode() in read_bytes(f"/proc/{pid}/environ")]


def until_gone(mark: str, timeout_s: float = 15.0) -> list[int]:
    deadline = time.monotonic() + timeout_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def zombies(parent: int) -> list[int]:
    """Children that have ended but were not waited for, some seconds later still."""

    def now() -> set[int]:
        found = set()
        for pid in pids():
            fields = read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            if fields[:2] == [b"Z", str(parent).encode()]:
                found.add(pid)
        return found

    left = now()
    deadline = time.monotonic() + 5.0
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left &= now()
    return sorted(left)


def pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def read_bytes(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:  # it has ended meanwhile, or is not ours
        return b""


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"])


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor of a process refers to."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since the directory was read
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def sockets(pid: int) -> set[str]:
    """Which sockets a process holds, as `socket:[inode]`."""
    return {link for link in descriptors(pid).values() if link.startswith("socket:")}


def listening_inodes(pid: int) -> set[str]:
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    listening = {f"socket:[{line.split()[9]}]" for line in table if line.split()[3] == "0A"}
    return sockets(pid) & listening
