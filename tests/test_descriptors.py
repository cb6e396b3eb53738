"""How many descriptors this process may still open."""

from __future__ import annotations

import os
import resource

import pytest

from unlimitedws.descriptors import descriptors_left


def test_the_rest_of_the_limit_is_left_without_what_is_spared() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    before = descriptors_left(held=0, spare=10)
    assert 0 < before <= limit - 10
    more = [os.dup(0) for _ in range(5)]
    try:
        assert descriptors_left(held=0, spare=10) == before - 5
        assert descriptors_left(held=0, spare=limit) == 0
    finally:
        for fd in more:
            os.close(fd)


def test_an_older_kernel_is_told_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: str) -> os.stat_result:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "stat", unknown)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert descriptors_left(held=7, spare=3) == limit - 10
