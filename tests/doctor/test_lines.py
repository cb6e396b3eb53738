"""Changes as lines to copy."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.deploy.programs import judge, program
from unlimitedws.doctor.changes import Change
from unlimitedws.doctor.lines import WHERE, WRITERS, lines

CHANGES = [
    Change("descriptors", "setting", "workers", "9", instead_of="RLIMIT_NOFILE"),
    Change("proxy_ports", "setting", "listen", "a:1, a:2"),
    Change("descriptors", "open_files", "RLIMIT_NOFILE", "65536"),
    Change("files", "sysctl", "fs.file-max", "131072"),
    Change("backlog", "sysctl", "net.core.somaxconn", "4096"),
    Change("syn_cookies", "sysctl", "net.ipv4.tcp_syncookies", "1"),
    Change("conntrack", "sysctl", "net.netfilter.nf_conntrack_max", "262144"),
    Change("tcp_ehash", "boot", "thash_entries", "1048576"),
    Change("memory", "memory", "/sys/fs/cgroup/memory.max", str(1 << 30)),
    Change("memory_high", "memory_high", "/sys/fs/cgroup/memory.high", str(1 << 29)),
    Change("pids", "processes", "/sys/fs/cgroup/pids.max", "192"),
    Change("user_processes", "user_processes", "RLIMIT_NPROC", "128"),
    Change("cpu", "hardware", "cpus", "2"),
]


def test_each_line_is_in_the_words_of_its_place() -> None:
    assert lines(CHANGES) == {
        "settings": ["workers = 9  # instead of RLIMIT_NOFILE", 'listen = "a:1, a:2"'],
        "sysctl": [
            "fs.file-max = 131072", "net.core.somaxconn = 4096", "net.ipv4.tcp_syncookies = 1",
            "# lost at the next boot unless a file of /etc/modules-load.d/ names nf_conntrack", "net.netfilter.nf_conntrack_max = 262144",
        ],
        "boot": ['GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX thash_entries=1048576"'],
        "systemd": ["LimitNOFILE=65536", "MemoryMax=1024M", "MemoryHigh=512M", "TasksMax=192", "LimitNPROC=128"],
        "login": ["app hard nofile 65536", "app hard nproc 128"],
        "docker": [
            "--ulimit nofile=65536:65536", "--sysctl 'net.core.somaxconn=4096'", "--sysctl 'net.ipv4.tcp_syncookies=1'", "--memory=1024m",
            "--pids-limit=192", "--ulimit nproc=128:128",
        ],
        "kubernetes": [
            "# node, [Service] of the container runtime: LimitNOFILE=65536", "# node, sysctl: fs.file-max = 131072",
            "# node, of the kubelet: add net.core.somaxconn to allowedUnsafeSysctls",
            '- {name: net.core.somaxconn, value: "4096"}  # spec.securityContext.sysctls',
            '- {name: net.ipv4.tcp_syncookies, value: "1"}  # spec.securityContext.sysctls',
            "# node, sysctl: net.netfilter.nf_conntrack_max = 262144", "# node, the kernel's command line: thash_entries=1048576",
            "memory: 1024Mi  # resources.limits", "# node, of the kubelet: podPidsLimit: 192",
            "# node, [Service] of the container runtime: LimitNPROC=128",
        ],
    }  # fmt: skip


def test_of_nested_cgroups_the_largest_limit_is_the_one_to_set() -> None:
    nested = [Change("memory", "memory", path, str(size << 30)) for path, size in (("/a/b/memory.max", 2), ("/a/memory.max", 3))]
    assert lines(nested)["systemd"] == ["MemoryMax=3072M"]
    assert lines(nested[::-1])["docker"] == ["--memory=3072m"]


def test_toml_and_yaml_can_be_read() -> None:
    written = lines(CHANGES)
    assert tomllib.loads("\n".join(written["settings"])) == {"workers": 9, "listen": "a:1, a:2"}
    sysctls = [line for line in written["kubernetes"] if line.startswith("- {")]
    assert yaml.safe_load("\n".join(sysctls)) == [
        {"name": "net.core.somaxconn", "value": "4096"},
        {"name": "net.ipv4.tcp_syncookies", "value": "1"},
    ]
    (memory,) = [line for line in written["kubernetes"] if line.startswith("memory")]
    assert yaml.safe_load(memory) == {"memory": "1024Mi"}


def test_kubernetes_accepts_a_pod_with_them() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs the schemas: pip install 'unlimitedws[deploy]'")
    written = [yaml.safe_load(line) for line in lines(CHANGES)["kubernetes"] if not line.startswith("#")]
    sysctls = [one for line in written if isinstance(line, list) for one in line]
    (memory,) = [line for line in written if isinstance(line, dict)]
    container = {"name": "app", "image": "app", "resources": {"limits": memory}}
    spec = {"containers": [container], "securityContext": {"sysctls": sysctls}}
    validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": spec}, "1.34", strict=True)


def test_systemd_accepts_a_unit_with_them(tmp_path: Path) -> None:
    unit = tmp_path / "said.service"
    unit.write_text("\n".join(["[Service]", "ExecStart=/bin/true", *lines(CHANGES)["systemd"], ""]))
    said = judge(program("systemd-analyze"), "verify", "--man=no", unit)
    assert "said.service" not in said, said  # it warns of unknown keys and bad values, and goes on


def test_sysctl_reads_a_file_with_them(tmp_path: Path) -> None:
    """Without --dry-run, of which old ones know nothing, it would set them; so with keys of which there is none."""
    file = tmp_path / "90-unlimitedws.conf"
    given = lines([change._replace(key=f"no.such.{change.key}") if change.kind == "sysctl" else change for change in CHANGES])["sysctl"]
    file.write_text("\n".join([*given, lines(CHANGES)["sysctl"][3], ""]))
    done = subprocess.run([program("sysctl"), "-p", file], capture_output=True, text=True, timeout=60, check=False)
    wrong = done.stderr.splitlines()
    assert len(wrong) == len(given) == 4, done.stderr
    assert all("No such file" in line for line in wrong), done.stderr


def test_a_boot_loader_that_sources_its_file_adds_the_parameter(tmp_path: Path) -> None:
    file = tmp_path / "90-unlimitedws.cfg"
    file.write_text("\n".join([*lines(CHANGES)["boot"], ""]))
    script = 'GRUB_CMDLINE_LINUX=quiet; . "$1"; echo "$GRUB_CMDLINE_LINUX"'
    assert subprocess.check_output(["sh", "-c", script, "sh", file], text=True) == "quiet thash_entries=1048576\n"


def test_every_section_has_its_place_and_nothing_to_change_is_no_line() -> None:
    assert list(WHERE) == list(WRITERS)
    assert lines([]) == lines(CHANGES[-1:]) == {}
