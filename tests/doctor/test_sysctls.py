"""Settings of a kernel: read where they are shown, and named where not."""

from __future__ import annotations

from pathlib import Path

from tests.doctor.trees import plain, tiny, write
from unlimitedws.doctor import sysctls


def test_settings_with_several_numbers_are_read_whole(tmp_path: Path) -> None:
    known, unknown = sysctls.read(plain(tmp_path))
    assert known["net.ipv4.tcp_mem"] == (196608, 262144, 393216)
    assert known["net.core.somaxconn"] == (4096,)
    assert set(unknown) == {"net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_buckets"}


def test_what_is_not_there_or_not_a_number_is_named_with_the_reason(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    write(root / "proc/sys/fs/file-max", "many\n")
    known, unknown = sysctls.read(root)
    assert set(known) == {"fs.nr_open", "net.core.somaxconn"}
    assert unknown["net.ipv4.tcp_mem"] == "not there"
    assert "many" in unknown["fs.file-max"]
    assert set(known) | set(unknown) == set(sysctls.NAMES)


def test_this_machine_can_be_read() -> None:
    known, _ = sysctls.read(Path("/"))
    assert known["fs.nr_open"][0] > 0


def test_a_read_only_proc_sys_is_noticed(tmp_path: Path) -> None:
    assert not sysctls.is_sealed(plain(tmp_path))
    write(tmp_path / "proc/self/mountinfo", "700 690 0:5 / /proc rw - proc proc rw\n701 700 0:5 /sys /proc/sys ro,nosuid - proc proc rw\n")
    assert sysctls.is_sealed(tmp_path)
    write(tmp_path / "proc/self/mountinfo", "garbage\n\n")
    assert not sysctls.is_sealed(tmp_path)
