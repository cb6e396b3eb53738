"""A machine and a server on it, judged."""

from __future__ import annotations

from dataclasses import dataclass

from unlimitedws.doctor import capacity
from unlimitedws.doctor.capacity import Best, Bound
from unlimitedws.doctor.changes import Change, changes, together
from unlimitedws.doctor.machine import Machine
from unlimitedws.doctor.price import Price, price
from unlimitedws.doctor.problems import Problem, problems
from unlimitedws.doctor.server import Server


@dataclass(frozen=True, slots=True)
class Verdict:
    """wanted: the number of connections asked for; None: none was.
    bounds: the least first, those that end it before those that slow it down.
    best: what it would hold with another number of workers.  changes: what makes `wanted` fit, and mends the problems."""

    machine: Machine
    server: Server
    wanted: int | None
    price: Price
    bounds: list[Bound]
    best: Best
    problems: list[Problem]
    changes: list[Change]

    @property
    def held(self) -> int:
        """How many connections it really holds."""
        return self.bound.connections

    @property
    def bound(self) -> Bound:
        """What ends it first."""
        return capacity.nearest(self.bounds)

    @property
    def is_enough(self) -> bool | None:
        """Whether `wanted` fits; None where nothing was asked."""
        return None if self.wanted is None else self.held >= self.wanted


def judge(machine: Machine, server: Server, wanted: int | None = None) -> Verdict:
    found = problems(machine, server, wanted)
    lifting = changes(machine, server, wanted) if wanted is not None else []
    mending = [change for problem in found for change in problem.changes]
    return Verdict(
        machine=machine,
        server=server,
        wanted=wanted,
        price=price(machine, server),
        bounds=capacity.bounds(machine, server),
        best=capacity.best(machine, server),
        problems=found,
        changes=together([*lifting, *mending]),
    )
