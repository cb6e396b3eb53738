from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from unlimitedws.memory import Memory

MIB = 1 << 20


def machine(root: Path, *, cgroup: str = "0::/\n", used_percent: int = 10, **files: str | int) -> Memory:
    """A machine's files under `root`; names of `files` with __ for /, without sys/fs/cgroup."""
    available = 10_000 * (100 - used_percent)
    write(root / "proc/meminfo", f"MemTotal: 1000000 kB\nMemFree: 5 kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n")
    write(root / "proc/self/cgroup", cgroup)
    for name, text in files.items():
        write(root / "sys/fs/cgroup" / name.replace("__", "/").replace("memory_", "memory."), f"{text}\n")
    return Memory(root)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_cgroups_it_is_the_machine_that_counts(tmp_path: Path) -> None:
    assert machine(tmp_path, used_percent=37).read() == (pytest.approx(0.37), 0.0)


def test_a_limit_of_the_cgroup_counts_when_it_is_nearer(tmp_path: Path) -> None:
    memory = machine(tmp_path, cgroup="0::/app\n", app__memory_max=100 * MIB, app__memory_current=60 * MIB, app__memory_stat="anon 1")
    assert memory.read().used == pytest.approx(0.6)


def test_page_cache_that_is_given_up_does_not_count(tmp_path: Path) -> None:
    stat = f"anon 5\ninactive_file {30 * MIB}\nactive_file {5 * MIB}"
    memory = machine(tmp_path, cgroup="0::/app\n", app__memory_max=100 * MIB, app__memory_current=60 * MIB, app__memory_stat=stat)
    assert memory.read().used == pytest.approx(0.3)


def test_limits_of_cgroups_above_count_too(tmp_path: Path) -> None:
    memory = machine(
        tmp_path, cgroup="0::/pod/app\n",
        pod__memory_max=100 * MIB, pod__memory_current=80 * MIB, pod__app__memory_max="max", pod__app__memory_current=1 * MIB,
    )  # fmt: skip
    assert memory.read().used == pytest.approx(0.8)


@pytest.mark.parametrize("path", ["/", "/docker/0123", "/../.."])
def test_in_a_container_the_limit_is_at_the_top(tmp_path: Path, path: str) -> None:
    memory = machine(tmp_path, cgroup=f"0::{path}\n", memory_max=100 * MIB, memory_current=70 * MIB)
    assert memory.read().used == pytest.approx(0.7)


def test_version_1_of_cgroups_is_read(tmp_path: Path) -> None:
    memory = machine(
        tmp_path, cgroup="4:memory:/app\n3:cpu:/\n0::/\n", memory__app__memory_limit_in_bytes=200 * MIB,
        memory__app__memory_usage_in_bytes=110 * MIB, memory__app__memory_stat=f"cache 7\ntotal_inactive_file {10 * MIB}",
    )  # fmt: skip
    assert memory.read().used == pytest.approx(0.5)


def test_the_largest_number_of_version_1_is_no_limit(tmp_path: Path) -> None:
    memory = machine(tmp_path, cgroup="4:memory:/\n", memory__memory_limit_in_bytes=2**63 - 4096, memory__memory_usage_in_bytes=5)
    assert memory.read().used == pytest.approx(0.1)


def test_a_limit_that_changes_is_noticed(tmp_path: Path) -> None:
    memory = machine(tmp_path, memory_max="max", memory_current=50 * MIB)
    assert memory.read().used == pytest.approx(0.1)
    write(tmp_path / "sys/fs/cgroup/memory.max", f"{100 * MIB}\n")
    assert memory.read().used == pytest.approx(0.5)


def test_the_longer_of_two_stalls_counts(tmp_path: Path) -> None:
    memory = machine(tmp_path, cgroup="0::/app\n", app__memory_pressure="some avg10=12.50 avg60=0 avg300=0 total=1\nfull avg10=3.0 total=1")
    assert memory.read().stalled == pytest.approx(0.125)
    write(tmp_path / "proc/pressure/memory", "some avg10=40.00 avg60=1.0 avg300=0.00 total=0\nfull avg10=90.00 total=0\n")
    assert memory.read().stalled == pytest.approx(0.4)


def test_a_machine_that_tells_nothing_is_not_short(tmp_path: Path) -> None:
    assert Memory(tmp_path).read() == (0.0, 0.0)


def test_what_is_left_is_that_of_the_machine_or_of_the_limit_whichever_is_less(tmp_path: Path) -> None:
    assert machine(tmp_path / "no limit", used_percent=90).available_bytes() == 100_000 * 1024
    near = machine(tmp_path / "near", cgroup="0::/app\n", app__memory_max=100 * MIB, app__memory_current=60 * MIB)
    assert near.available_bytes() == 40 * MIB
    far = machine(tmp_path / "far", used_percent=99, cgroup="0::/app\n", app__memory_max=100 * MIB, app__memory_current=60 * MIB)
    assert far.available_bytes() == 10_000 * 1024
    assert Memory(tmp_path / "nothing").available_bytes() is None


def test_this_machine_is_read_as_psutil_reads_it() -> None:
    reading = Memory().read()
    assert reading.used >= psutil.virtual_memory().percent / 100 - 0.1
    assert 0 <= reading.stalled <= 1
