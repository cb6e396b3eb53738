"""What a connection costs, part by part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.trees import plain
from unlimitedws.config import Config
from unlimitedws.doctor import machine, server
from unlimitedws.doctor.price import Price, price


def priced(root: Path, **settings: Any) -> Price:
    """On a machine that does not show its slabs; `certfile` stands in for one that would have to exist."""
    found = server.read(Config(**settings), cpus=1, why_not_native=lambda: None)
    return price(machine.read(plain(root), cpus=1), found)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, 0),
        ({"host": "*"}, 16),
        ({"access_log": True}, 40),
        ({"deflate": True}, 0),
        ({"deflate_takeover": True}, 0),
        ({"deflate": True, "deflate_takeover": True}, 32 << 10),
        ({"deflate": True, "deflate_takeover": True, "deflate_window_bits": 13}, 200 << 10),
        ({"deflate": True, "deflate_takeover": True, "deflate_window_bits": 9}, 18 << 10),
        ({"engine": "portable"}, 74 - 48),
        ({"certfile": "x.pem"}, 17 << 10),
    ],
)
def test_settings_have_their_price(tmp_path: Path, settings: dict[str, Any], more: int) -> None:
    assert priced(tmp_path, **settings).bytes == 4096 + 48 + more


def test_what_a_peer_can_make_it_cost_is_said_with_who_sets_it(tmp_path: Path) -> None:
    def on_top(**settings: Any) -> dict[str, int]:
        return {part.source: part.bytes for part in priced(tmp_path, **settings).on_top}

    usual = on_top()
    assert (usual["net.ipv4.tcp_wmem"], usual["net.ipv4.tcp_rmem"]) == (4 << 20, 6 << 20)
    assert (usual["queue_bytes"], usual["message_bytes"]) == (1 << 20, Config().message_bytes)
    assert on_top(sndbuf_bytes=50_000)["sndbuf_bytes, which the kernel doubles"] == 100_000
    assert "net.ipv4.tcp_wmem" not in on_top(sndbuf_bytes=50_000)


def test_a_kernel_that_does_not_tell_its_buffers_leaves_the_settings(tmp_path: Path) -> None:
    found = server.read(Config(), cpus=1, why_not_native=lambda: None)
    sources = {part.source for part in price(machine.read(tmp_path, cpus=1), found).on_top}
    assert {"queue_bytes", "message_bytes"} < sources
    assert not any(source.startswith("net.") for source in sources)


def test_every_part_says_where_it_is_from(tmp_path: Path) -> None:
    parts = priced(tmp_path, host="*", access_log=True, deflate=True, deflate_takeover=True, certfile="x.pem").parts
    assert len(parts) == 6
    assert all(part.source and part.bytes > 0 for part in parts)


def test_the_kernels_own_sizes_go_before_the_published_ones(tmp_path: Path) -> None:
    shown = dataclasses.replace(machine.read(plain(tmp_path), cpus=1), socket_bytes=3500, socket_v6_bytes=3700)
    v4, v6 = (server.read(Config(host=host), cpus=1, why_not_native=lambda: None) for host in ("0.0.0.0", "*"))
    assert price(shown, v4).bytes == 3500 + 48
    assert price(shown, v6).bytes == 3700 + 48 + 16
    assert "slabinfo" in price(shown, v4).parts[0].source
