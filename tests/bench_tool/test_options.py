"""Each option has its flag, its help and its limits."""

from __future__ import annotations

import argparse

import pytest

from unlimitedws.bench import options as declared
from unlimitedws.bench.options import DEFAULTS, MODES, ONE_AFTER_THE_OTHER, Options, about
from unlimitedws.config import flag
from unlimitedws.errors import BadValue, ConfigError


def parsed(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    declared.add_flags(parser)
    return declared.parse(vars(parser.parse_args(arguments)))


def test_without_flags_every_option_has_its_default() -> None:
    assert parsed() == Options()


@pytest.mark.parametrize("name", [name for name, its in about().items() if its.choices])
def test_each_choice_is_accepted_and_another_is_not(name: str) -> None:
    mode = [] if name == "mode" else ["--mode", about()[name].modes[0]]
    for choice in about()[name].choices:
        assert getattr(parsed(*mode, flag(name), choice), name) == choice
    with pytest.raises(BadValue, match=f"{name} cannot be 'other'"):
        parsed(flag(name), "other")


@pytest.mark.parametrize(
    "name", [name for name, value in DEFAULTS.items() if isinstance(value, int | float) and not isinstance(value, bool)]
)
def test_a_number_keeps_to_its_limits(name: str) -> None:
    its = about()[name]
    for text in (f"{its.minimum - 1:g}", f"{its.maximum * 10:.0f}", "nan", "many"):
        with pytest.raises(BadValue, match=f"^{flag(name)}: {name} cannot be"):
            parsed(f"{flag(name)}={text}")


def test_sizes_have_units_and_lists_grow() -> None:
    options = parsed("--message-bytes", "64k", "--header", "A: 1", "--header", "B: 2", "--subprotocol", "chat", "--binary")
    assert (options.message_bytes, options.header, options.subprotocol, options.opcode) == (65536, ("A: 1", "B: 2"), ("chat",), 2)


def test_a_publication_has_room_for_its_time() -> None:
    assert Options(mode="broadcast", message_bytes=1).message_bytes == 32


def test_every_mode_is_described() -> None:
    assert tuple(ONE_AFTER_THE_OTHER) == MODES


@pytest.mark.parametrize(
    ("options", "is_open"),
    [
        ({}, False), ({"rate": 1.0}, True), ({"mode": "idle"}, True), ({"mode": "slow"}, True), ({"mode": "connect"}, False),
        ({"mode": "connect", "rate": 5.0}, True), ({"mode": "reconnect"}, True),
    ],
)  # fmt: skip
def test_a_loop_is_open_where_something_is_due_whatever_the_server_does(options: dict[str, object], is_open: bool) -> None:
    assert Options(**options).is_open_loop is is_open  # type: ignore[arg-type]


def test_an_option_that_its_mode_has_no_use_for_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^--sample does nothing in --mode echo; it is for idle$"):
        parsed("--sample", "5")
    assert parsed("--mode", "idle", "--sample", "5").sample == 5
