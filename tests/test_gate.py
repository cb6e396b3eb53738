from __future__ import annotations

import random
import re
import time
from array import array
from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.engine.contract import Endpoint, Refusal
from unlimitedws.engine.counters import FIELDS, INDEX
from unlimitedws.gate import ADVICE_LASTS_S, Gate, Prefixes
from unlimitedws.wire.closing import Cause

HERE = ("192.0.2.1", 4000)
THERE = ("192.0.2.2", 4000)
PROXY = ("10.0.0.1", 4000)


def gate_of(*, workers: int = 1, **settings: Any) -> tuple[Gate, memoryview]:
    row = memoryview(array("q", [0] * len(FIELDS)))
    gate = Gate(Config(**settings))
    gate.open(row)
    gate.share(workers)
    return gate, row


def advise(row: memoryview, *, share: int = 0, shedding: bool = False, age_s: float = 0.0) -> None:
    row[INDEX["connections_share"]], row[INDEX["shedding"]] = share, shedding
    row[INDEX["advised_ns"]] = time.monotonic_ns() - int(age_s * 1e9)


def admitted(gate: Gate, *addresses: Any) -> list[bool]:
    return [gate.enter(address) for address in addresses]


def test_without_limits_nobody_need_be_asked() -> None:
    gate, _ = gate_of()
    assert not gate.counts
    assert gate.handshake(HERE) is None


@pytest.mark.parametrize("name", ["max_connections_total", "max_connections_per_address", "max_handshakes_pending"])
def test_each_limit_on_connections_is_reason_to_ask(name: str) -> None:
    assert gate_of(**{name: 5})[0].counts


def test_when_workers_come_and_go_each_has_another_part_and_keeps_what_it_has() -> None:
    gate, _ = gate_of(max_connections_per_address=4, max_connections_total=12)
    assert admitted(gate, *[HERE] * 5) == [True] * 4 + [False]
    gate.share(2)
    assert not gate.enter(HERE)
    assert admitted(gate, *[THERE] * 3) == [True, True, False]  # 6 in all, and two of each address
    gate.share(1)
    assert admitted(gate, *[THERE] * 3) == [True, True, False]


@pytest.mark.parametrize("name", ["handshakes_per_s", "handshakes_per_s_per_address"])
def test_rates_are_shared_anew_and_what_was_used_stays_used(name: str) -> None:
    gate, _ = gate_of(**{name: 0.01}, handshake_burst_s=600)
    assert [gate.handshake(HERE) is None for _ in range(4)] == [True] * 4
    gate.share(2)  # half the rate: a burst of 3, of which these 4 have used up two
    assert [gate.handshake(HERE) is None for _ in range(2)] == [True, False]
    gate.share(1)  # those three are six again
    assert gate.handshake(HERE) is not None


# ---- connections in total


def test_a_worker_without_advice_holds_an_equal_part_of_the_total() -> None:
    gate, row = gate_of(max_connections_total=7, workers=3)
    assert admitted(gate, *[HERE] * 3) == [True, True, False]
    assert row[INDEX["connections_counted"]] == 2
    gate.leave(HERE)
    assert row[INDEX["connections_counted"]] == 1
    assert gate.enter(HERE)


def test_a_total_smaller_than_the_number_of_workers_still_lets_somebody_in() -> None:
    gate, _ = gate_of(max_connections_total=2, workers=4)
    assert admitted(gate, HERE, HERE) == [True, False]


def test_a_worker_holds_what_it_was_advised_to() -> None:
    gate, row = gate_of(max_connections_total=100, workers=2)
    advise(row, share=2)
    assert admitted(gate, *[HERE] * 3) == [True, True, False]
    advise(row, share=3)
    assert gate.enter(HERE)


def test_advice_of_a_supervisor_that_hangs_is_forgotten() -> None:
    gate, row = gate_of(max_connections_total=4, workers=2)
    advise(row, share=0, shedding=True, age_s=ADVICE_LASTS_S + 1)
    assert admitted(gate, *[HERE] * 3) == [True, True, False]
    assert gate.handshake(HERE) is None


# ---- connections by address


def test_an_address_holds_so_many_connections_and_others_are_not_concerned() -> None:
    gate, _ = gate_of(max_connections_per_address=2)
    assert admitted(gate, HERE, ("192.0.2.1", 4001), ("192.0.2.1", 4002), THERE) == [True, True, False, True]
    gate.leave(("192.0.2.1", 4001))
    assert admitted(gate, HERE, HERE) == [True, False]


def test_workers_share_what_an_address_may_hold() -> None:
    gate, _ = gate_of(max_connections_per_address=10, workers=4)
    assert sum(admitted(gate, *[HERE] * 10)) == 2


