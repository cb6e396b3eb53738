"""Changes as lines to copy: for the settings, sysctl, systemd, Docker and Kubernetes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unlimitedws.config import kind
from unlimitedws.doctor.changes import Change
from unlimitedws.doctor.sysctls import OF_A_CONTAINER

WHERE = {
    "settings": "the file of --config, or as flags",
    "sysctl": "/etc/sysctl.d/90-unlimitedws.conf, then: sysctl --system (of a container: on its host)",
    "systemd": "[Service] of the unit",
    "login": "/etc/security/limits.d/90-unlimitedws.conf, for a server started from a login; change its user",
    "docker": "docker run",
    "kubernetes": "the pod; what a pod cannot say, on its node",
}
"""Where the lines of each section belong."""


def lines(changes: Sequence[Change]) -> dict[str, list[str]]:
    """Section of WHERE to its lines; sections without any are left out. `hardware` has no line."""
    found = {section: [line for change in changes if (line := write(change))] for section, write in WRITERS.items()}
    return {section: written for section, written in found.items() if written}


def settings(change: Change) -> str:
    if change.kind != "setting":
        return ""
    value = f'"{change.value}"' if kind(change.key) is str else change.value
    return f"{change.key} = {value}" + (f"  # instead of {change.instead_of}" if change.instead_of else "")


def sysctl(change: Change) -> str:
    return f"{change.key} = {change.value}" if change.kind == "sysctl" else ""


def systemd(change: Change) -> str:
    return {
        "open_files": f"LimitNOFILE={change.value}",
        "memory": f"MemoryMax={mebibytes(change)}M",
        "processes": f"TasksMax={change.value}",
        "user_processes": f"LimitNPROC={change.value}",
    }.get(change.kind, "")


def login(change: Change) -> str:
    return {"open_files": f"app hard nofile {change.value}", "user_processes": f"app hard nproc {change.value}"}.get(change.kind, "")


def docker(change: Change) -> str:
    if change.kind == "sysctl" and change.key in OF_A_CONTAINER:
        return f"--sysctl '{change.key}={change.value}'"
    return {
        "open_files": f"--ulimit nofile={change.value}:{change.value}",
        "memory": f"--memory={mebibytes(change)}m",
        "processes": f"--pids-limit={change.value}",
        "user_processes": f"--ulimit nproc={change.value}:{change.value}",
    }.get(change.kind, "")


def kubernetes(change: Change) -> str:
    if change.kind == "sysctl":
        if change.key not in OF_A_CONTAINER:
            return f"# node, sysctl: {change.key} = {change.value}"
        return f'- {{name: {change.key}, value: "{change.value}"}}  # spec.securityContext.sysctls'
    return {
        "open_files": f"# node, [Service] of the container runtime: LimitNOFILE={change.value}",
        "memory": f"memory: {mebibytes(change)}Mi  # resources.limits",
        "processes": f"# node, of the kubelet: podPidsLimit: {change.value}",
    }.get(change.kind, "")


def mebibytes(change: Change) -> int:
    """Of memory, which is always a number of steps of 64 MiB."""
    return int(change.value) >> 20 if change.kind == "memory" else 0


WRITERS: dict[str, Callable[[Change], str]] = {
    "settings": settings, "sysctl": sysctl, "systemd": systemd, "login": login, "docker": docker, "kubernetes": kubernetes,
}  # fmt: skip
