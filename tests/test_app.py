from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unlimitedws import app
from unlimitedws.app import App
from unlimitedws.errors import AppImportFailed, AppInvalid, AppNotFound
from unlimitedws.handlers import Handlers

Write = Callable[[str, str], None]

HANDLERS = "from unlimitedws import Handlers\nhandlers = Handlers()\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into an empty working directory that is not on sys.path; all is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_one_handlers_serves_every_path() -> None:
    handlers = Handlers()
    made = App.of(handlers)
    assert made.endpoints == (handlers,)
    assert [made.endpoint_of(path) for path in ("/", "/chat", "/a/b")] == [0, 0, 0]
    assert made.paths_of(0) == "every path"


def test_a_mapping_serves_exactly_its_paths() -> None:
    chat, news = Handlers(), Handlers()
    made = App.of({"/chat": chat, "/news": news, "/old": chat})
    assert made.endpoints == (chat, news)
    assert [made.endpoint_of(path) for path in ("/chat", "/news", "/old", "/", "/chat/", "/Chat")] == [0, 1, 0, None, None, None]
    assert made.paths_of(0) == "/chat, /old"


def test_an_app_is_its_own_app() -> None:
    made = App.of(Handlers())
    assert App.of(made) is made


def test_routes_of_all_handlers_are_put_together() -> None:
    chat, news = Handlers(), Handlers()
    chat.get("/")(lambda: "chat")
    news.post("/")(lambda: "post")
    news.get("/news")(lambda: "news")
    routes = App.of({"/c": chat, "/n": news}).routes
    assert {key: function() for key, function in routes.items()} == {("/", "GET"): "chat", ("/", "POST"): "post", ("/news", "GET"): "news"}


def test_one_route_of_two_handlers_is_refused() -> None:
    chat, news = Handlers(), Handlers()
    chat.get("/")(lambda: "chat")
    news.get("/")(lambda: "news")
    with pytest.raises(AppInvalid, match="GET / is registered by two Handlers"):
        App.of({"/c": chat, "/n": news})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "None of type NoneType is not"),
        ("app:handlers", "of type str"),
        (Handlers, r"the class Handlers \(make an object of it: Handlers\(\)\)"),
        ({}, "empty"),
        ({"/": None}, "path / leads to None"),
        ({"/": Handlers}, "make an object of it"),
        ({"chat": Handlers()}, "starts with a slash"),
        ({"/chat?x": Handlers()}, "without their query"),
        ({1: Handlers()}, "a path is a string"),
    ],
)
def test_what_is_no_app_is_refused_with_what_to_do(given: Any, text: str) -> None:
    with pytest.raises(AppInvalid, match=text):
        App.of(given)


def test_a_module_is_found_in_the_working_directory(write: Write) -> None:
    write("shop_a.py", HANDLERS)
    assert isinstance(app.load("shop_a:handlers").endpoints[0], Handlers)


def test_the_attribute_defaults_to_handlers(write: Write) -> None:
    write("shop_b.py", HANDLERS)
    assert app.load("shop_b").paths is None


def test_modules_of_packages_and_dotted_attributes_are_found(write: Write) -> None:
    write("shop_c/__init__.py", "")
    write("shop_c/web.py", HANDLERS + "class Box:\n    chat = handlers\n")
    assert app.load("shop_c.web:Box.chat").paths is None


@pytest.mark.parametrize(
    "text",
    [
        "handlers = {'/a': Handlers()}",
        "def handlers(): return {'/a': Handlers()}",
        "from unlimitedws.app import App\nhandlers = App.of({'/a': Handlers()})",
    ],
)
def test_the_attribute_may_be_a_mapping_or_something_that_returns_one(write: Write, text: str) -> None:
    write("shop_d.py", "from unlimitedws import Handlers\n" + text)
    assert app.load("shop_d").paths == {"/a": 0}


def test_the_attribute_may_be_a_subclass_which_is_made(write: Write) -> None:
    write("shop_e.py", "from unlimitedws import Handlers\nclass Chat(Handlers): pass\n")
    assert type(app.load("shop_e:Chat").endpoints[0]).__name__ == "Chat"


def test_a_missing_module_says_where_was_searched(write: Write, tmp_path: Path) -> None:
    with pytest.raises(AppNotFound, match=rf"there is no module 'shop_f' in the working directory \({tmp_path}\) or on sys.path"):
        app.load("shop_f:handlers")


def test_a_missing_module_of_a_package_is_named(write: Write) -> None:
    write("shop_g/__init__.py", "")
    with pytest.raises(AppNotFound, match=r"there is no module 'shop_g.web'"):
        app.load("shop_g.web:handlers")


def test_an_import_that_is_missing_inside_the_app_is_not_a_missing_app(write: Write) -> None:
    write("shop_h.py", "import nowhere_to_be_found\n")
    with pytest.raises(AppImportFailed, match=r"shop_h.py.*line 1(?s:.*)ModuleNotFoundError: No module named 'nowhere_to_be_found'"):
        app.load("shop_h")


