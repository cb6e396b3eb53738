"""Settings are merged from file, environment and flags; what nobody would notice is an error instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unlimitedws.config import DEFAULTS, Config
from unlimitedws.errors import BadValue, ConfigError, UnknownSetting
from unlimitedws.sources import load, parse, traced


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "server.toml"


def test_without_sources_everything_is_default() -> None:
    assert load({}, {}) == (Config(), dict.fromkeys(DEFAULTS, "default"))


def test_later_sources_win_and_are_named(file: Path) -> None:
    file.write_text("port = 1\nworkers = 1\nthreads = 1\n")
    config, sources = load({"port": "3"}, {"UNLIMITEDWS_PORT": "2", "UNLIMITEDWS_WORKERS": "2"}, str(file))
    assert (config.port, config.workers, config.threads, config.backlog) == (3, 2, 1, 4096)
    assert [sources[name] for name in ("port", "workers", "threads", "backlog")] == ["--port", "UNLIMITEDWS_WORKERS", str(file), "default"]


def test_a_variable_may_name_the_file_and_a_flag_goes_before_it(file: Path, tmp_path: Path) -> None:
    file.write_text("port = 1\n")
    environ = {"UNLIMITEDWS_CONFIG": str(file)}
    assert load({}, environ)[0].port == 1
    other = tmp_path / "other.toml"
    other.write_text("port = 2\n")
    assert load({}, environ, str(other))[0].port == 2


def test_a_file_may_set_every_setting(file: Path) -> None:
    lines = [f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in DEFAULTS.items()]
    file.write_text("\n".join(lines))
    config, sources = load({}, {}, str(file))
    assert config == Config()
    assert set(sources.values()) == {str(file)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", r"server.toml: unknown setting prot \(did you mean port\?\); all of them: unlimitedws serve --help$"),
        ("[limits]\nmessage_bytes = 1", r"server.toml: there are no sections: write its keys, .*, without \[limits\] above them"),
        ("port = 1\nport = 2", r"server.toml: not valid TOML: .*; a key or a section is there twice"),
        ("[a]\nx = 1\n[a]\ny = 1", r"server.toml: not valid TOML: .*; a key or a section is there twice"),
        ("port = '8000'", r"server.toml: port cannot be '8000'; accepted: a whole number from 0 to 65535"),
        ("port = 70000", r"server.toml: port cannot be 70000"),
        ("ping_interval_s = nan", r"server.toml: ping_interval_s cannot be nan"),
        ("reload = 1", r"server.toml: reload cannot be 1; accepted: true or false"),
        ("port = !", r"server.toml: not valid TOML: .*line 1, column 8"),
        ("message_bytes = '1 MB and a bit'", r"server.toml: message_bytes cannot be '1 MB and a bit'"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_the_file(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load({}, {}, str(file))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration file .*nothing.toml: No such file"):
        load({}, {}, str(tmp_path / "nothing.toml"))
    with pytest.raises(ConfigError, match=r"Is a directory"):
        load({}, {}, str(tmp_path))


def test_a_file_that_is_not_text_is_named(file: Path) -> None:
    file.write_bytes(b"port = \xff")
    with pytest.raises(ConfigError, match=r"server.toml: not UTF-8 text"):
        load({}, {}, str(file))


def test_a_byte_order_mark_before_the_text_is_passed_over(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfport = 81")
    assert load({}, {}, str(file))[0].port == 81


@pytest.mark.parametrize("name", ["", " "])
def test_a_flag_that_names_no_file_is_no_way_to_do_without(name: str) -> None:
    with pytest.raises(ConfigError, match="--config names no file"):
        load({}, {}, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UNLIMITEDWS_PORT", "tcp://10.0.0.1:80"),
        ("UNLIMITEDWS_SERVICE_HOST", "10.0.0.1"),
        ("UNLIMITEDWS_SERVICE_PORT_HTTP", "80"),
        ("UNLIMITEDWS_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("UNLIMITEDWS_PORT_80_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_that_kubernetes_makes_of_a_service_say_how_to_be_rid_of_them(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is what Kubernetes makes of a Service .*enableServiceLinks: false"):
        load({}, {name: value})


def test_an_unknown_variable_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UnknownSetting, match=r"environment: unknown setting UNLIMITEDWS_PROT \(did you mean UNLIMITEDWS_PORT\?\)"):
        load({}, {"UNLIMITEDWS_PROT": "1"})


def test_variables_of_others_of_tests_and_of_the_build_are_left_alone() -> None:
    environ = {"PORT": "1", "UNLIMITEDWS_TEST_ENGINES": "x", "UNLIMITEDWS_NATIVE": "1", "UNLIMITEDWS_APP": "a:b", "UNLIMITEDWS_CONFIG": ""}
    assert load({}, environ)[0] == Config()


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "65536", "0x50", "9" * 5000, "٣", "1_0", "1k"])
def test_a_bad_value_is_named_with_its_variable_or_flag(text: str) -> None:
    with pytest.raises(BadValue, match=r"UNLIMITEDWS_PORT: port cannot be"):
        load({}, {"UNLIMITEDWS_PORT": text})
    with pytest.raises(BadValue, match=r"--port: port cannot be"):
        load({"port": text}, {})


def test_values_that_contradict_each_other_name_the_source() -> None:
    with pytest.raises(
        BadValue, match=r"--low-water-bytes: low_water_bytes cannot be 524288; accepted: at most high_water_bytes \(262144\)"
    ):
        load({"low_water_bytes": "512k"}, {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", " 80 ", 80),
        ("admin_port", "-1", -1),
        ("message_bytes", "65536", 65536),
        ("message_bytes", "64k", 65536),
        ("message_bytes", "64 KiB", 65536),
        ("message_bytes", "64KB", 65536),
        ("message_bytes", "1MiB", 1 << 20),
        ("message_bytes", "2g", 2 << 30),
        ("message_bytes", "10b", 10),
        ("ping_interval_s", "2.5", 2.5),
        ("ping_interval_s", "3", 3.0),
        ("host", "::", "::"),
        ("engine", "portable", "portable"),
        *(("reload", yes, True) for yes in ("1", "true", "Yes", "ON")),
        *(("reload", no, False) for no in ("0", "false", "No", "OFF")),
    ],
)
def test_text_becomes_the_value_it_means(name: str, text: str, value: Any) -> None:
    parsed = parse(name, text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text"), [("reload", "maybe"), ("reload", ""), ("ping_interval_s", "soon"), ("ping_interval_s", "inf"), ("message_bytes", "k")]
)
def test_text_that_means_no_value_is_refused(name: str, text: str) -> None:
    with pytest.raises(BadValue, match=name):
        parse(name, text, "test")


def test_a_switch_has_a_flag_for_each_side() -> None:
    config, sources = load({"reload": False}, {"UNLIMITEDWS_RELOAD": "yes"})
    assert (config.reload, sources["reload"]) == (False, "--no-reload")
    assert load({"reload": True}, {})[1]["reload"] == "--reload"


def test_a_program_is_told_where_each_value_came_from() -> None:
    config = Config(port=1, workers=2, threads=3)
    traced_from = traced(config, {"workers": "--workers"}, ["threads"])
    assert [traced_from[name] for name in ("port", "workers", "threads", "host")] == ["Config", "--workers", "keyword argument", "default"]
    assert list(traced_from) == list(DEFAULTS)