def test_who_is_refused_by_address_counts_nowhere() -> None:
    gate, row = gate_of(max_connections_per_address=1, max_connections_total=2)
    assert admitted(gate, HERE, HERE, HERE, THERE, ("192.0.2.3", 1)) == [True, False, False, True, False]
    assert row[INDEX["connections_counted"]] == 2


def test_peers_of_a_unix_socket_have_no_address_to_count() -> None:
    gate, _ = gate_of(max_connections_per_address=1)
    assert admitted(gate, "unix", "unix", "/run/peer.sock") == [True, True, True]
    gate.leave("unix")


def test_nothing_is_kept_for_those_who_left() -> None:
    gate, row = gate_of(max_connections_per_address=3, max_connections_total=10**6)
    random.seed(7)
    inside: list[Any] = []
    for _ in range(5000):
        address = (f"10.{random.randrange(3)}.0.{random.randrange(5)}", 1)
        if random.random() < 0.6 and gate.enter(address):
            inside.append(address)
        elif inside:
            gate.leave(inside.pop(random.randrange(len(inside))))
    for address in inside:
        gate.leave(address)
    assert gate._by_address == {}
    assert row[INDEX["connections_counted"]] == 0


def test_clients_of_a_trusted_proxy_are_counted_and_the_proxy_is_not() -> None:
    gate, _ = gate_of(max_connections_per_address=1, trusted_proxies="10.0.0.0/8")
    assert admitted(gate, PROXY, PROXY, PROXY) == [True, True, True]
    assert gate.crowded(HERE) is None
    assert gate.move(PROXY, HERE)
    refused = gate.crowded(HERE)
    assert isinstance(refused, Refusal)
    assert refused.cause is Cause.LIMIT
    assert refused.response.startswith(b"HTTP/1.1 503 ")
    assert gate.crowded(THERE) is None
    gate.leave(HERE)
    assert gate.crowded(HERE) is None
    for _ in range(2):
        gate.leave(PROXY)
    assert gate._by_address == {}


def test_a_client_too_many_is_not_moved_and_leaves_from_where_it_was() -> None:
    gate, row = gate_of(max_connections_per_address=1)
    assert admitted(gate, HERE, THERE) == [True, True]
    assert not gate.move(THERE, HERE)
    assert gate.crowded(THERE), "it is still counted there"
    gate.leave(THERE)
    assert gate.enter(THERE)
    assert row[INDEX["connections_counted"]] == 2


def test_a_client_may_be_moved_within_its_own_network() -> None:
    gate, _ = gate_of(max_connections_per_address=1, address_prefix_v4=24)
    assert gate.enter(HERE)
    assert gate.move(HERE, THERE)
    gate.leave(THERE)
    assert gate._by_address == {}


def test_whoever_is_named_late_keeps_the_place_that_he_took() -> None:
    gate, row = gate_of(max_connections_total=3, trusted_proxies="10.0.0.0/8")
    advise(row, share=3)
    assert admitted(gate, PROXY, PROXY, PROXY) == [True, True, True]
    advise(row, share=1)  # dealt before two of them were counted
    assert gate.move(PROXY, HERE)
    assert row[INDEX["connections_counted"]] == 3


def test_without_a_limit_no_address_is_crowded() -> None:
    gate, _ = gate_of(max_connections_total=1)
    gate.enter(HERE)
    assert gate.crowded(HERE) is None


# ---- handshakes that are pending


def test_no_more_connections_are_taken_while_too_many_requests_are_unfinished() -> None:
    gate, row = gate_of(max_handshakes_pending=10)
    row[INDEX["handshakes_pending"]] = 9
    assert gate.enter(HERE)
    row[INDEX["handshakes_pending"]] = 10
    assert not gate.enter(HERE)


def test_a_pending_connection_whose_client_is_named_keeps_its_place() -> None:
    gate, row = gate_of(max_handshakes_pending=1, trusted_proxies="10.0.0.0/8")
    assert gate.enter(PROXY)
    row[INDEX["handshakes_pending"]] = 1
    assert gate.move(PROXY, HERE)
    assert not gate.enter(THERE)
    gate.leave(HERE)
    assert not gate.enter(THERE), "another one's end frees no place among the pending"


# ---- prefixes


