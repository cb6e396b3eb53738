from __future__ import annotations

import functools
from typing import Any

import pytest

from unlimitedws.errors import AppInvalid
from unlimitedws.functions import blocking
from unlimitedws.handlers import HOOKS, Handlers


def on_message(conn: Any, message: Any) -> None: ...


async def on_message_async(conn: Any, message: Any) -> None: ...


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


def test_a_missing_hook_is_none(handlers: Handlers) -> None:
    assert [handlers.hook(name) for name in HOOKS] == [None] * 9


def test_the_hooks_are_those_of_the_manual() -> None:
    assert list(HOOKS) == [
        "on_upgrade", "on_connect", "on_message", "on_close", "on_drain", "on_handover", "on_resume", "on_start", "on_stop",
    ]  # fmt: skip


def test_a_decorated_function_becomes_the_hook_and_stays_itself(handlers: Handlers) -> None:
    decorated = handlers.on_message(on_message)
    assert decorated is on_message
    assert handlers.hook("on_message") is on_message


def test_a_hook_can_be_assigned(handlers: Handlers) -> None:
    handlers.on_message = on_message
    assert handlers.hook("on_message") is on_message


def test_assigning_none_takes_a_hook_away(handlers: Handlers) -> None:
    handlers.on_message = on_message
    handlers.on_message = None
    assert handlers.hook("on_message") is None


def test_objects_do_not_share_their_hooks(handlers: Handlers) -> None:
    handlers.on_message = on_message
    assert Handlers().hook("on_message") is None


def test_a_method_of_a_subclass_is_a_hook() -> None:
    class Chat(Handlers):
        def on_message(self, conn: Any, message: Any) -> Any:
            return (self, conn, message)

    chat = Chat()
    hook = chat.hook("on_message")
    assert hook is not None
    assert hook(1, 2) == (chat, 1, 2)
    assert chat.hook("on_close") is None


def test_a_subclass_need_not_call_the_constructor() -> None:
    class Chat(Handlers):
        def __init__(self, room: str) -> None:
            self.room = room

    chat = Chat("lobby")
    chat.on_message = on_message
    assert (chat.room, chat.hook("on_message")) == ("lobby", on_message)


def test_a_subclass_of_a_subclass_may_extend_a_method() -> None:
    class First(Handlers):
        def on_message(self, conn: Any, message: Any) -> list[str]:
            return ["first"]

    class Second(First):
        def on_message(self, conn: Any, message: Any) -> list[str]:
            return [*super().on_message(conn, message), "second"]

    hook = Second().hook("on_message")
    assert hook is not None
    assert hook(None, "") == ["first", "second"]


def test_a_static_method_of_a_subclass_is_a_hook() -> None:
    class Chat(Handlers):
        @staticmethod
        def on_connect(conn: Any) -> Any:
            return conn

    hook = Chat().hook("on_connect")
    assert hook is not None
    assert hook(3) == 3


def test_none_in_a_subclass_switches_an_inherited_hook_off() -> None:
    class Chat(Handlers):
        def on_close(self, conn: Any, close: Any) -> None: ...

    class Silent(Chat):
        on_close = None  # type: ignore[assignment]

    assert Silent().hook("on_close") is None


@pytest.mark.parametrize("again", ["decorator", "attribute"])
def test_registering_twice_is_an_error_that_names_both(handlers: Handlers, again: str) -> None:
    handlers.on_message(on_message)
    register = handlers.on_message if again == "decorator" else functools.partial(setattr, handlers, "on_message")
    with pytest.raises(AppInvalid, match=r"on_message is registered twice: .*\.on_message and .*on_message_async"):
        register(on_message_async)


def test_assigning_over_a_method_of_a_subclass_is_registering_twice() -> None:
    class Chat(Handlers):
        def on_message(self, conn: Any, message: Any) -> None: ...

    with pytest.raises(AppInvalid, match="registered twice"):
        Chat().on_message = on_message  # type: ignore[method-assign]


def test_what_is_not_callable_is_refused(handlers: Handlers) -> None:
    with pytest.raises(AppInvalid, match=r"on_message must be a function; 'echo' is not callable"):
        handlers.on_message = "echo"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("hook", "function", "text"),
    [
        ("on_message", lambda conn: None, r"on_message is called with \(conn, message\); .*<lambda> takes \(conn\)"),
        ("on_message", lambda: None, r"takes \(\)"),
        ("on_connect", lambda conn, message: None, r"on_connect is called with \(conn\)"),
        ("on_close", lambda conn: None, r"on_close is called with \(conn, close\)"),
        ("on_start", lambda: None, r"on_start is called with \(worker\)"),
    ],
)
def test_a_wrong_number_of_parameters_is_refused_at_once(handlers: Handlers, hook: str, function: Any, text: str) -> None:
    with pytest.raises(AppInvalid, match=text):
        setattr(handlers, hook, function)


