from __future__ import annotations

from typing import Any

import pytest

from unlimitedws.wire.header import checked_headers, pack_headers, quoted


def test_a_mapping_and_pairs_give_pairs() -> None:
    assert checked_headers({"X-A": "1"}) == checked_headers([("X-A", "1")]) == (("X-A", "1"),)


def test_lines_are_packed_each_with_its_crlf() -> None:
    assert pack_headers([("X-A", "1"), ("X-B", "")]) == b"X-A: 1\r\nX-B: \r\n"


@pytest.mark.parametrize("value", ["", "a", "a b", "a\tb", '"x"; y=z', "~!"])
def test_visible_ascii_with_inner_white_space_is_a_value(value: str) -> None:
    assert checked_headers({"X-A": value}) == (("X-A", value),)


@pytest.mark.parametrize("value", [" a", "a ", "a\n", "a\rb", "a\x00b", "a\x7f", "é", "a\u2028"])
def test_anything_else_is_no_value_and_is_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="the value of header X-A") as caught:
        checked_headers({"X-A": value})
    assert repr(value) not in str(caught.value)


@pytest.mark.parametrize("name", ["", "X A", "X:A", "X-A\r\n", "é"])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="token"):
        checked_headers({name: "1"})


@pytest.mark.parametrize("given", ["X-A: 1", ["X-A"], [("X-A",)], [("X-A", 1)], [(b"X-A", b"1")], {"X-A": None}])
def test_what_is_no_pair_of_strings_is_a_type_error(given: Any) -> None:
    with pytest.raises(TypeError, match="pairs"):
        checked_headers(given)


def test_names_of_the_server_are_refused_in_any_case() -> None:
    with pytest.raises(ValueError, match="X-Mine is written by the server"):
        checked_headers({"X-Mine": "1"}, ours=frozenset({"x-mine"}))


def test_a_quoted_string_escapes_what_would_end_it() -> None:
    assert quoted('a "b" \\') == r'"a \"b\" \\"'


@pytest.mark.parametrize("text", ["a\r\nb", "é", "\x00"])
def test_what_cannot_be_quoted_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a header"):
        quoted(text)
