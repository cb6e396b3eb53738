from __future__ import annotations

from typing import Any

from unlimitedws.functions import blocking
from unlimitedws.http.routes import Route, Routes


def nothing() -> str:
    return "nothing"


def something(request: Any) -> Any:
    return request


async def later() -> str:
    return "later"


def test_a_path_and_a_method_lead_to_a_route() -> None:
    routes = Routes({("/a", "GET"): nothing, ("/a", "POST"): something, ("/b", "POST"): later})
    assert routes.find("/a", "POST") == Route(something, "plain", True)
    assert routes.find("/b", "POST") == Route(later, "async", False)
    assert routes.find("/b", "GET") is None
    assert routes.find("/A", "GET") is None
    assert routes.find("/a/", "GET") is None


def test_get_answers_head_unless_something_else_does() -> None:
    routes = Routes({("/a", "GET"): nothing, ("/b", "GET"): nothing, ("/b", "HEAD"): something})
    assert routes.find("/a", "HEAD") == Route(nothing, "plain", False)
    assert routes.find("/b", "HEAD") == Route(something, "plain", True)
    assert routes.methods("/a") == ["GET", "HEAD"]
    assert routes.methods("/nowhere") == []


def test_a_function_is_called_with_what_it_takes() -> None:
    assert Route.of(nothing).call("request") == "nothing"
    assert Route.of(something).call("request") == "request"
    assert Route.of(blocking(lambda: "x")).kind == "blocking"
