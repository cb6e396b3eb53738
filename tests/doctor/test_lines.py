"""Changes as lines to copy."""

from __future__ import annotations

import tomllib

import yaml

from unlimitedws.doctor.changes import Change
from unlimitedws.doctor.lines import WHERE, WRITERS, lines

CHANGES = [
    Change("descriptors", "setting", "workers", "9", instead_of="RLIMIT_NOFILE"),
    Change("proxy_ports", "setting", "listen", "a:1, a:2"),
    Change("descriptors", "open_files", "RLIMIT_NOFILE", "65536"),
    Change("files", "sysctl", "fs.file-max", "131072"),
    Change("backlog", "sysctl", "net.core.somaxconn", "4096"),
    Change("memory", "memory", "/sys/fs/cgroup/memory.max", str(1 << 30)),
    Change("pids", "processes", "/sys/fs/cgroup/pids.max", "192"),
    Change("user_processes", "user_processes", "RLIMIT_NPROC", "128"),
    Change("cpu", "hardware", "cpus", "2"),
]


def test_each_line_is_in_the_words_of_its_place() -> None:
    assert lines(CHANGES) == {
        "settings": ["workers = 9  # instead of RLIMIT_NOFILE", 'listen = "a:1, a:2"'],
        "sysctl": ["fs.file-max = 131072", "net.core.somaxconn = 4096"],
        "systemd": ["LimitNOFILE=65536", "MemoryMax=1024M", "TasksMax=192", "LimitNPROC=128"],
        "login": ["app hard nofile 65536", "app hard nproc 128"],
        "docker": [
            "--ulimit nofile=65536:65536", "--sysctl 'net.core.somaxconn=4096'", "--memory=1024m", "--pids-limit=192",
            "--ulimit nproc=128:128",
        ],
        "kubernetes": [
            "# node, [Service] of the container runtime: LimitNOFILE=65536", "# node, sysctl: fs.file-max = 131072",
            '- {name: net.core.somaxconn, value: "4096"}  # spec.securityContext.sysctls', "memory: 1024Mi  # resources.limits",
            "# node, of the kubelet: podPidsLimit: 192",
        ],
    }  # fmt: skip


def test_they_can_be_read_by_those_they_are_for() -> None:
    written = lines(CHANGES)
    assert tomllib.loads("\n".join(written["settings"])) == {"workers": 9, "listen": "a:1, a:2"}
    assert yaml.safe_load(written["kubernetes"][2]) == [{"name": "net.core.somaxconn", "value": "4096"}]
    assert yaml.safe_load(written["kubernetes"][3]) == {"memory": "1024Mi"}


def test_every_section_has_its_place_and_nothing_to_change_is_no_line() -> None:
    assert list(WHERE) == list(WRITERS)
    assert lines([]) == lines(CHANGES[-1:]) == {}
