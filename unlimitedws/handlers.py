"""What an app registers: its hooks, its subprotocols, its HTTP routes.

    handlers = Handlers()

    @handlers.on_message
    def echo(conn, message):
        conn.send(message)

The same by attribute (`handlers.on_message = echo`) or by subclassing (a method `on_message`). A hook
is called in one of three ways, chosen by what it is: plain, async or blocking (`unlimitedws.functions`).

While an async or blocking on_connect or on_message is pending, the next message of its connection waits.
A plain function that returns a coroutine (a lambda, say) is still plain: nobody awaits what it returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from unlimitedws.errors import AppInvalid
from unlimitedws.functions import Function, check_callable, kind_of, name_of, takes

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Of HTTP, those that a route may answer (RFC 9110, section 9.3; RFC 5789)."""

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

    Each is registered by decorator, by assignment or as a method of a subclass, and is plain, async or blocking."""

    on_upgrade = Hook("request")
    """Before the handshake is answered: decides who may connect. Returns None, `Accept` or `Reject`."""

    on_connect = Hook("conn")
    """The handshake is done. After a reload it is called again, with `conn.resumed` True, unless there is `on_resume`."""

    on_message = Hook("conn", "message")
    """A whole message has come, `str` for text, `bytes` for binary."""

    on_close = Hook("conn", "close")
    """The connection is over; once, after all other hooks. `close` is a `Close`."""

    on_drain = Hook("conn")
    """The output queue fell below low water, after `send` gave False."""

    on_handover = Hook("conn")
    """In the old process of a reload, a plain function: returns what the new one has to know, anything that `pickle` takes; without
    this hook that is `conn.state`."""

    on_resume = Hook("conn", "state")
    """In the new process of a reload, with what came; without this hook `conn.state` is set, and `on_connect` called."""

    on_start = Hook("worker")
    """Once in each worker, before it accepts anybody; for the app's own clients, a database pool for example."""

    on_stop = Hook("worker")
    """Once in each worker, after its last connection."""

    subprotocols: Sequence[str] = ()
    """What the endpoint speaks, the preferred first (RFC 6455, section 1.9)."""

    _hooks: dict[str, Callable[..., Any]]
    _routes: dict[tuple[str, str], Callable[..., Any]]

    def __new__(cls, *_: object, **__: object) -> Handlers:
        # Not in __init__: a subclass need not call it.
        handlers = super().__new__(cls)
        object.__setattr__(handlers, "_hooks", {})
        object.__setattr__(handlers, "_routes", {})
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
        """`route("GET", path)`: `@handlers.get("/about")`. Answers HEAD as well, where nothing else does.

        `post`, `put`, `patch` and `delete` are the same of their methods."""
        return self.route("GET", path)

    def post(self, path: str) -> Callable[[Function], Function]:
        return self.route("POST", path)

    def put(self, path: str) -> Callable[[Function], Function]:
        return self.route("PUT", path)

    def patch(self, path: str) -> Callable[[Function], Function]:
        return self.route("PATCH", path)

    def delete(self, path: str) -> Callable[[Function], Function]:
        return self.route("DELETE", path)

    def route(self, method: str, path: str) -> Callable[[Function], Function]:
        """Registers a function for plain HTTP requests of `method` to exactly `path`, which may be a WebSocket's as well.

        The function is plain, async or blocking, takes nothing or the request (`HttpRequest`), and returns str (HTML),
        bytes, a `pathlib.Path` or a `Response`. A plain or blocking one is called when the whole body is there."""
        check_path(path)
        if method not in METHODS:
            raise AppInvalid(f"a route answers one of {', '.join(METHODS)}; {method!r} is none of them")

        def register(function: Function) -> Function:
            self._add_route(method, path, function)
            return function

        return register

    @property
    def routes(self) -> dict[tuple[str, str], Callable[..., Any]]:
        """(path, method) to function of every HTTP route, a copy."""
        return dict(self._routes)

    def _add_route(self, method: str, path: str, function: Callable[..., Any]) -> None:
        before = self._routes.get((path, method))
        if before is not None:
            raise AppInvalid(f"{method} {path} is registered twice: {name_of(before)} and {name_of(function)}")
        takes_nothing = callable(function) and not takes(function, "request")
        check_callable(f"{method} {path}", function, () if takes_nothing and takes(function) else ("request",))
        self._routes[path, method] = function

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


def check_hook(name: str, function: Any) -> None:
    check_callable(name, function, HOOKS[name].parameters)
    if name == "on_handover" and kind_of(function) != "plain":
        raise AppInvalid(f"on_handover is called while its connection is on its way, so it is a plain function; {name_of(function)} is not")


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
