"""Several checks as one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from unlimitedws.functions import blocking, check_callable, is_async, kind_of, name_of
from unlimitedws.request import Request
from unlimitedws.verdict import Accept, Reject, Verdict

Check = Callable[[Request], Any]
"""What `on_upgrade` is: gives a `Verdict`, or an awaitable of one."""


def every(*checks: Check) -> Check:
    """The check that lets in whom all of `checks` let in; they are asked in turn, up to the first `Reject`.

    The terms of several Accepts are put together: headers and cookies of all; of subprotocol and state the last that
    is not None; the earliest expires_at. It is plain where all checks are, async where one is, blocking where one is;
    an async and a blocking one do not go together.

    Raises AppInvalid for what is no check, ValueError where there is none."""
    if not checks:
        raise ValueError("checks.every() without a check would let everybody in; leave on_upgrade out for that")
    for check in checks:
        check_callable("a check", check, ("request",))
    kinds = {kind_of(check) for check in checks}
    if {"async", "blocking"} <= kinds:
        raise ValueError("an async and a blocking check do not go together; call the blocking one by asyncio.to_thread in an async one")
    if "async" in kinds:
        return every_async(checks)
    return blocking(every_plain(checks)) if "blocking" in kinds else every_plain(checks)


def every_plain(checks: Iterable[Check]) -> Check:
    def check_all(request: Request) -> Verdict:
        accepts: list[Accept] = []
        for check in checks:
            verdict = checked(check, check(request))
            if isinstance(verdict, Reject):
                return verdict
            if verdict is not None:
                accepts.append(verdict)
        return merged(accepts)

    return check_all


def every_async(checks: Iterable[Check]) -> Check:
    awaited = [(check, is_async(check)) for check in checks]

    async def check_all(request: Request) -> Verdict:
        accepts: list[Accept] = []
        for check, is_awaited in awaited:
            verdict = checked(check, await check(request) if is_awaited else check(request))
            if isinstance(verdict, Reject):
                return verdict
            if verdict is not None:
                accepts.append(verdict)
        return merged(accepts)

    return check_all


def checked(check: Check, verdict: Any) -> Verdict:
    """`verdict`, which `check` returned. Raises TypeError for anything else: True and False are no verdicts."""
    if verdict is None or isinstance(verdict, Accept | Reject):
        return verdict
    if inspect.iscoroutine(verdict):
        verdict.close()  # nobody will await it, and Python would warn of that
    raise TypeError(f"{name_of(check)} returned {type(verdict).__name__}; a check returns None, Accept or Reject")


def merged(accepts: list[Accept]) -> Accept | None:
    if len(accepts) < 2:
        return accepts[0] if accepts else None
    return Accept(
        subprotocol=last(accept.subprotocol for accept in accepts),
        headers=[header for accept in accepts for header in accept.headers],
        cookies=[cookie for accept in accepts for cookie in accept.cookies],
        state=last(accept.state for accept in accepts),
        expires_at=min((accept.expires_at for accept in accepts if accept.expires_at is not None), default=None),
    )


def last(values: Iterable[Any]) -> Any:
    return next((value for value in reversed(list(values)) if value is not None), None)
