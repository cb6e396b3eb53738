"""docs/how-to/compress-messages.md: what it shows is served, and what it says of sizes holds."""

from __future__ import annotations

import json

from tests.docs.pages import app_of
from tests.serving import WAIT_S, served
from unlimitedws.config import Config
from unlimitedws.wire.deflate import Compressor

PAGE = "how-to/compress-messages.md"
TEXT = json.dumps([{"id": number, "user": f"user{number * 37 % 100}", "text": "the price of the update"} for number in range(150)])


def test_the_example_compresses(engine_name: str) -> None:
    with (
        served(app_of(PAGE)["handlers"], engine=engine_name, deflate=True) as there,
        there.client(compression="deflate") as client,
    ):
        client.send(TEXT)
        assert client.recv(WAIT_S) == TEXT
        assert there.counters["bytes_out"] < len(TEXT) / 5 + 500


def test_json_shrinks_to_a_fifth() -> None:
    config = Config()
    assert len(Compressor(config.deflate_window_bits, config.deflate_level).compress(TEXT.encode())) < len(TEXT) / 5
