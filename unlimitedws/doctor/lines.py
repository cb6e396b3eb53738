"""Changes as lines to copy: for the settings, sysctl, the boot loader, systemd, Docker and Kubernetes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unlimitedws.config import kind
from unlimitedws.doctor.changes import Change
from unlimitedws.doctor.sysctls import OF_A_CONTAINER

WHERE = {
    "settings": "the file of --config, or as flags",
    "sysctl": "/etc/sysctl.d/90-unlimitedws.conf, then: sysctl --system; for a container on its host, but those of its own section",
    "boot": "/etc/default/grub.d/90-unlimitedws.cfg, then: update-grub and a restart; without GRUB: the kernel's command line",
    "systemd": "[Service] of the unit",
    "login": "/etc/security/limits.d/90-unlimitedws.conf, for a server started from a login; change its user",
    "docker": "docker run",
    "kubernetes": "the pod; what a pod cannot say, on its node",
}
"""Where the lines of each section belong."""

SAFE_IN_A_POD = frozenset({"net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"})
"""What every kubelet lets a pod set, of OF_A_CONTAINER (pkg/kubelet/sysctl/safe_sysctls.go); tcp_rmem and tcp_wmem since 1.32."""

LATE = {
    "net.ipv4.tcp_child_ehash_entries": "for network namespaces that are made from then on: start the container again",
    "net.netfilter.nf_conntrack_max": "lost at the next boot unless a file of /etc/modules-load.d/ names nf_conntrack",
    "net.netfilter.nf_conntrack_buckets": "lost at the next boot unless a file of /etc/modules-load.d/ names nf_conntrack",
}
"""Of a sysctl, when it counts, where that is not at once and for ever."""


def lines(changes: Sequence[Change]) -> dict[str, list[str]]:
    """Section of WHERE to its lines; sections without any are left out. `hardware` has no line."""
    told = [change for change in changes if change in furthest(changes)]
    found = {section: [line for change in told for line in write(change).splitlines()] for section, write in WRITERS.items()}
    return {section: written for section, written in found.items() if written}


def furthest(changes: Sequence[Change]) -> list[Change]:
    """Of nested cgroups only the largest limit: a unit, a container or a pod says one number."""
    last = {
        (change.kind, change.key if change.kind not in ("memory", "memory_high", "processes") else ""): change
        for change in sorted(changes, key=size)
    }
    return list(last.values())


def size(change: Change) -> int:
    return int(change.value) if change.value.isdigit() else 0


def settings(change: Change) -> str:
    if change.kind != "setting":
        return ""
    value = f'"{change.value}"' if kind(change.key) is str else change.value
    return f"{change.key} = {value}" + (f"  # instead of {change.instead_of}" if change.instead_of else "")


def sysctl(change: Change) -> str:
    """A comment has a line of its own (sysctl.d(5))."""
    if change.kind != "sysctl":
        return ""
    late = f"# {LATE[change.key]}\n" if change.key in LATE else ""
    return f"{late}{change.key} = {change.value}"


def boot(change: Change) -> str:
    return f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {change.key}={change.value}"' if change.kind == "boot" else ""


def systemd(change: Change) -> str:
    return {
        "open_files": f"LimitNOFILE={change.value}",
        "memory": f"MemoryMax={mebibytes(change)}M",
        "memory_high": f"MemoryHigh={mebibytes(change)}M",
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
        leave = "" if change.key in SAFE_IN_A_POD else f"# node, of the kubelet: add {change.key} to allowedUnsafeSysctls\n"
        return f'{leave}- {{name: {change.key}, value: "{change.value}"}}  # spec.securityContext.sysctls'
    return {
        "open_files": f"# node, [Service] of the container runtime: LimitNOFILE={change.value}",
        "boot": f"# node, the kernel's command line: {change.key}={change.value}",
        "memory": f"memory: {mebibytes(change)}Mi  # resources.limits",
        "processes": f"# node, of the kubelet: podPidsLimit: {change.value}",
        "user_processes": f"# node, [Service] of the container runtime: LimitNPROC={change.value}",
    }.get(change.kind, "")


def mebibytes(change: Change) -> int:
    """Of memory, which is always a number of steps of 64 MiB."""
    return int(change.value) >> 20 if change.kind in ("memory", "memory_high") else 0


WRITERS: dict[str, Callable[[Change], str]] = {
    "settings": settings, "sysctl": sysctl, "boot": boot, "systemd": systemd, "login": login, "docker": docker, "kubernetes": kubernetes,
}  # fmt: skip