@pytest.mark.parametrize(
    ("v4", "v6", "one", "other", "same"),
    [
        (32, 64, "192.0.2.1", "192.0.2.2", False),
        (24, 64, "192.0.2.1", "192.0.2.255", True),
        (24, 64, "192.0.2.1", "192.0.3.1", False),
        (12, 64, "172.16.0.1", "172.31.255.255", True),
        (12, 64, "172.16.0.1", "172.32.0.0", False),
        (32, 64, "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        (32, 64, "2001:db8::1", "2001:db8:0:1::1", False),
        (32, 56, "2001:db8:0:100::", "2001:db8:0:1ff::1", True),
        (32, 128, "2001:db8::1", "2001:db8::2", False),
        (32, 64, "::ffff:192.0.2.1", "192.0.2.1", True),
        (32, 64, "::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        (24, 64, "::ffff:192.0.2.1", "192.0.2.9", True),
        (32, 64, "fe80::1%eth0", "fe80::2%eth1", True),
        (1, 1, "::1", "127.0.0.1", False),
    ],
)
def test_addresses_with_the_same_leading_bits_count_as_one(v4: int, v6: int, one: str, other: str, same: bool) -> None:
    prefixes = Prefixes(v4, v6)
    assert (prefixes.of(one) == prefixes.of(other)) is same


def test_a_customer_with_a_whole_network_is_one_address() -> None:
    gate, _ = gate_of(max_connections_per_address=5)
    assert sum(gate.enter((f"2001:db8::{i:x}", 1)) for i in range(100)) == 5


# ---- rates


def test_beyond_the_rate_a_handshake_gets_503_and_a_random_time_to_come_back() -> None:
    gate, _ = gate_of(handshakes_per_s=1, handshake_burst_s=3, retry_after_s=20)
    answers = [gate.handshake(HERE) for _ in range(200)]
    assert answers[:3] == [None] * 3
    refused = [answer for answer in answers[3:] if answer is not None]
    assert len(refused) >= 196
    times = [int(found[1]) for answer in refused if (found := re.search(rb"\r\nRetry-After: (\d+)\r\n", answer.response))]
    assert len(times) == len(refused)
    assert 1 <= min(times) < max(times) <= 20
    assert all(answer.cause is Cause.SHED and answer.response.startswith(b"HTTP/1.1 503 ") for answer in refused)


def test_workers_share_the_rate() -> None:
    gate, _ = gate_of(handshakes_per_s=100, handshake_burst_s=1, workers=4)
    assert sum(gate.handshake(HERE) is None for _ in range(100)) in (25, 26)


def test_one_address_beyond_its_rate_does_not_use_up_that_of_all() -> None:
    gate, _ = gate_of(handshakes_per_s=10, handshakes_per_s_per_address=1, handshake_burst_s=2)
    assert sum(gate.handshake(HERE) is None for _ in range(1000)) == 2
    assert sum(gate.handshake((f"192.0.2.{i}", 1)) is None for i in range(10, 60)) == 18


def test_peers_of_a_unix_socket_and_trusted_proxies_meet_the_rate_of_all_only() -> None:
    gate, _ = gate_of(handshakes_per_s_per_address=1, handshake_burst_s=1, trusted_proxies="10.0.0.0/8")
    assert [gate.handshake(address) for address in ("unix", "unix", PROXY, PROXY)] == [None] * 4


def test_tls_handshakes_have_the_same_rates_and_a_count_of_their_own() -> None:
    gate, _ = gate_of(handshakes_per_s=1, handshake_burst_s=3)
    assert [gate.secure(HERE) for _ in range(4)] == [True] * 3 + [False]
    assert [gate.handshake(HERE) for _ in range(3)] == [None] * 3


def test_a_rate_is_reason_to_ask_before_tls_handshakes() -> None:
    tls = {"certfile": "chain.pem", "keyfile": "key.pem"}
    assert gate_of(handshakes_per_s=1, **tls)[0].counts
    assert not gate_of(**tls)[0].counts
    assert not gate_of(handshakes_per_s=1)[0].counts


def test_while_memory_is_short_every_handshake_gets_503() -> None:
    gate, row = gate_of()
    advise(row, shedding=True)
    refused = gate.handshake(HERE)
    assert refused is not None
    assert refused.cause is Cause.SHED
    advise(row, shedding=False)
    assert gate.handshake(HERE) is None


def test_endpoints_are_guarded_only_while_there_is_something_to_judge() -> None:
    gate, row = gate_of()
    endpoints = [Endpoint(), Endpoint(guarded=True)]
    gate.guard(endpoints)
    assert [each.guarded for each in endpoints] == [False, True]
    advise(row, shedding=True)
    gate.guard(endpoints)
    assert [each.guarded for each in endpoints] == [True, True]
    advise(row, shedding=False)
    gate.guard(endpoints)
    assert [each.guarded for each in endpoints] == [False, True]


def test_with_a_rate_endpoints_are_always_guarded() -> None:
    gate, _ = gate_of(handshakes_per_s=5)
    endpoints = [Endpoint()]
    gate.guard(endpoints)
    assert endpoints[0].guarded
