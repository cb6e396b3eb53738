from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from unlimitedws.errors import AppInvalid
from unlimitedws.handlers import HOOKS, Handlers, blocking, kind_of


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


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


def test_a_missing_hook_is_none(handlers: Handlers) -> None:
    assert [handlers.hook(name) for name in HOOKS] == [None] * 6


def test_the_hooks_are_those_of_the_manual() -> None:
    assert list(HOOKS) == ["on_connect", "on_message", "on_close", "on_drain", "on_start", "on_stop"]


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


def test_blocking_may_stand_above_or_below_the_decorator_that_registers(handlers: Handlers) -> None:
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


def test_a_page_is_registered_for_its_path(handlers: Handlers) -> None:
    @handlers.get("/about")
    def about() -> str:
        return "hello"

    assert handlers.pages == {"/about": about}


@pytest.mark.parametrize("path", ["about", "", "/a?b", "/a#b", None, b"/a"])
def test_a_page_needs_a_path_that_a_request_can_have(handlers: Handlers, path: Any) -> None:
    with pytest.raises(AppInvalid):
        handlers.get(path)


def test_two_pages_on_one_path_are_refused(handlers: Handlers) -> None:
    handlers.get("/")(lambda: "one")
    with pytest.raises(AppInvalid, match="registered twice"):
        handlers.get("/")(lambda: "two")


def test_a_page_function_takes_nothing_and_is_plain(handlers: Handlers) -> None:
    async def page() -> str:
        return ""

    with pytest.raises(AppInvalid, match=r"called with \(\)"):
        handlers.get("/")(lambda request: "")
    with pytest.raises(AppInvalid, match="must be a plain function"):
        handlers.get("/")(page)
    with pytest.raises(AppInvalid, match="must be a plain function"):
        handlers.get("/")(blocking(lambda: ""))
