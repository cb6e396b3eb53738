"""Limits of cgroups: of each that holds the process, in both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.trees import GIB, MIB, TREES, docker_v1, kubernetes_v2, plain
from unlimitedws.doctor.cgroup import Limit, memory_highs, memory_limits, process_limits


def test_each_nested_limit_is_there_and_page_cache_that_is_given_up_is_not_in_use(tmp_path: Path) -> None:
    top = "/sys/fs/cgroup/kubepods.slice"
    assert memory_limits(kubernetes_v2(tmp_path)) == (
        Limit(f"{top}/pod1/app/memory.max", 2 * GIB, 130 * MIB),
        Limit(f"{top}/pod1/memory.max", GIB, 200 * MIB),
        Limit(f"{top}/memory.max", 60 * GIB, 20 * GIB),
    )
    assert memory_highs(tmp_path) == (Limit(f"{top}/pod1/app/memory.high", 1900 * MIB, 130 * MIB),)
    assert process_limits(tmp_path) == (Limit(f"{top}/pod1/pids.max", 1024, 30),)


def test_processes_that_only_ask_do_not_count(tmp_path: Path) -> None:
    docker_v1(tmp_path)
    assert [process_limits(tmp_path, ours)[0].used for ours in (0, 1, 2, 9)] == [4, 3, 2, 0]


def test_of_version_1_the_container_sees_its_own_at_the_top(tmp_path: Path) -> None:
    docker_v1(tmp_path)
    assert memory_limits(tmp_path) == (Limit("/sys/fs/cgroup/memory/memory.limit_in_bytes", 512 * MIB, 40 * MIB),)
    assert process_limits(tmp_path) == (Limit("/sys/fs/cgroup/pids/pids.max", 100, 4),)


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    plain(tmp_path)
    assert memory_limits(tmp_path) == ()
    (found,) = process_limits(tmp_path)
    assert found.left == 8990


@pytest.mark.parametrize("name", TREES)
def test_nothing_is_left_below_nothing(tmp_path: Path, name: str) -> None:
    for limit in (*memory_limits(TREES[name](tmp_path)), *process_limits(tmp_path)):
        assert limit._replace(used=limit.limit + 5).left == 0
