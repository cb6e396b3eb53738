from __future__ import annotations

import gc
import weakref

from unlimitedws.expiry import AT_ONCE, ROTATION_TICKS, Expiry


class Connection:
    is_open = True


class Closing:
    """Notes what is expired, and closes it as an engine does."""

    def __init__(self) -> None:
        self.expired: list[Connection] = []

    def __call__(self, connection: Connection) -> None:
        self.expired.append(connection)
        connection.is_open = False


def test_a_connection_is_expired_once_its_time_has_come() -> None:
    closing, connection = Closing(), Connection()
    expiry = Expiry(closing)
    expiry.set(connection, 100.5)
    expiry.tick(100.9)
    assert closing.expired == []
    expiry.tick(101.0)
    expiry.tick(102.0)
    assert closing.expired == [connection]


def test_a_time_that_has_passed_already_expires_at_the_next_tick() -> None:
    closing, connection = Closing(), Connection()
    expiry = Expiry(closing)
    expiry.set(connection, 1.0)
    expiry.tick(100.0)
    assert closing.expired == [connection]


def test_the_last_time_that_was_said_counts() -> None:
    closing, later, sooner, never = Closing(), Connection(), Connection(), Connection()
    expiry = Expiry(closing)
    for connection in (later, sooner, never):
        expiry.set(connection, 100.0)
    expiry.set(later, 300.0)
    expiry.set(sooner, 50.0)
    expiry.set(never, None)
    expiry.tick(60.0)
    assert closing.expired == [sooner]
    expiry.tick(200.0)
    assert closing.expired == [sooner]
    expiry.tick(300.0)
    assert closing.expired == [sooner, later]


def test_never_for_a_connection_that_is_not_known_keeps_nothing() -> None:
    expiry = Expiry(Closing())
    expiry.set(Connection(), None)
    assert len(expiry) == 0


def test_those_that_are_due_go_in_the_order_of_their_times() -> None:
    closing, one, other = Closing(), Connection(), Connection()
    expiry = Expiry(closing)
    expiry.set(other, 20.0)
    expiry.set(one, 10.0)
    expiry.tick(30.0)
    assert closing.expired == [one, other]


def test_a_crowd_that_is_due_together_goes_over_several_ticks() -> None:
    closing = Closing()
    expiry = Expiry(closing)
    for _ in range(AT_ONCE + 5):
        expiry.set(Connection(), 10.0)
    expiry.tick(10.0)
    assert len(closing.expired) == AT_ONCE
    expiry.tick(10.1)
    assert len(closing.expired) == AT_ONCE + 5


def test_what_was_closed_is_let_go_within_one_rotation() -> None:
    expiry = Expiry(Closing())
    connections = [Connection() for _ in range(1000)]
    for connection in connections:
        expiry.set(connection, 1e9)
    gone = weakref.ref(connections[0])
    for connection in connections[:999]:
        connection.is_open = False
    del connections[:999], connection
    for _ in range(ROTATION_TICKS):
        expiry.tick(0.0)
    gc.collect()
    assert (len(expiry), gone()) == (1, None)


def test_a_refreshed_connection_is_kept_once_however_often_it_is_refreshed() -> None:
    expiry = Expiry(Closing())
    connection = Connection()
    for at in range(10_000):
        expiry.set(connection, 1e9 + at % 7)
    assert len(expiry) == len(expiry._rotation) == 1
    assert sum(map(len, expiry._due.values())) == 1


def test_expired_and_closed_connections_leave_nothing_behind() -> None:
    expiry = Expiry(Closing())
    for at in range(100):
        expiry.set(Connection(), at)
    for _ in range(ROTATION_TICKS):
        expiry.tick(1000.0)
    assert (len(expiry), len(expiry._due), len(expiry._order), len(expiry._rotation)) == (0, 0, 0, 0)


def test_a_connection_may_expire_again_after_it_was_let_go() -> None:
    closing, connection = Closing(), Connection()
    expiry = Expiry(closing)
    expiry.set(connection, 10.0)
    expiry.set(connection, None)
    for _ in range(ROTATION_TICKS):
        expiry.tick(0.0)
    assert len(expiry) == 0
    expiry.set(connection, 20.0)
    expiry.tick(20.0)
    assert closing.expired == [connection]


def test_clearing_forgets_everybody() -> None:
    closing = Closing()
    expiry = Expiry(closing)
    expiry.set(Connection(), 10.0)
    expiry.clear()
    expiry.tick(100.0)
    assert (len(expiry), closing.expired) == (0, [])
