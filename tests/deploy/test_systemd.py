"""The systemd units: systemd accepts them, and what they say fits our settings."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, changed, directives, read, seconds
from tests.deploy.programs import judge, program
from unlimitedws.commands import parser
from unlimitedws.config import DEFAULTS
from unlimitedws.errors import AppError, ConfigError
from unlimitedws.sources import load

SERVICE, SOCKET = "systemd/unlimitedws.service", "systemd/unlimitedws.socket"
PROGRAM = "/srv/app/.venv/bin/unlimitedws"
EXPOSURE = 20
"""Of 100 (systemd-analyze security): 16 when this was written; a service without hardening has 96."""

CALLS = {
    "accept4", "access", "arch_prctl", "bind", "brk", "chmod", "chown", "clone", "clone3", "close", "connect", "epoll_create1",
    "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "execve", "exit_group", "fcntl", "ftruncate", "futex", "getcwd", "getdents64",
    "getpeername", "getpid", "getrandom", "getsockname", "getsockopt", "gettid", "io_uring_enter", "io_uring_setup", "ioctl", "kill",
    "listen", "lseek", "madvise", "memfd_create", "mmap", "mprotect", "munmap", "newfstatat", "openat", "pidfd_open", "pidfd_send_signal",
    "pipe2", "poll", "prctl", "pread64", "prlimit64", "pwrite64", "read", "readlink", "recvfrom", "recvmsg", "rseq", "rt_sigaction",
    "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sendmsg", "sendto", "set_robust_list", "set_tid_address", "setsockopt",
    "shutdown", "sigaltstack", "socket", "socketpair", "sysinfo", "uname", "unlink", "wait4", "waitid", "write",
}  # fmt: skip
"""Of a server with two workers, TCP and a Unix socket, through a start, a few clients, a reload, a killed worker and a stop, as
strace saw them; and what it makes of the kernel at other times."""


def unit(name: str = SERVICE) -> dict[str, list[str]]:
    return directives(read(name))


def test_systemd_accepts_both_units(tmp_path: Path) -> None:
    here = tmp_path / "unlimitedws.service"
    here.write_text(changed(read(SERVICE), {PROGRAM: "/bin/true"}))
    (tmp_path / "unlimitedws.socket").write_text(read(SOCKET))
    said = judge(program("systemd-analyze"), "verify", "--man=no", here, tmp_path / "unlimitedws.socket")
    assert "unlimitedws" not in said, said  # it warns of unknown keys, and goes on


def test_the_hardening_is_as_tight_as_it_was() -> None:
    analyze = program("systemd-analyze")
    if "--threshold" not in judge(analyze, "--help"):
        pytest.skip("this systemd cannot judge a unit file offline; systemd 250 and newer can")
    judge(analyze, "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", DEPLOY / SERVICE)


def test_the_command_and_its_settings_are_accepted() -> None:
    path, *arguments = shlex.split(unit()["ExecStart"][0])
    assert path == PROGRAM
    options = parser().parse_args(arguments)
    assert options.config == "/srv/app/unlimitedws.toml"
    config, sources = load({}, {}, str(DEPLOY / "systemd/unlimitedws.toml"))
    assert (config.listen, config.health_path) == ("systemd", "/health")
    assert sources["trusted_proxies"] != "default"


def test_a_reload_is_asked_for_where_the_server_listens() -> None:
    path, *arguments = shlex.split(unit()["ExecReload"][0])
    assert path == PROGRAM
    options = parser().parse_args(arguments)
    assert (options.command, options.verb, options.config) == ("ctl", "reload", "/srv/app/unlimitedws.toml")
    config, _ = load({}, {}, str(DEPLOY / "systemd/unlimitedws.toml"))
    assert config.control_socket.startswith(f"/run/{unit()['RuntimeDirectory'][0]}/")


def test_a_stop_has_the_time_that_it_may_take() -> None:
    assert seconds(unit()["TimeoutStopSec"][0]) > DEFAULTS["stop_timeout_s"]
    assert unit()["KillMode"] == ["mixed"]


def test_only_what_will_not_change_by_itself_is_not_tried_again() -> None:
    assert unit()["RestartPreventExitStatus"] == [str(ConfigError.exit_code)]
    assert ConfigError.exit_code != AppError.exit_code


def test_systemd_is_told_by_the_supervisor_and_watches_it() -> None:
    assert (unit()["Type"], unit()["NotifyAccess"]) == (["notify"], ["main"])
    assert seconds(unit()["WatchdogSec"][0]) >= 10


def test_a_worker_without_memory_does_not_end_the_others() -> None:
    assert unit()["OOMPolicy"] == ["continue"]


def test_the_queue_of_the_socket_is_that_of_the_setting() -> None:
    assert unit(SOCKET)["Backlog"] == [str(DEFAULTS["backlog"])]


def test_the_system_calls_of_a_server_are_allowed() -> None:
    """systemd expands the filter; what is denied must not be what a server makes use of."""
    analyze = program("systemd-analyze")
    listed = subprocess.run([analyze, "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True, timeout=60).stdout
    groups: dict[str, set[str]] = {}
    for line in listed.splitlines():
        if line.startswith("@"):
            names = groups.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            names.add(line.strip())

    def calls(name: str) -> set[str]:
        return set().union(*(calls(each) if each.startswith("@") else {each} for each in groups[name]))

    allowed: set[str] = set()
    for line in unit()["SystemCallFilter"]:
        allowed = allowed - calls(line[1:]) if line.startswith("~") else allowed | calls(line)
    assert not CALLS - allowed
