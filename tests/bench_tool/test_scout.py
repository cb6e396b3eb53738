"""The first connection of a run."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from tests.bench_tool.tool import LIMIT_S, upgraded
from unlimitedws.bench import scout
from unlimitedws.bench.target import parse, words
from unlimitedws.errors import BenchError


def test_it_waits_for_a_server_that_is_about_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scout, "PATIENCE_S", LIMIT_S)
    refused, connected = threading.Event(), scout.connected

    def told(*arguments: Any) -> socket.socket:
        try:
            return connected(*arguments)
        except ConnectionRefusedError:
            refused.set()
            raise

    monkeypatch.setattr(scout, "connected", told)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))

        def serve() -> None:
            refused.wait(LIMIT_S)
            listener.listen()
            peer, _ = listener.accept()
            with peer:
                upgraded(peer)

        serving = threading.Thread(target=serve)
        serving.start()
        target = parse(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
        scout.scout(target, words(target), LIMIT_S)
        serving.join(LIMIT_S)
    assert refused.is_set()


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scout, "PATIENCE_S", 0.0)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        target = parse(f"ws://127.0.0.1:{unheard.getsockname()[1]}/")
        with pytest.raises(BenchError, match="Connection refused; does the server run"):
            scout.scout(target, words(target), LIMIT_S)
