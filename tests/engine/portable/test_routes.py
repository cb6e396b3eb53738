"""What connections share."""

from __future__ import annotations

from unlimitedws.engine.portable.routes import Routes


def test_connections_of_one_route_share_one_number() -> None:
    routes = Routes()
    first = routes.take("/", 0, None)
    assert routes.take("/", 0, None) == first
    assert routes.take("/", 0, "chat") != first
    assert routes.route(first) == ("/", 0, None, None)
    assert routes.endpoints[first] == 0


def test_a_route_is_freed_with_its_last_user_and_its_number_used_again() -> None:
    routes = Routes()
    number = routes.take("/a", 0, None)
    routes.take("/a", 0, None)
    routes.release(number)
    assert routes.route(number) == ("/a", 0, None, None)
    routes.release(number)
    assert routes.take("/b", 3, None) == number
    assert (routes.route(number), routes.endpoints[number]) == (("/b", 3, None, None), 3)


def test_invented_paths_leave_nothing_behind() -> None:
    routes = Routes()
    for i in range(1000):
        routes.release(routes.take(f"/{i}", 0, None))
    assert len(routes.routes) == 1
