"""Folders that look like /proc and /sys of machines one meets, and what applies printed lines to them."""

from __future__ import annotations

import dataclasses
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from unlimitedws.config import Config
from unlimitedws.doctor.lines import WHERE

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def limits(soft: int | str = 1024, hard: int | str = 1048576, processes: int | str = "unlimited") -> str:
    return (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        f"Max processes             {processes:<20} {processes:<20} processes \n"
        f"Max open files            {soft:<20} {hard:<20} files     \n"
        "Max address space         unlimited            unlimited            bytes     \n"
    )


def meminfo(total: int, available: int) -> str:
    return f"MemTotal: {total // KIB} kB\nMemFree: 5 kB\nMemAvailable: {available // KIB} kB\nCommitLimit: 900 kB\nCommitted_AS: 500 kB\n"


def settings(memory: int = 16 * GIB, **changed: str) -> dict[str, str]:
    """Of a kernel as distributions set it, with so much memory; `net__core__somaxconn=` to change one."""
    pages = memory // 4096
    found = {
        "fs.nr_open": "1048576",
        "fs.file-max": "9223372036854775807",
        "fs.file-nr": "3000\t0\t9223372036854775807",
        "fs.epoll.max_user_watches": str(memory // 25 // 184),
        "net.core.somaxconn": "4096",
        "net.core.netdev_max_backlog": "1000",
        "net.ipv4.tcp_max_syn_backlog": "2048",
        "net.ipv4.tcp_syncookies": "1",
        "net.ipv4.tcp_mem": f"{pages // 16 * 3 // 4}\t{pages // 16}\t{pages // 16 * 3 // 2}",
        "net.ipv4.tcp_rmem": "4096\t131072\t6291456",
        "net.ipv4.tcp_wmem": "4096\t16384\t4194304",
        "net.ipv4.ip_local_port_range": "32768\t60999",
        "net.ipv4.tcp_migrate_req": "0",
        "net.ipv4.tcp_max_orphans": "65536",
        "net.ipv4.tcp_max_tw_buckets": "65536",
        "net.ipv4.tcp_ehash_entries": str(min(memory >> 17, 524288)),
        "vm.overcommit_memory": "0",
        "kernel.osrelease": "6.1.0-30-amd64",
    }
    return {**found, **{name.replace("__", "."): value for name, value in changed.items()}}


CONNTRACK = {
    "net.netfilter.nf_conntrack_max": "262144",
    "net.netfilter.nf_conntrack_count": "1200",
    "net.netfilter.nf_conntrack_buckets": "262144",
}
NOT_OF_A_CONTAINER = ("net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans", "net.core.netdev_max_backlog")
"""What a network namespace beside the host's does not show (seen on Linux 6.18)."""


def build(root: Path, files: Mapping[str, str], sysctls: Mapping[str, str]) -> Path:
    """Writes a machine's files; the sysctls by name."""
    sysctl_files = {"proc/sys/" + name.replace(".", "/"): value + "\n" for name, value in sysctls.items()}
    for name, text in {**sysctl_files, **files}.items():
        write(root / name, text)
    return root


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def plain(root: Path, *, hard: int = 1048576, memory: int = 16 * GIB, **changed: str) -> Path:
    """A server with systemd, cgroups of version 2 without limits, no firewall that tracks."""
    available = memory - min(memory // 4, GIB)
    files = {
        "proc/self/limits": limits(hard=hard, processes=62000),
        "proc/meminfo": meminfo(memory, available),
        "proc/self/cgroup": "0::/system.slice/unlimitedws.service\n",
        "proc/self/mountinfo": "25 30 0:22 / /proc/sys rw,nosuid - proc proc rw\n",
        "proc/net/sockstat": "sockets: used 200\nTCP: inuse 40 orphan 0 tw 3 alloc 50 mem 20\nUDP: inuse 2 mem 1\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/fs/cgroup/system.slice/memory.max": "max\n",
        "sys/fs/cgroup/system.slice/memory.current": "900000\n",
        "sys/fs/cgroup/system.slice/unlimitedws.service/memory.max": "max\n",
        "sys/fs/cgroup/system.slice/unlimitedws.service/memory.current": "90000\n",
        "sys/fs/cgroup/system.slice/unlimitedws.service/pids.max": "9000\n",
        "sys/fs/cgroup/system.slice/unlimitedws.service/pids.current": "10\n",
    }
    return build(root, files, settings(memory, **changed))


def firewalled(root: Path) -> Path:
    """A server whose firewall tracks connections, with the limit of open files that a login has by default."""
    plain(root, hard=4096)
    return build(root, {}, CONNTRACK)


def docker_v1(root: Path) -> Path:
    """A container of Docker on a host with cgroups of version 1: its path is the host's, its files lie at the top."""
    sysctls = {name: value for name, value in {**settings(), **CONNTRACK}.items() if name not in NOT_OF_A_CONTAINER}
    files = {
        ".dockerenv": "",
        "proc/self/limits": limits(soft=1048576),
        "proc/meminfo": meminfo(16 * GIB, 12 * GIB),
        "proc/self/cgroup": "5:pids:/docker/4f2a\n4:memory:/docker/4f2a\n3:cpu,cpuacct:/docker/4f2a\n0::/system.slice/containerd.service\n",
        "proc/self/mountinfo": "700 690 0:5 / /proc rw - proc proc rw\n701 700 0:5 /sys /proc/sys ro,nosuid - proc proc rw\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{512 * MIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{100 * MIB}\n",
        "sys/fs/cgroup/memory/memory.stat": f"cache 7\ntotal_inactive_file {60 * MIB}\n",
        "sys/fs/cgroup/pids/pids.max": "100\n",
        "sys/fs/cgroup/pids/pids.current": "4\n",
    }
    of_its_own = {"net.netfilter.nf_conntrack_count": "0", "net.core.somaxconn": "128", "net.ipv4.tcp_ehash_entries": "-131072"}
    return build(root, files, {**sysctls, **of_its_own})


def kubernetes_v2(root: Path) -> Path:
    """A pod on a node with cgroups of version 2, seen without a cgroup namespace: the pod is tighter than its container."""
    sysctls = {name: value for name, value in settings().items() if name not in NOT_OF_A_CONTAINER}
    pod, container = "kubepods.slice/pod1", "kubepods.slice/pod1/app"
    files = {
        "var/run/secrets/kubernetes.io/serviceaccount/namespace": "default",
        "proc/self/limits": limits(soft=1048576),
        "proc/meminfo": meminfo(64 * GIB, 40 * GIB),
        "proc/self/cgroup": f"0::/{container}\n",
        "proc/self/mountinfo": "701 700 0:5 /sys /proc/sys ro,nosuid - proc proc rw\n",
        "sys/fs/cgroup/kubepods.slice/memory.max": f"{60 * GIB}\n",
        "sys/fs/cgroup/kubepods.slice/memory.current": f"{20 * GIB}\n",
        f"sys/fs/cgroup/{pod}/memory.max": f"{GIB}\n",
        f"sys/fs/cgroup/{pod}/memory.current": f"{200 * MIB}\n",
        f"sys/fs/cgroup/{container}/memory.max": f"{2 * GIB}\n",
        f"sys/fs/cgroup/{container}/memory.current": f"{150 * MIB}\n",
        f"sys/fs/cgroup/{container}/memory.stat": f"anon 5\ninactive_file {20 * MIB}\n",
        f"sys/fs/cgroup/{pod}/memory.high": "max\n",
        f"sys/fs/cgroup/{container}/memory.high": f"{1900 * MIB}\n",
        f"sys/fs/cgroup/{pod}/pids.max": "1024\n",
        f"sys/fs/cgroup/{pod}/pids.current": "30\n",
        f"sys/fs/cgroup/{container}/pids.max": "max\n",
    }
    return build(root, files, {**sysctls, "net.ipv4.tcp_ehash_entries": "-524288"})


def wsl(root: Path) -> Path:
    """The kernel of WSL 2 on a laptop: few settings, no cgroup limits, a limit of open files that was never raised."""
    sysctls = settings(8 * GIB, kernel__osrelease="5.15.153.1-microsoft-standard-WSL2", net__core__somaxconn="4096")
    for missing in ("net.ipv4.tcp_migrate_req", "net.ipv4.tcp_ehash_entries", "fs.epoll.max_user_watches"):
        del sysctls[missing]
    files = {
        "proc/self/limits": limits(soft=1024, hard=4096),
        "proc/meminfo": meminfo(8 * GIB, 6 * GIB),
        "proc/self/cgroup": "0::/\n",
    }
    return build(root, files, sysctls)


def tiny(root: Path) -> Path:
    """A container of 128 MiB with 1,024 open files, that shows hardly anything."""
    files = {
        "run/.containerenv": "",
        "proc/self/limits": limits(soft=1024, hard=1024),
        "proc/meminfo": meminfo(2 * GIB, GIB),
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{128 * MIB}\n",
        "sys/fs/cgroup/memory.current": f"{10 * MIB}\n",
        "sys/fs/cgroup/pids.max": "32\n",
        "sys/fs/cgroup/pids.current": "2\n",
    }
    return build(root, files, {"fs.nr_open": "1048576", "net.core.somaxconn": "128", "kernel.osrelease": "5.4.0"})


def bare(root: Path) -> Path:
    """Nothing is to be seen at all."""
    return build(root, {}, {})


TREES: dict[str, Callable[[Path], Path]] = {
    "plain": plain, "firewalled": firewalled, "docker_v1": docker_v1, "kubernetes_v2": kubernetes_v2,
    "wsl": wsl, "tiny": tiny, "bare": bare,
}  # fmt: skip


# ---- what a reader of the lines would do


def applied(root: Path, lines: Mapping[str, list[str]], config: Config, *, alternatives: bool = False) -> Config:
    """Does to a tree what printed lines of `sysctl`, `boot`, `systemd` and `settings` say; the settings with theirs.

    alternatives: take what is said to replace something else, and not that."""
    assert set(lines) <= set(WHERE)
    replaced = {line.partition("# instead of ")[2] for line in lines.get("settings", []) if "# instead of" in line}
    for line in lines.get("sysctl", []):
        if not line.startswith("#"):
            name, _, value = line.partition(" = ")
            set_sysctl(root, MADE_WITH.get(name, name), value)
    for line in lines.get("boot", []):
        parameter, value = shlex.split(line)[0].replace("=", " ").split()[2:]
        set_sysctl(root, BOOTED_WITH[parameter], value)
    for line in lines.get("systemd", []):
        key, _, value = line.partition("=")
        if not (alternatives and key == "LimitNOFILE" and "RLIMIT_NOFILE" in replaced):
            UNIT[key](root, value)
    chosen = [line for line in lines.get("settings", []) if alternatives or "# instead of" not in line]
    return changed(config, chosen)


MADE_WITH = {"net.ipv4.tcp_child_ehash_entries": "net.ipv4.tcp_ehash_entries"}
"""What a namespace that is made then has, by the sysctl that is set before."""
BOOTED_WITH = {"thash_entries": "net.ipv4.tcp_ehash_entries"}
"""What a kernel that was started so has, by the parameter."""


def set_sysctl(root: Path, name: str, value: str) -> None:
    write(root / "proc/sys" / name.replace(".", "/"), value + "\n")


def changed(config: Config, lines: list[str]) -> Config:
    return dataclasses.replace(config, **tomllib.loads("\n".join(lines)))


def limit_open_files(root: Path, value: str) -> None:
    assert int(value) <= int((root / "proc/sys/fs/nr_open").read_text()), "the kernel would refuse it"
    replace(root, r"(Max open files +\S+ +)\S+", rf"\g<1>{value}")


def limit_user_processes(root: Path, value: str) -> None:
    replace(root, r"(Max processes +\S+ +)\S+", rf"\g<1>{value}")


def replace(root: Path, pattern: str, by: str) -> None:
    file = root / "proc/self/limits"
    file.write_text(re.sub(pattern, by, file.read_text()))


def limit_memory(root: Path, value: str) -> None:
    """Of every cgroup that has a lower limit: a unit sets its own, and whoever reads the paths those above."""
    size = int(value.removesuffix("M")) * MIB
    for name in ("memory.max", "memory.limit_in_bytes"):
        raise_to(root, name, size)


def throttle_memory(root: Path, value: str) -> None:
    raise_to(root, "memory.high", int(value.removesuffix("M")) * MIB)


def limit_tasks(root: Path, value: str) -> None:
    raise_to(root, "pids.max", int(value))


def raise_to(root: Path, name: str, least: int) -> None:
    for file in (root / "sys/fs/cgroup").rglob(name):
        text = file.read_text().strip()
        if text.isdigit() and int(text) < least:
            file.write_text(f"{least}\n")


UNIT = {
    "LimitNOFILE": limit_open_files, "LimitNPROC": limit_user_processes, "MemoryMax": limit_memory, "MemoryHigh": throttle_memory,
    "TasksMax": limit_tasks,
}  # fmt: skip