def test_the_report_of_a_failed_import_holds_only_frames_of_the_app(write: Write) -> None:
    write("shop_i.py", "import shop_i_inner\n")
    write("shop_i_inner.py", "def boom():\n    raise RuntimeError('no database')\nboom()\n")
    with pytest.raises(AppImportFailed) as caught:
        app.load("shop_i")
    report = str(caught.value)
    assert "importing the app 'shop_i' failed" in report
    assert report.endswith("RuntimeError: no database")
    assert [line.split('"')[1].rsplit("/")[-1] for line in report.splitlines() if line.lstrip().startswith("File")] == [
        "shop_i.py",
        "shop_i_inner.py",
        "shop_i_inner.py",
    ]


def test_a_syntax_error_names_its_file_and_line(write: Write) -> None:
    write("shop_j.py", "\n\ndef broken(:\n")
    with pytest.raises(AppImportFailed, match=r"shop_j.py\", line 3(?s:.*)SyntaxError"):
        app.load("shop_j")


def test_an_app_that_ends_the_program_while_it_is_imported_is_reported(write: Write) -> None:
    write("shop_k.py", "raise SystemExit('usage: ...')\n")
    with pytest.raises(AppImportFailed, match=r"SystemExit: usage"):
        app.load("shop_k")


def test_a_wrong_hook_is_reported_with_its_line(write: Write) -> None:
    write("shop_l.py", HANDLERS + "@handlers.on_message\ndef echo(message): pass\n")
    with pytest.raises(AppImportFailed, match=r"shop_l.py\", line 3(?s:.*)on_message is called with \(conn, message\); shop_l.echo"):
        app.load("shop_l")


def test_a_missing_attribute_names_the_handlers_there_are(write: Write) -> None:
    write("shop_m.py", "from unlimitedws import Handlers\nchat = Handlers()\n")
    with pytest.raises(AppNotFound, match=r"'shop_m' has no 'handlers'; did you mean chat\?"):
        app.load("shop_m:handlers")


def test_a_missing_attribute_names_what_is_spelled_alike(write: Write) -> None:
    write("shop_n.py", "def make_app(): pass\n")
    with pytest.raises(AppNotFound, match=r"did you mean make_app\?"):
        app.load("shop_n:makeapp")


def test_a_missing_attribute_of_an_empty_module_names_its_file(write: Write) -> None:
    write("shop_o.py", "")
    with pytest.raises(AppNotFound, match=r"loaded from .*shop_o.py"):
        app.load("shop_o")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("shop.py", "write shop:handlers"),
        ("./shop.py:chat", "write shop:handlers"),
        ("src/shop", "write src.shop:handlers"),
        ("", "write module:attribute"),
        (":handlers", "write module:attribute"),
        ("a..b:handlers", "write module:attribute"),
        ("my-app:handlers", "write module:attribute"),
    ],
)
def test_a_spec_that_is_no_module_says_how_to_write_it(spec: str, text: str) -> None:
    with pytest.raises(AppNotFound, match=text):
        app.load(spec)


def test_a_factory_that_raises_is_reported_as_the_apps_failure(write: Write) -> None:
    write("shop_p.py", "def handlers():\n    raise KeyError('SECRET')\n")
    with pytest.raises(AppImportFailed, match=r"shop_p.py\", line 2(?s:.*)KeyError: 'SECRET'"):
        app.load("shop_p")


def test_an_attribute_of_another_kind_is_invalid(write: Write) -> None:
    write("shop_q.py", "handlers = 3\n")
    with pytest.raises(AppInvalid, match="3 of type int"):
        app.load("shop_q")


@pytest.mark.parametrize("call", ["Server(handlers, port=0).run()", "Supervisor(handlers, port=0).run()"])
def test_a_module_that_runs_a_server_at_import_is_told_where_to_put_that(write: Write, call: str) -> None:
    write("runs_it.py", f"from unlimitedws import Server, Supervisor\n{HANDLERS}{call}\n")
    with pytest.raises(
        AppImportFailed, match=r"its module calls \w+\.run\(\) while 'runs_it' is imported; put .*__name__ == \"__main__\""
    ) as failed:
        app.load("runs_it")
    assert call in failed.value.report


def test_a_factory_without_a_loop_is_no_coroutine(write: Write) -> None:
    write("later.py", "async def handlers():\n    pass\n")
    with pytest.raises(AppInvalid, match=r"later\.handlers is an async function, .*; write def"):
        app.load("later")


def test_a_working_directory_that_may_not_be_read_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # not by its mode: root may read everything
    with pytest.raises(AppNotFound, match=r"no module 'nowhere' in the working directory \(.*, which this user may not read\)"):
        app.load("nowhere")
