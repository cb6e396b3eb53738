from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlimitedws.wire.redaction import redacted


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/", "/"),
        ("/chat?", "/chat?"),
        ("/chat?token=secret", "/chat?token=***"),
        ("/chat?room=blue&token=secret", "/chat?room=***&token=***"),
        ("/chat?token=a=b?c&x=", "/chat?token=***&x=***"),
        ("/chat?secret", "/chat?***"),
        (b"/chat?token=secret", "/chat?token=***"),
        (b"/ch\xe4t", "/ch\\xe4t"),
    ],
)
def test_every_value_of_a_query_is_hidden(target: str | bytes, shown: str) -> None:
    assert redacted(target) == shown


@given(st.lists(st.tuples(st.text("abc", max_size=3), st.text("XYZ=?%", min_size=1)), min_size=1))
def test_no_value_is_ever_shown(parameters: list[tuple[str, str]]) -> None:
    shown = redacted("/p?" + "&".join(f"{name}={value}" for name, value in parameters))
    assert not set(shown.partition("?")[2]) & set("XYZ%?")
