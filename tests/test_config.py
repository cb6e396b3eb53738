"""Every setting knows its type, its range and its default, and says so when it is given something else."""

from __future__ import annotations

import math
from typing import Any

import pytest

from unlimitedws.config import DEFAULTS, Config, accepted, adapt, check, flag, kind, settings, variable
from unlimitedws.errors import BadValue, UnknownSetting

NUMBERS = [name for name in DEFAULTS if kind(name) in (int, float)]


def test_the_defaults_are_the_promised_ones() -> None:
    config = Config()
    assert (config.host, config.port, config.admin_host, config.admin_port) == ("127.0.0.1", 8000, "127.0.0.1", 9000)
    assert (config.head_bytes, config.handshake_timeout_s) == (16 * 1024, 10)
    assert (config.message_bytes, config.queue_bytes, config.queue_policy) == (1 << 20, 1 << 20, "close")
    assert (config.ping_interval_s, config.ping_timeout_s) == (25, 20)
    assert (config.threads, config.thread_queue) == (128, 128)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_at_its_ends_and_refused_beyond(name: str) -> None:
    about = settings()[name]
    step = 1 if kind(name) is int else 0.001
    cast = kind(name)
    for inside in (about.minimum, about.maximum):
        check(name, cast(inside), "test")
    for outside in (about.minimum - step, about.maximum + step):
        with pytest.raises(BadValue, match=name):
            check(name, cast(outside), "test")


@pytest.mark.parametrize("name", [name for name in DEFAULTS if kind(name) is float])
def test_a_float_takes_an_int_but_neither_nan_nor_infinity(name: str) -> None:
    check(name, int(DEFAULTS[name]) or 1, "test")
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(BadValue):
            check(name, bad, "test")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", True),
        ("port", "8000"),
        ("port", 8000.0),
        ("port", None),
        ("port", 10**400),
        ("ping_interval_s", "25"),
        ("ping_interval_s", False),
        ("reload", 1),
        ("reload", "true"),
        ("host", ""),
        ("host", "  "),
        ("host", b"127.0.0.1"),
        ("engine", "fast"),
        ("engine", "Native"),
        ("log_level", "loud"),
    ],
)
def test_a_value_of_another_type_or_outside_the_choices_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadValue) as caught:
        Config(**{name: value})
    assert (caught.value.key, caught.value.value, caught.value.accepted) == (name, value, accepted(name))
    assert accepted(name) in str(caught.value)


def test_the_water_marks_must_be_in_order() -> None:
    with pytest.raises(BadValue, match=r"low_water_bytes cannot be 65536; accepted: at most high_water_bytes \(1000\)"):
        Config(high_water_bytes=1000)
    with pytest.raises(BadValue, match=r"high_water_bytes cannot be 262144; accepted: at most queue_bytes \(100000\)"):
        Config(queue_bytes=100_000)
    assert Config(low_water_bytes=10, high_water_bytes=10, queue_bytes=10).queue_bytes == 10


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config().port = 1  # type: ignore[misc]


def test_keywords_go_over_a_given_config() -> None:
    base = Config(port=1, workers=2)
    assert adapt(base, {"port": 3}) == Config(port=3, workers=2)
    assert adapt(None, {"port": 3}) == Config(port=3)
    assert adapt(base, {}) is base


def test_an_unknown_keyword_is_named_with_the_nearest_setting() -> None:
    with pytest.raises(UnknownSetting, match=r"keyword argument: unknown setting worker \(did you mean workers\?\)"):
        adapt(None, {"worker": 3})


def test_every_setting_has_help_a_group_and_names_derived_from_its_own() -> None:
    for name, about in settings().items():
        assert about.help
        assert about.group
        assert flag(name) == "--" + name.replace("_", "-")
        assert variable(name) == "UNLIMITEDWS_" + name.upper()


def test_settings_of_one_group_stand_together() -> None:
    groups = [about.group for about in settings().values()]
    assert sorted(set(groups), key=groups.index) == [group for i, group in enumerate(groups) if i == 0 or groups[i - 1] != group]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("listen", "8000", "8000 is not HOST:PORT, unix:PATH or systemd"),
        ("listen", "a:1,a:1", "a:1 is there twice"),
        ("trusted_proxies", "10.0.0.0/33", "'10.0.0.0/33' is no address"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_with_the_reason(name: str, value: str, why: str) -> None:
    with pytest.raises(BadValue, match=f"^test: {name} cannot be '{value}': {why}") as caught:
        check(name, value, "test")
    assert caught.value.why.startswith(why)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"listen": "unix:/x?proxy"}, "trusted_proxies"),
        ({"forwarded_header": "forwarded"}, "trusted_proxies"),
        ({"listen": "unix:/x?tls"}, "certfile"),
    ],
)
def test_a_setting_that_needs_another_one_says_which(settings: dict[str, Any], needed: str) -> None:
    with pytest.raises(BadValue, match=f"it needs {needed}, which is not set"):
        Config(**settings)


def test_an_empty_text_is_accepted_where_it_means_something() -> None:
    for name in DEFAULTS:
        if kind(name) is str and not DEFAULTS[name]:
            assert settings()[name].empty
            assert accepted(name) == f"text; empty: {settings()[name].empty}"
            check(name, "", "test")
