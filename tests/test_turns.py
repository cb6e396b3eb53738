from __future__ import annotations

from collections.abc import Callable

from unlimitedws.turns import Turns


def named(order: list[str], name: str) -> Callable[[], None]:
    return lambda: order.append(name)


def test_turns_are_given_at_once_while_there_are_some_and_then_in_order() -> None:
    order: list[str] = []
    turns = Turns(2)
    for name in "abcd":
        turns.take(named(order, name))
    assert (order, turns.waiting) == (["a", "b"], 2)
    turns.give_back()
    assert order == ["a", "b", "c"]
    turns.give_back()
    assert order == ["a", "b", "c", "d"]


def test_a_turn_that_nobody_waits_for_is_there_for_the_next() -> None:
    order: list[str] = []
    turns = Turns(1)
    turns.take(named(order, "a"))
    turns.give_back()
    turns.take(named(order, "b"))
    assert (order, turns.taken) == (["a", "b"], 1)


def test_who_leaves_the_line_gets_no_turn() -> None:
    order: list[str] = []
    turns = Turns(1)
    starts = [named(order, name) for name in "abc"]
    for start in starts:
        turns.take(start)
    turns.leave(starts[1])
    assert turns.waiting == 1
    turns.give_back()
    assert order == ["a", "c"]


def test_leaving_after_the_start_changes_nothing() -> None:
    order: list[str] = []
    turns = Turns(1)
    start = named(order, "a")
    turns.take(start)
    turns.leave(start)
    assert (order, turns.taken) == (["a"], 1)
