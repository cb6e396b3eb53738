"""What would be served."""

from __future__ import annotations

from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.doctor.server import Server, read


def server(**settings: Any) -> Server:
    return read(Config(**settings), cpus=3, why_not_native=lambda: None)


def test_there_are_as_many_workers_as_cpus_unless_told_otherwise() -> None:
    assert (server().workers, server(workers=8).workers) == (3, 8)


@pytest.mark.parametrize(
    ("asked", "why", "served"),
    [("auto", None, "native"), ("auto", "no gcc", "portable"), ("portable", None, "portable"), ("native", "no gcc", "portable")],
)
def test_the_engine_is_the_one_that_can_be_had(asked: str, why: str | None, served: str) -> None:
    found = read(Config(engine=asked), cpus=1, why_not_native=lambda: why)
    assert found.engine == served
    assert found.why_not_native == (None if asked == "portable" else why)


def test_uvloop_is_installed_here() -> None:
    assert server().uvloop


@pytest.mark.parametrize(
    ("host", "listen", "v6"),
    [
        ("0.0.0.0", "", False),
        ("::", "", True),
        ("*", "", True),
        ("::1", "", True),
        ("*", "unix:/run/x", False),
        ("*", "1.2.3.4:1", False),
        ("x", "1.2.3.4:1, [::1]:2", True),
        ("x", "systemd", True),
    ],
)
def test_ipv6_listeners_are_seen(host: str, listen: str, v6: bool) -> None:
    assert server(host=host, listen=listen).has_v6 == v6


def test_the_limit_is_what_settings_let_in() -> None:
    assert server().limit is None
    assert server(max_connections=100).limit == 300
    assert server(max_connections=100, max_connections_total=250).limit == 250
    assert server(max_connections_total=250).limit == 250


def test_a_server_that_trusts_somebody_is_behind_a_proxy() -> None:
    assert not server().is_proxied
    assert server(trusted_proxies="unix").is_proxied
    assert server(trusted_proxies="10.0.0.0/8", listen="1.2.3.4:5?proxy").is_proxied


def test_counts_are_kept_for_rates_and_the_access_log() -> None:
    assert not server().has_meters
    assert all(server(**settings).has_meters for settings in ({"messages_per_s": 1.0}, {"bytes_per_s": 9.0}, {"access_log": True}))
