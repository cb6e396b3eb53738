"""The app as the server sees it: distinct Handlers in order, and which paths lead to which."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from unlimitedws import importing
from unlimitedws.blame import report
from unlimitedws.errors import AppImportFailed, AppInvalid, AppNotFound, UnlimitedwsError
from unlimitedws.functions import name_of
from unlimitedws.handlers import Handlers, check_path

DEFAULT_ATTRIBUTE = "handlers"


@dataclass(frozen=True, slots=True)
class App:
    """Every endpoint of an app, once each, and its paths.

    endpoints: distinct Handlers; their position is the endpoint's number.  paths: exact path to number; None: the one
    endpoint serves every path.  routes: (path, method) to the function of each HTTP route."""

    endpoints: tuple[Handlers, ...]
    paths: Mapping[str, int] | None
    routes: Mapping[tuple[str, str], Callable[..., Any]]

    @classmethod
    def of(cls, given: Handlers | Mapping[str, Handlers] | App) -> App:
        """The app of one Handlers for every path, or of a mapping for exactly its paths. Raises AppInvalid."""
        if isinstance(given, App):
            return given
        if isinstance(given, Handlers):
            return cls((given,), None, given.routes)
        if isinstance(given, Mapping):
            return cls.of_paths(given)
        raise AppInvalid(f"it must be Handlers or a mapping of paths to Handlers; {described(given)} is not")

    @classmethod
    def of_paths(cls, given: Mapping[str, Handlers]) -> App:
        if not given:
            raise AppInvalid("the mapping of paths is empty")
        for path, handlers in given.items():
            check_path(path)
            if not isinstance(handlers, Handlers):
                raise AppInvalid(f"path {path} leads to {described(handlers)}, which is not Handlers")
        endpoints = tuple({id(handlers): handlers for handlers in given.values()}.values())
        number = {id(handlers): i for i, handlers in enumerate(endpoints)}
        return cls(endpoints, {path: number[id(handlers)] for path, handlers in given.items()}, merged_routes(endpoints))

    def endpoint_of(self, path: str) -> int | None:
        """The number of the endpoint that serves `path`; None: nobody does."""
        return 0 if self.paths is None else self.paths.get(path)

    def paths_of(self, endpoint: int) -> str:
        """The paths of an endpoint, as text for a log line."""
        if self.paths is None:
            return "every path"
        return ", ".join(path for path, number in self.paths.items() if number == endpoint)


def described(value: object) -> str:
    if isinstance(value, type) and issubclass(value, Handlers):
        return f"the class {value.__name__} (make an object of it: {value.__name__}())"
    return f"{value!r} of type {type(value).__name__}"


def merged_routes(endpoints: tuple[Handlers, ...]) -> dict[tuple[str, str], Callable[..., Any]]:
    routes: dict[tuple[str, str], Callable[..., Any]] = {}
    for handlers in endpoints:
        for (path, method), function in handlers.routes.items():
            if (path, method) in routes:
                first = name_of(routes[path, method])
                raise AppInvalid(f"{method} {path} is registered by two Handlers: {first} and {name_of(function)}")
            routes[path, method] = function
    return routes


def load(spec: str) -> App:
    """The app at `module:attribute`; the attribute defaults to `handlers`. The working directory is searched first.

    The attribute is what `App.of` takes, or a callable that returns it (called without arguments). Raises AppNotFound,
    AppImportFailed (with the trimmed traceback of the app) or AppInvalid."""
    module_name, _, attribute = spec.partition(":")
    check_spec(spec, module_name)
    value = find(import_module(spec, module_name), attribute or DEFAULT_ATTRIBUTE, spec)
    if callable(value) and not isinstance(value, (Handlers, Mapping)):
        value = call(spec, value)
    return App.of(value)


def check_spec(spec: str, module_name: str) -> None:
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise AppNotFound(spec, f"a module is named with dots, not as a file; write {dotted}:{DEFAULT_ATTRIBUTE}")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise AppNotFound(spec, f"write module:attribute, for example app:{DEFAULT_ATTRIBUTE}")


def import_module(spec: str, name: str) -> ModuleType:
    here = os.getcwd()
    hint = "" if os.access(here, os.R_OK | os.X_OK) else ", which this user may not read"
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # a file may have been written a moment ago (reload)
    try:
        with importing.under_way(spec):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise AppImportFailed(spec, report(error)) from error  # the app imports something that is missing
        raise AppNotFound(spec, f"there is no module {error.name!r} in the working directory ({here}{hint}) or on sys.path") from None
    except (Exception, SystemExit) as error:
        raise AppImportFailed(spec, report(error)) from error


def find(module: ModuleType, attribute: str, spec: str) -> Any:
    """What `attribute` (dots allowed) of a module is; raises AppNotFound with the names that are near."""
    value: Any = module
    for name in attribute.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise AppNotFound(spec, f"{module.__name__!r} has no {attribute!r}{suggestion(module, attribute)}") from None
    return value


def suggestion(module: ModuleType, attribute: str) -> str:
    import difflib  # here: not for every server's memory

    public = [name for name in vars(module) if not name.startswith("_") and name != "Handlers"]
    near = [name for name in public if isinstance(vars(module)[name], Handlers)]
    near += [name for name in difflib.get_close_matches(attribute, public) if name not in near]
    return f"; did you mean {' or '.join(near)}?" if near else f" (it was loaded from {getattr(module, '__file__', None)})"


def call(spec: str, factory: Callable[[], Any]) -> Any:
    if inspect.iscoroutinefunction(factory):
        raise AppInvalid(f"{name_of(factory)} is an async function, and what makes the app is called without a loop; write def")
    try:
        return factory()
    except UnlimitedwsError:
        raise
    except (Exception, SystemExit) as error:
        raise AppImportFailed(spec, report(error)) from error
