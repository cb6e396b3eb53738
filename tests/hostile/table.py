"""The table of docs/reference/hostile.md: a row for each kind of hostile input, held by the test it stands at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

NOBODY = "—"


@dataclass(frozen=True, slots=True)
class Row:
    """said: what the peer does.  answer: what it gets.  counted: the counter that tells the operator; NOBODY: none does,
    since nothing is wrong.  settings: those that the row is tested with."""

    said: str
    answer: str
    counted: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.said[:60]


def row(said: str, answer: str, counted: str, **settings: Any) -> Callable[[Function], Function]:
    """Says which row of the table a test holds."""

    def mark(function: Function) -> Function:
        function.rows = (Row(said, answer, counted, settings),)  # type: ignore[attr-defined]
        return function

    return mark


def rows(given: Iterable[Row]) -> Callable[[Function], Function]:
    """Says which rows a test holds that is run for each of them, as `row`."""

    def mark(function: Function) -> Function:
        function.rows = tuple(given)  # type: ignore[attr-defined]
        return function

    return mark


def rows_of(module: ModuleType) -> list[Row]:
    """The rows that the tests of a module hold, in their order."""
    return [each for function in vars(module).values() for each in getattr(function, "rows", ())]
