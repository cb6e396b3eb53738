from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peer import request
from unlimitedws.headers import Headers, Query
from unlimitedws.wire import head


def headers(*lines: str) -> Headers:
    return Headers(request("/", *lines))


def test_names_are_found_in_any_case() -> None:
    found = headers("X-Room: blue")
    assert found["x-room"] == found["X-ROOM"] == found.get("X-Room") == "blue"
    assert "x-rOOm" in found


def test_a_name_is_not_found_inside_another_name_or_a_value() -> None:
    found = headers("X-Room: red", "X-Note: x Room: blue")
    assert "room" not in found
    assert found.get("not") is None


def test_several_lines_of_one_name_are_read_as_one_list() -> None:
    found = headers("X-Tag: a", "x-tag: b, c")
    assert found["X-Tag"] == "a, b, c"
    assert found.get_all("X-Tag") == ["a", "b, c"]
    assert found.items_of("X-Tag") == ["a", "b", "c"]


def test_several_cookie_lines_are_joined_by_a_semicolon() -> None:
    assert headers("Cookie: a=1", "Cookie: b=2")["cookie"] == "a=1; b=2"


def test_outer_white_space_is_no_part_of_a_value() -> None:
    assert headers("X-Room: \t blue  ").get_all("x-room") == ["blue"]


def test_a_missing_header_is_a_key_error_and_no_value() -> None:
    with pytest.raises(KeyError, match="x-room"):
        headers()["x-room"]
    assert headers().get_all("x-room") == []


@pytest.mark.parametrize("name", ["host: test", "x-room: a\r\nhost", "höst", "", "\r\nhost", 3])
def test_what_is_no_name_finds_nothing(name: str) -> None:
    assert name not in headers("X-Room: a")


def test_the_request_line_is_no_header() -> None:
    assert "get /" not in headers()
    assert "GET" not in headers()


def test_it_is_a_mapping_of_each_name_once() -> None:
    found = headers("X-Tag: a", "X-Tag: b")
    assert list(found) == ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "x-tag"]
    assert len(found) == 6
    assert dict(found)["x-tag"] == "a, b"


def test_bytes_beyond_ascii_are_latin_1() -> None:
    assert Headers(request("/").replace(b"Host", b"X-Name: caf\xe9\r\nHost"))["x-name"] == "café"


def test_the_repr_shows_names_and_no_value() -> None:
    assert repr(headers("Authorization: Bearer secret")).endswith("sec-websocket-version, authorization>")


tokens = st.text("abcXYZ-_09!", min_size=1, max_size=6)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)


@given(st.lists(st.tuples(tokens, values), max_size=8))
def test_whatever_the_strict_parser_accepts_is_read_with_the_same_meaning(pairs: list[tuple[str, str]]) -> None:
    lines = "".join(f"{name}:{value}\r\n" for name, value in pairs)
    octets = f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode("latin-1")
    strict = head.parse(octets)
    found = Headers(octets)
    for name, _ in strict.headers:
        assert found.get_all(name.decode()) == [value.decode("latin-1") for value in strict.all(name)]
    assert list(found) == list(dict.fromkeys(name.decode() for name, _ in strict.headers))


def test_a_query_gives_the_first_value_or_all() -> None:
    query = Query("tag=a&tag=b&room=caf%C3%A9+noir&empty=")
    assert query["tag"] == "a"
    assert query.get_all("tag") == ["a", "b"]
    assert query.get("room") == "café noir"
    assert query["empty"] == ""
    assert list(query) == ["tag", "room", "empty"]
    assert len(query) == 3


def test_a_query_without_a_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Query("a=1")["b"]
    assert Query("").get("a", "x") == "x"
    assert Query("a=1").get_all("b") == []


def test_bytes_of_a_query_that_are_no_utf_8_do_not_fail() -> None:
    assert Query("a=%ff")["a"] == "\ufffd"


def test_the_repr_of_a_query_shows_no_value() -> None:
    assert repr(Query("token=secret")) == "<Query: token>"
