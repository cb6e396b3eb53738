from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from unlimitedws.errors import AppInvalid
from unlimitedws.functions import blocking, check_callable, kind_of, name_of, takes
from unlimitedws.handlers import Handlers


def on_message(conn: Any, message: Any) -> None: ...


async def on_message_async(conn: Any, message: Any) -> None: ...


class CallableObject:
    def __call__(self, conn: Any, message: Any) -> None: ...


class AsyncCallableObject:
    async def __call__(self, conn: Any, message: Any) -> None: ...


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as people write them: a plain wrapper round whatever it is given."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (on_message, "plain"),
        (CallableObject(), "plain"),
        (CallableObject().__call__, "plain"),
        (print, "plain"),
        (on_message_async, "async"),
        (AsyncCallableObject(), "async"),
        (AsyncCallableObject().__call__, "async"),
        (functools.partial(on_message_async), "async"),
        (functools.partial(functools.partial(on_message_async, 1), 2), "async"),
        (functools.partial(AsyncCallableObject()), "async"),
        (logged(on_message_async), "async"),
        (logged(on_message), "plain"),
        (logged(functools.partial(on_message_async)), "async"),
    ],
)
def test_the_kind_of_a_function_is_found_whatever_it_is_wrapped_in(function: Any, kind: str) -> None:
    assert kind_of(function) == kind


def test_a_marked_function_is_blocking_whatever_it_is_wrapped_in() -> None:
    @blocking
    def work(conn: Any, message: Any) -> None: ...

    class Chat(Handlers):
        @blocking
        def on_message(self, conn: Any, message: Any) -> None: ...

    for function in (work, functools.partial(work), logged(work), Chat().hook("on_message")):
        assert function is not None
        assert kind_of(function) == "blocking"


def test_blocking_may_stand_above_or_below_the_decorator_that_registers() -> None:
    handlers = Handlers()

    @blocking
    @handlers.on_message
    def work(conn: Any, message: Any) -> None: ...

    @handlers.on_close
    @blocking
    def ended(conn: Any, close: Any) -> None: ...

    for name in ("on_message", "on_close"):
        hook = handlers.hook(name)
        assert hook is not None
        assert kind_of(hook) == "blocking"


def test_blocking_takes_what_no_mark_can_be_set_on() -> None:
    class Store:
        def save(self, conn: Any) -> Any:
            return conn

    marked = blocking(Store().save)
    assert (kind_of(marked), marked(5)) == ("blocking", 5)
    assert kind_of(Store().save) == "plain"


def test_blocking_refuses_an_async_def() -> None:
    with pytest.raises(AppInvalid, match="take @blocking off"):
        blocking(on_message_async)


def test_blocking_refuses_what_is_not_callable() -> None:
    with pytest.raises(AppInvalid, match="marks functions"):
        blocking(3)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("function", "one", "none"),
    [
        (lambda request: "", True, False),
        (lambda: "", False, True),
        (lambda request=None: "", True, True),
        (lambda *args: "", True, True),
        (lambda a, b: "", False, False),
        (functools.partial(on_message, 1), True, False),
        (print, True, True),
    ],
)
def test_what_a_function_takes_is_found_by_its_signature(function: Any, one: bool, none: bool) -> None:
    assert (takes(function, "request"), takes(function)) == (one, none)


def test_a_function_that_tells_no_signature_is_taken_at_its_word() -> None:
    assert takes(max, "request")
    check_callable("it", max, ("request",))


def test_a_function_is_called_by_its_module_and_name() -> None:
    assert name_of(on_message) == f"{__name__}.on_message"
    assert name_of(functools.partial(on_message)).startswith("functools.partial(")