def test_a_method_with_a_wrong_number_of_parameters_is_refused_when_the_object_is_made() -> None:
    class Chat(Handlers):
        def on_message(self, message: Any) -> None: ...

    with pytest.raises(AppInvalid, match=r"on_message is called with \(conn, message\); .*Chat.on_message takes \(message\)"):
        Chat()


def test_more_parameters_are_fine_when_they_have_defaults(handlers: Handlers) -> None:
    handlers.on_message = lambda conn, message, *, limit=3: limit
    handlers.on_connect = lambda *args: args


def test_a_function_that_tells_no_signature_is_taken(handlers: Handlers) -> None:
    handlers.on_connect = max
    assert handlers.hook("on_connect") is max


def test_a_generator_is_refused_because_calling_it_runs_nothing(handlers: Handlers) -> None:
    def generator(conn: Any, message: Any) -> Any:
        yield message

    async def async_generator(conn: Any, message: Any) -> Any:
        yield message

    for function in (generator, async_generator, functools.partial(generator)):
        with pytest.raises(AppInvalid, match="cannot be a generator"):
            handlers.on_message = function


def test_decorating_on_the_class_says_to_make_an_object() -> None:
    with pytest.raises(AppInvalid, match=r"handlers = Handlers\(\)"):
        Handlers.on_message(on_message)


@pytest.mark.parametrize("given", [["chat", "v2.chat"], ("chat", "v2.chat")])
def test_subprotocols_are_kept_in_their_order(given: Any) -> None:
    assert Handlers(subprotocols=given).subprotocols == ("chat", "v2.chat")


def test_subprotocols_may_be_an_attribute_of_a_subclass() -> None:
    class Chat(Handlers):
        subprotocols = ("chat",)

    assert Chat().subprotocols == ("chat",)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("chat", r"write subprotocols=\(\"chat\",\)"),
        (["a b"], "'a b' is not"),
        ([""], "'' is not"),
        ([b"chat"], "b'chat' is not"),
        (["chät"], "token"),
        (["chat", "chat"], "twice"),
    ],
)
def test_subprotocols_that_cannot_be_sent_are_refused(given: Any, text: str) -> None:
    with pytest.raises(AppInvalid, match=text):
        Handlers(subprotocols=given)


def test_wrong_subprotocols_of_a_subclass_are_refused_when_the_object_is_made() -> None:
    class Chat(Handlers):
        subprotocols = "chat"

    with pytest.raises(AppInvalid, match="sequence of names"):
        Chat()


def route(request: Any) -> str:
    return ""


async def async_route() -> str:
    return ""


def test_a_route_is_registered_for_its_path_and_method(handlers: Handlers) -> None:
    functions = [route, async_route, blocking(lambda: ""), lambda: "", lambda request: "", lambda request: ""]
    for name, function in zip(("get", "post", "put", "patch", "delete"), functions, strict=False):
        assert getattr(handlers, name)("/about")(function) is function
    handlers.route("OPTIONS", "/about")(functions[5])
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    assert handlers.routes == {("/about", method): function for method, function in zip(methods, functions, strict=True)}


@pytest.mark.parametrize("path", ["about", "", "/a?b", "/a#b", None, b"/a"])
def test_a_route_needs_a_path_that_a_request_can_have(handlers: Handlers, path: Any) -> None:
    with pytest.raises(AppInvalid):
        handlers.get(path)


@pytest.mark.parametrize("method", ["get", "CONNECT", "TRACE", "", None])
def test_a_route_needs_a_method_that_can_be_answered(handlers: Handlers, method: Any) -> None:
    with pytest.raises(AppInvalid, match="a route answers one of GET, HEAD, POST"):
        handlers.route(method, "/")


def test_two_routes_of_one_path_and_method_are_refused(handlers: Handlers) -> None:
    handlers.get("/")(route)
    handlers.post("/")(route)
    with pytest.raises(AppInvalid, match=r"GET / is registered twice: .*route and .*async_route"):
        handlers.get("/")(async_route)


def generating() -> Any:
    yield ""


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda one, two: "", r"GET / is called with \(request\)"),
        (lambda *, key: "", r"GET / is called with \(request\)"),
        (generating, "cannot be a generator"),
        ("page", "is not callable"),
    ],
)
def test_what_cannot_be_a_route_is_refused(handlers: Handlers, function: Any, text: str) -> None:
    with pytest.raises(AppInvalid, match=text):
        handlers.get("/")(function)


def test_an_upgrade_hook_takes_the_request(handlers: Handlers) -> None:
    handlers.on_upgrade = route
    assert handlers.hook("on_upgrade") is route
    with pytest.raises(AppInvalid, match=r"on_upgrade is called with \(request\)"):
        Handlers().on_upgrade(lambda conn, request: None)
