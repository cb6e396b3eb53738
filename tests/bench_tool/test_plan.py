"""How a load is spread over processes and source addresses."""

from __future__ import annotations

import os
import socket

import pytest

from unlimitedws.bench import plan
from unlimitedws.bench.options import Options
from unlimitedws.bench.target import Target
from unlimitedws.errors import BadValue, BenchError

LOOPBACK = Target("ws://127.0.0.1:1/", "127.0.0.1:1", "/", socket.AF_INET, ("127.0.0.1", 1))
ELSEWHERE = Target("ws://192.0.2.1:1/", "192.0.2.1:1", "/", socket.AF_INET, ("192.0.2.1", 1))
FILES = 20_000


def made(target: Target = LOOPBACK, files: int = FILES, **options: object) -> plan.Plan:
    return plan.make(Options(**options), [target], files)  # type: ignore[arg-type]


def test_a_small_load_is_one_process_with_the_kernels_choice_of_address() -> None:
    found = made(connections=64)
    assert (found.shares, found.sources, found.cpus) == ([64], [], frozenset())


def test_a_million_connections_get_processes_and_addresses_enough() -> None:
    found = made(connections=1_000_000)
    assert sum(found.shares) == 1_000_000
    assert max(found.shares) <= FILES - plan.SPARE_FILES
    assert len(found.shares) <= 55
    assert max(found.shares) - min(found.shares) <= 1
    assert 1_000_000 / len(found.sources) <= plan.port_range() * plan.FULLNESS
    assert len(set(found.sources)) == len(found.sources)


def test_each_process_knows_where_its_numbers_begin() -> None:
    found = made(connections=10, processes=4)
    assert (found.shares, found.first_numbers) == ([3, 3, 2, 2], [0, 3, 6, 8])


def test_the_publisher_and_the_healthy_ones_have_a_place_as_well() -> None:
    assert sum(made(mode="broadcast", connections=10).shares) == 11
    assert sum(made(mode="slow", connections=10, healthy=5).shares) == 15


@pytest.mark.parametrize(
    ("options", "each"),
    [
        ({}, 256), ({"processes": 2}, 128), ({"processes": 8}, 64), ({"connections": 1_000_000}, 64),
        ({"inflight": 30, "processes": 3}, 10), ({"inflight": 2, "processes": 3}, 1),
    ],
)  # fmt: skip
def test_handshakes_at_a_time_grow_with_the_processes_unless_they_are_given(options: dict[str, object], each: int) -> None:
    assert made(**options).inflight == each


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"connections": 50_000, "processes": 2}, "need 3 processes"),
        ({"connections": 1_000_000, "target": ELSEWHERE}, "more URLs with other ports, or --sources"),
        ({"connections": 1_000_000, "sources": "127.0.0.5,127.0.0.6"}, "source addresses (2) times their ports"),
        ({"connections": 1_000_000, "sources": "2"}, "source addresses (2) times their ports"),
        ({"sources": "4", "target": ELSEWHERE}, "only a server on 127.0.0.0/8"),
        ({"sources": "::1"}, "other IP version"),
        ({"files": plan.SPARE_FILES}, "raise it"),
    ],
)
def test_what_does_not_fit_says_what_to_do(options: dict[str, object], words: str) -> None:
    with pytest.raises(BenchError) as caught:
        made(**options)  # type: ignore[arg-type]
    assert words in str(caught.value)


@pytest.mark.parametrize("options", [{"sources": "here"}, {"cpus": "one"}, {"cpus": "99999"}, {"cpus": "1-"}])
def test_what_is_no_list_is_a_bad_value(options: dict[str, object]) -> None:
    with pytest.raises(BadValue):
        made(**options)  # type: ignore[arg-type]


def test_addresses_may_be_listed() -> None:
    assert len(made(sources="127.0.0.5, 127.0.0.6").sources) == 2
    assert len(made(sources="7").sources) == 7


def test_cpus_may_be_listed_and_ranged() -> None:
    least = min(os.sched_getaffinity(0))
    assert made(cpus=f"{least}").cpus == made(cpus=f"{least}-{least}").cpus == {least}
