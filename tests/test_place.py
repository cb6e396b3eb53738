"""Where to listen, as an operator writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlimitedws.place import MOST, Place, Systemd, Tcp, Unix, places


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8000", Tcp("127.0.0.1", 8000)),
        ("[::1]:0", Tcp("::1", 0)),
        ("*:80", Tcp("*", 80)),
        ("example.org:65535", Tcp("example.org", 65535)),
        ("127.0.0.1:8000?proxy", Tcp("127.0.0.1", 8000, proxied=True)),
        ("127.0.0.1:8000?tls=no&proxy=yes", Tcp("127.0.0.1", 8000, proxied=True, tls=False)),
        ("unix:/run/app.sock", Unix("/run/app.sock", mode=0o660)),
        ("unix:app.sock?mode=0600&owner=www:33", Unix("app.sock", mode=0o600, owner="www:33")),
        ("unix:/run/a:b?tls&proxy", Unix("/run/a:b", proxied=True, tls=True)),
        ("systemd", Systemd()),
        ("systemd:web?proxy", Systemd("web", proxied=True)),
    ],
)
def test_a_place_is_read(text: str, expected: Place) -> None:
    assert places(text) == [expected]


def test_several_places_are_separated_by_commas() -> None:
    assert places(" *:80, unix:/run/app.sock,") == [Tcp("*", 80), Unix("/run/app.sock")]
    assert places("") == places(" , ") == []
    assert places("a:0,a:0") == [Tcp("a", 0), Tcp("a", 0)]  # two free ports


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("8000", "8000 is not HOST:PORT"),
        ("localhost", "localhost is not HOST:PORT"),
        ("localhost:http", "is not HOST:PORT"),
        ("localhost:65536", "is not HOST:PORT"),
        ("localhost:-1", "is not HOST:PORT"),
        ("localhost:\u0661", "is not HOST:PORT"),
        (":8000", r"names no host; \*:8000"),
        ("[]:8000", "names no host"),
        ("::1:8000", r"in brackets, as \[::1\]:8000"),
        ("unix:", "needs a path"),
        ("unix:" + "x" * 108, "at most 107 bytes"),
        ("unix:" + "é" * 54, "at most 107 bytes"),
        ("unix:/x?mode=999", r"\?mode=999 is not"),
        ("unix:/x?mode=rw", r"\?mode=rw is not"),
        ("unix:/x?owner=", r"\?owner= is not"),
        ("unix:/x?owner=a:b:c", r"\?owner=a:b:c is not"),
        ("127.0.0.1:80?mode=660", "mode and owner are of Unix sockets"),
        ("systemd?owner=www", "mode and owner are of Unix sockets"),
        ("127.0.0.1:80?ssl", r"\?ssl= is not"),
        ("127.0.0.1:80?tls=maybe", r"\?tls=maybe is not"),
        ("127.0.0.1:80,127.0.0.1:80", "127.0.0.1:80 is there twice"),
        ("unix:/x,unix:/x?mode=666", "unix:/x is there twice"),
        ("systemd,systemd:web", "choose one"),
        (",".join(f"a:{port}" for port in range(1, MOST + 2)), f"65 places are more than {MOST}"),
    ],
)
def test_what_names_no_place_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        places(text)


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", "*:80", "unix:/x", "systemd", "systemd:web"])
def test_a_place_is_written_as_it_was_read(text: str) -> None:
    assert str(places(text)[0]) == text


@given(st.text(alphabet="ab.:,?&=[]*/ 019unixsystemdtlsproxymodeowner", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = places(text)
    except ValueError:
        return
    assert all(isinstance(place, Tcp | Unix | Systemd) for place in found)
