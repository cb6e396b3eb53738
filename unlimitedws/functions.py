"""What a function of an app is: how it is called, what it takes, what to call it in a sentence.

plain      a function: called inline; nothing else runs in the worker meanwhile
async      an `async def`: its coroutine runs on the worker's loop
blocking   a function marked by `@blocking`: runs in a pool of threads
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, Literal, TypeVar

from unlimitedws.errors import AppInvalid

Function = TypeVar("Function", bound=Callable[..., Any])
Kind = Literal["plain", "async", "blocking"]

MARK = "__unlimitedws_blocking__"


def blocking(function: Function) -> Function:
    """Marks a function as one that blocks, so that it runs in the worker's pool of threads.

    Works above and below the decorator that registers it. Raises AppInvalid for an `async def`, which has
    no need of a thread."""
    if not callable(function):
        raise AppInvalid(f"@blocking marks functions; {function!r} is not one")
    if is_async(function):
        raise AppInvalid(f"{name_of(function)} is an async def and runs on the loop; take @blocking off, or the async")
    try:
        setattr(function, MARK, True)
    except AttributeError:  # a bound method, a builtin
        return wrapped(function)
    return function


def wrapped(function: Function) -> Function:
    @wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    setattr(call, MARK, True)
    return call  # type: ignore[return-value]  # same signature, by wraps


def kind_of(function: Callable[..., Any]) -> Kind:
    """How a hook is called: inline, as a coroutine, or in a thread."""
    if is_async(function):
        return "async"
    return "blocking" if any(getattr(layer, MARK, False) for layer in layers(function)) else "plain"


def is_async(function: Callable[..., Any]) -> bool:
    return any(inspect.iscoroutinefunction(layer) for layer in layers(function))


def layers(function: Any) -> Iterator[Any]:
    """`function` and all it stands for: partials, bound methods, `functools.wraps`, objects with __call__."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        function = inner(function)


def inner(function: Any) -> Any:
    for attribute in ("__wrapped__", "__func__"):
        if hasattr(function, attribute):
            return getattr(function, attribute)
    if isinstance(function, partial):
        return function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return None
    return getattr(type(function), "__call__", None)  # noqa: B004  (the method itself, not whether it is callable)


def check_callable(what: str, function: Any, parameters: tuple[str, ...]) -> None:
    """Raises AppInvalid unless calling `function` with these parameters runs it."""
    if not callable(function):
        raise AppInvalid(f"{what} must be a function; {function!r} is not callable")
    if any(inspect.isgeneratorfunction(layer) or inspect.isasyncgenfunction(layer) for layer in layers(function)):
        raise AppInvalid(f"{what} cannot be a generator; {name_of(function)} contains a yield, so calling it would run nothing")
    if not takes(function, *parameters):
        signature = bare(inspect.signature(function))
        raise AppInvalid(f"{what} is called with ({', '.join(parameters)}); {name_of(function)} takes {signature}")


def takes(function: Callable[..., Any], *parameters: str) -> bool:
    """Whether a function can be called with so many arguments; True where it does not tell, as some builtins."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*parameters)
    except TypeError:
        return False
    return True


def bare(signature: inspect.Signature) -> str:
    """A signature without its annotations: `(conn, *, limit=3)`."""
    empty = inspect.Parameter.empty
    plain = [parameter.replace(annotation=empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(plain))


def name_of(function: Any) -> str:
    """What to call a function in a sentence: `app.echo`."""
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name and getattr(function, "__module__", None) else repr(function)
