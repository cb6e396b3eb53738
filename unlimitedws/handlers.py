"""What an app registers: its hooks, its subprotocols, its pages.

    handlers = Handlers()

    @handlers.on_message
    def echo(conn, message):
        conn.send(message)

The same by attribute (`handlers.on_message = echo`) or by subclassing (a method `on_message`). A hook
is called in one of three ways, chosen by what it is:

    plain      a function: called inline; nothing else runs in the worker meanwhile
    async      an `async def`: its coroutine runs on the worker's loop
    blocking   a function marked by `@blocking`: runs in a pool of threads

While an async or blocking on_connect or on_message is pending, the next message of its connection waits.
A plain function that returns a coroutine (a lambda, say) is still plain: nobody awaits what it returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from typing import Any, Literal, TypeVar

from unlimitedws.errors import AppInvalid

Function = TypeVar("Function", bound=Callable[..., Any])
Kind = Literal["plain", "async", "blocking"]

MARK = "__unlimitedws_blocking__"
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")  # RFC 9110, section 5.6.2


class Hook:
    """One hook of `Handlers`: registers by call (as a decorator does) and by assignment."""

    def __init__(self, *parameters: str) -> None:
        self.parameters = parameters

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, handlers: Handlers | None, owner: type | None = None) -> Callable[..., Any]:
        # Typed so that a subclass may override it by a method of any signature.
        return self.decorate if handlers is None else partial(handlers._register, self)

    def __set__(self, handlers: Handlers, function: Callable[..., Any] | None) -> None:
        if function is None:
            handlers._hooks.pop(self.name, None)
        else:
            handlers._register(self, function)

    def decorate(self, *_: object) -> Any:
        raise AppInvalid(f"Handlers.{self.name} was used on the class; make an object first: handlers = Handlers()")


class Handlers:
    """The hooks of one endpoint; a missing one does nothing. Raises AppInvalid for what cannot be one.

    on_connect(conn): the handshake is done.  on_message(conn, message): str for text, bytes for binary.
    on_close(conn, close): once, after all others; `close` is a `Close`.  on_drain(conn): the output queue
    fell below low water.  on_start(worker), on_stop(worker): once in each worker, before it accepts and after
    its last connection; for the app's own clients, a database pool for example.

    subprotocols: what the endpoint speaks, the preferred first (RFC 6455, section 1.9)."""

    on_connect = Hook("conn")
    on_message = Hook("conn", "message")
    on_close = Hook("conn", "close")
    on_drain = Hook("conn")
    on_start = Hook("worker")
    on_stop = Hook("worker")

    subprotocols: Sequence[str] = ()
    _hooks: dict[str, Callable[..., Any]]
    _pages: dict[str, Callable[[], Any]]

    def __new__(cls, *_: object, **__: object) -> Handlers:
        # Not in __init__: a subclass need not call it.
        handlers = super().__new__(cls)
        object.__setattr__(handlers, "_hooks", {})
        object.__setattr__(handlers, "_pages", {})
        handlers.subprotocols = cls.subprotocols  # checked, where a subclass has its own
        for name, method in overridden(handlers):
            check_hook(name, method)
        return handlers

    def __init__(self, *, subprotocols: Sequence[str] | None = None) -> None:
        if subprotocols is not None:
            self.subprotocols = subprotocols

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "subprotocols":
            value = checked_subprotocols(value)
        if name in HOOKS:  # also where a subclass has a method of this name
            HOOKS[name].__set__(self, value)
        else:
            object.__setattr__(self, name, value)

    def hook(self, name: str) -> Callable[..., Any] | None:
        """The function of the hook called `name` (`"on_message"`); None where the app has none."""
        return self._hooks.get(name) or dict(overridden(self)).get(name)

    def get(self, path: str) -> Callable[[Function], Function]:
        """Registers a small page for GET and HEAD of exactly `path`: `@handlers.get("/")`.

        The function takes nothing, is plain, and returns str (HTML), bytes, a `pathlib.Path` or a `Page`.
        Its path may be that of a WebSocket endpoint as well."""
        check_path(path)

        def register(function: Function) -> Function:
            if path in self._pages:
                raise AppInvalid(f"the page {path} is registered twice: {name_of(self._pages[path])} and {name_of(function)}")
            check_callable(f"the page {path}", function, ())
            if kind_of(function) != "plain":
                raise AppInvalid(f"the page {path} must be a plain function; {name_of(function)} is {kind_of(function)}")
            self._pages[path] = function
            return function

        return register

    @property
    def pages(self) -> dict[str, Callable[[], Any]]:
        """Path to function of every page, a copy."""
        return dict(self._pages)

    def _register(self, hook: Hook, function: Function) -> Function:
        check_hook(hook.name, function)
        before = self.hook(hook.name)
        if before is not None:
            raise AppInvalid(f"{hook.name} is registered twice: {name_of(before)} and {name_of(function)}")
        self._hooks[hook.name] = function
        return function


HOOKS: dict[str, Hook] = {name: hook for name, hook in vars(Handlers).items() if isinstance(hook, Hook)}


def overridden(handlers: Handlers) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and bound method of each hook that a subclass of Handlers defines; None switches one off."""
    for name in HOOKS:
        static = inspect.getattr_static(type(handlers), name)
        if not isinstance(static, Hook) and static is not None:
            yield name, getattr(handlers, name)


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


def check_hook(name: str, function: Any) -> None:
    check_callable(name, function, HOOKS[name].parameters)


def check_callable(what: str, function: Any, parameters: tuple[str, ...]) -> None:
    if not callable(function):
        raise AppInvalid(f"{what} must be a function; {function!r} is not callable")
    if any(inspect.isgeneratorfunction(layer) or inspect.isasyncgenfunction(layer) for layer in layers(function)):
        raise AppInvalid(f"{what} cannot be a generator; {name_of(function)} contains a yield, so calling it would run nothing")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins do not tell
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        raise AppInvalid(f"{what} is called with ({', '.join(parameters)}); {name_of(function)} takes {bare(signature)}") from None


def bare(signature: inspect.Signature) -> str:
    """A signature without its annotations: `(conn, *, limit=3)`."""
    empty = inspect.Parameter.empty
    plain = [parameter.replace(annotation=empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(plain))


def check_path(path: Any) -> None:
    """Raises AppInvalid unless `path` can equal the path of a request: percent-decoded, without a query."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise AppInvalid(f"a path is a string that starts with a slash; {path!r} is not")
    if "?" in path or "#" in path:
        raise AppInvalid(f"paths are matched without their query; take it off {path!r}")


def checked_subprotocols(names: Any) -> tuple[str, ...]:
    if isinstance(names, str):
        raise AppInvalid(f'subprotocols is a sequence of names; write subprotocols=("{names}",)')
    names = tuple(names)
    for name in names:
        if not isinstance(name, str) or not name or not TOKEN.issuperset(name):
            raise AppInvalid(f"a subprotocol is a token of RFC 9110 (letters, digits, !#$%&'*+-.^_`|~); {name!r} is not")
    if len(set(names)) < len(names):
        raise AppInvalid(f"subprotocols names one twice: {', '.join(names)}")
    return (*names,)


def name_of(function: Any) -> str:
    """What to call a function in a sentence: `app.echo`."""
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name and getattr(function, "__module__", None) else repr(function)
