"""The strict parser of request heads."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.second_opinion import agrees
from unlimitedws.wire import head
from unlimitedws.wire.head import parse

PLAIN = b"GET /path?query HTTP/1.1\r\nHost: example.com:8000\r\nX-One:  a b\t \r\nx-one:c,d , ,e\r\nEmpty:\r\n\r\n"


def with_header(line: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"


def test_a_head_is_parsed_into_its_parts() -> None:
    parsed = parse(PLAIN)
    assert (parsed.method, parsed.target, parsed.version) == (b"GET", b"/path?query", b"HTTP/1.1")
    assert parsed.headers == [(b"host", b"example.com:8000"), (b"x-one", b"a b"), (b"x-one", b"c,d , ,e"), (b"empty", b"")]
    assert parsed.all(b"x-one") == [b"a b", b"c,d , ,e"]
    assert parsed.items(b"x-one") == [b"a b", b"c", b"d", b"e"]
    assert parsed.all(b"absent") == parsed.items(b"absent") == []


@pytest.mark.parametrize(
    ("said", "error", "status"),
    [
        (PLAIN.replace(b"\r\n", b"\n"), head.BareNewline, 400),
        (PLAIN.replace(b"Empty:", b"Empty: \n"), head.BareNewline, 400),
        (PLAIN.replace(b"Empty:", b"Empty: a\rb"), head.BareNewline, 400),
        (PLAIN[:-1], head.BareNewline, 400),
        (b"\r\n\r\n", head.BadRequestLine, 400),
        (b"\r\n" + PLAIN, head.BadRequestLine, 400),
        (PLAIN.replace(b"GET ", b"GET  "), head.BadRequestLine, 400),
        (PLAIN.replace(b"GET /path", b" GET /path"), head.BadRequestLine, 400),
        (PLAIN.replace(b" HTTP/1.1", b""), head.BadRequestLine, 400),
        (PLAIN.replace(b"HTTP/1.1", b"HTTP/1.1 "), head.BadRequestLine, 400),
        (PLAIN.replace(b"HTTP/1.1", b"http/1.1"), head.BadRequestLine, 400),
        (PLAIN.replace(b"GET", b"G@T"), head.BadRequestLine, 400),
        (PLAIN.replace(b"/path", b"/p\tath"), head.BadRequestLine, 400),
        (PLAIN.replace(b"/path", b"/p\xc3\xa4th"), head.BadRequestLine, 400),
        (PLAIN.replace(b"/path", b"/path#fragment"), head.BadRequestLine, 400),
        (PLAIN.replace(b"/path", b"/pa\x00th"), head.BadRequestLine, 400),
        (PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"), head.UnsupportedVersion, 505),
        (PLAIN.replace(b"HTTP/1.1", b"HTTP/2.0"), head.UnsupportedVersion, 505),
        (with_header(b" folded"), head.FoldedHeader, 400),
        (with_header(b"X: a\r\n\tfolded"), head.FoldedHeader, 400),
        (with_header(b"X : a"), head.BadHeaderName, 400),
        (with_header(b"no colon"), head.BadHeaderName, 400),
        (with_header(b": no name"), head.BadHeaderName, 400),
        (with_header(b"N\xc3\xa4me: a"), head.BadHeaderName, 400),
        (with_header(b"X(: a"), head.BadHeaderName, 400),
        (with_header(b"X: a\x00b"), head.BadHeaderValue, 400),
        (with_header(b"X: a\x1bb"), head.BadHeaderValue, 400),
        (with_header(b"X: a\x7fb"), head.BadHeaderValue, 400),
        (with_header(b"Host: x"), head.BadHost, 400),
        (PLAIN.replace(b"Host:", b"Hose:"), head.BadHost, 400),
        (PLAIN.replace(b"example.com", b"exa mple.com"), head.BadHost, 400),
        (PLAIN.replace(b"example.com", b"a/b"), head.BadHost, 400),
        (with_header(b"Content-Length: 1\r\nTransfer-Encoding: chunked"), head.BadLength, 400),
        (with_header(b"Content-Length: 1\r\nContent-Length: 2"), head.BadLength, 400),
        (with_header(b"Content-Length: -1"), head.BadLength, 400),
        (with_header(b"Content-Length: +1"), head.BadLength, 400),
        (with_header(b"Content-Length: 1, 1"), head.BadLength, 400),
        (with_header(b"Content-Length:"), head.BadLength, 400),
        (with_header(b"Content-Length: " + b"1" * 19), head.BadLength, 400),
        (with_header(b"Transfer-Encoding: gzip"), head.UnknownCoding, 501),
        (with_header(b"Transfer-Encoding: gzip, chunked"), head.UnknownCoding, 501),
        (with_header(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), head.UnknownCoding, 501),
        (with_header(b"Transfer-Encoding:"), head.UnknownCoding, 501),
    ],
)
def test_a_violation_is_named_and_has_a_status(said: bytes, error: type[head.HeadError], status: int) -> None:
    with pytest.raises(error) as caught:
        parse(said)
    assert caught.value.status == status
    assert str(caught.value)


@pytest.mark.parametrize("host", [b"", b"x", b"x:80", b"[::1]:80", b"[::1]", b"127.0.0.1:9", b"a-b.c_d:"])
def test_hosts_that_are_hosts(host: bytes) -> None:
    assert parse(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").all(b"host") == [host]


@pytest.mark.parametrize(
    ("line", "announces"),
    [(b"X: a", False), (b"Content-Length: 0", False), (b"Content-Length: 00", False), (b"Content-Length: 10", True),
     (b"Transfer-Encoding: chunked", True)],
)  # fmt: skip
def test_whether_a_body_is_announced(line: bytes, announces: bool) -> None:
    assert parse(with_header(line)).announces_body is announces


def test_bytes_above_ascii_are_allowed_in_values() -> None:
    assert parse(with_header(b"X: na\xc3\xafve")).all(b"x") == [b"na\xc3\xafve"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_one_named_violation(noise: bytes) -> None:
    with suppress(head.HeadError):
        assert parse(noise + head.END).version == head.VERSION


@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))
def test_one_changed_byte_never_makes_anything_but_a_head_or_a_violation(at: int, byte: int) -> None:
    with suppress(head.HeadError):
        assert parse(PLAIN[:at] + bytes((byte,)) + PLAIN[at + 1 :]).version == head.VERSION


NAMES = st.sampled_from(
    [b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Upgrade", b"Expect", b"X", b"X ", b"", b"Cookie"]
)
VALUES = st.sampled_from(
    [
        b"0",
        b"5",
        b"005",
        b"5, 5",
        b"chunked",
        b"Chunked",
        b"identity",
        b"x",
        b"close",
        b"100-continue",
        b"h2c",
        b"",
        b" \t",
        b"a\tb",
        b"\xff",
        b"a\x00",
    ]
)
SPACE = st.sampled_from([b"", b" ", b"\t", b"\r\n "])
LINES = st.builds(
    lambda name, before, value, after: name + b":" + before + value + after, NAMES, SPACE, VALUES | st.binary(max_size=8), SPACE
)
METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"CONNECT", b"OPTIONS", b"get", b"G(T", b"M-SEARCH"])
TARGETS = st.sampled_from([b"/", b"/a?b=c", b"*", b"http://x/", b"x:80", b"/%00", b"//", b"/a b", b"/\x7f"]) | st.binary(max_size=6)
ENDINGS = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r"])


@given(METHODS, TARGETS, st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1 "]), st.lists(LINES, max_size=5), ENDINGS)
def test_what_is_accepted_h11_accepts_with_the_same_meaning(
    method: bytes, target: bytes, version: bytes, lines: list[bytes], ending: bytes
) -> None:
    said = ending.join([method + b" " + target + b" " + version, b"Host: x", *lines]) + head.END
    with suppress(head.HeadError):
        agrees(parse(said), said)


@given(st.binary(max_size=200))
def test_whatever_bytes_are_accepted_h11_accepts_too(noise: bytes) -> None:
    said = b"GET / HTTP/1.1\r\nHost: x\r\n" + noise + head.END
    with suppress(head.HeadError):
        agrees(parse(said), said)


@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))
def test_one_changed_byte_means_the_same_to_h11(at: int, byte: int) -> None:
    said = PLAIN[:at] + bytes((byte,)) + PLAIN[at + 1 :]
    with suppress(head.HeadError):
        agrees(parse(said), said)
