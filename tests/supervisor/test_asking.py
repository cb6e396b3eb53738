"""What a worker answers to a question about its connections."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unlimitedws.supervisor.asking import LAST, MOST, SHOWN, answer
from unlimitedws.supervisor.channel import MAX_BYTES


class Connection:
    """An open connection of the app's side, with as much to tell as there can be."""

    queued_bytes = 2**40
    subprotocol = "s" * 1000

    def __init__(self, id: int, address: Any = ("2001:db8::1", 65535)) -> None:
        self.id, self.remote_address = id, address
        self.path = "/" + "\U0001f4a9" * 5000
        self.closed: list[tuple[int, str]] = []

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


class Worker:
    is_moving = False

    def __init__(self, connections: list[Connection]) -> None:
        self.held = connections
        self.asked: list[tuple[int, int]] = []

    def page(self, start: int, at_most: int) -> tuple[list[Connection], int | None]:
        self.asked.append((start, at_most))
        return self.held[:at_most], None

    def find(self, id: int) -> Connection | None:
        return next((each for each in self.held if each.id == id), None)


def says(question: dict[str, Any], *connections: Connection) -> dict[str, Any]:
    return answer({"ask": 7, **question}, Worker(list(connections)))  # type: ignore[arg-type]


def test_a_whole_page_fits_into_a_packet_whatever_clients_chose() -> None:
    told = says({"page": [0, MOST]}, *(Connection(2**62 + number) for number in range(MOST)))
    assert len(told["connections"]) == MOST
    assert len(json.dumps(told, ensure_ascii=False).encode()) < MAX_BYTES
    assert {len(each["path"]) for each in told["connections"]} == {SHOWN}


def test_no_page_is_larger_or_starts_further_than_there_can_be() -> None:
    worker = Worker([])
    answer({"ask": 1, "page": [2**62, 10**6]}, worker)  # type: ignore[arg-type]
    assert worker.asked == [(LAST, MOST)]


@pytest.mark.parametrize(("address", "told"), [(("1.2.3.4", 5), ["1.2.3.4", 5]), ("@peer", "@peer")])
def test_one_is_found_with_its_address(address: Any, told: Any) -> None:
    found = says({"find": 3}, Connection(2), Connection(3, address))
    assert (found["answer"], found["connections"][0]["connection"], found["connections"][0]["address"]) == (7, "3", told)
    assert says({"find": 4}, Connection(2))["connections"] == []


def test_one_that_is_not_found_may_be_on_its_way() -> None:
    worker = Worker([])
    assert answer({"ask": 7, "find": 3}, worker)["moving"] is False  # type: ignore[arg-type]
    worker.is_moving = True
    assert answer({"ask": 7, "close": 3}, worker)["moving"] is True  # type: ignore[arg-type]


def test_only_the_one_that_was_meant_is_closed_and_told_as_it_was() -> None:
    one, other = Connection(2), Connection(3)
    assert says({"close": 3}, one, other)["connections"][0]["connection"] == "3"
    assert (one.closed, other.closed) == ([], [(1001, "closed by the operator")])


def test_a_worker_that_has_not_begun_has_no_connections() -> None:
    assert answer({"ask": 1, "page": [0, 5]}, None) == {"answer": 1, "connections": []}
