"""Where settings come from: a TOML file, the environment and the flags of a command line, merged in that order.

Nothing is ignored: a key that no setting has and a value that its setting does not accept are errors which name
the key, the place and what would be accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unlimitedws.config import DEFAULTS, KIB, MIB, PREFIX, Config, check, flag, kind, variable
from unlimitedws.errors import BadValue, ConfigError, UnknownSetting

CONFIG_VARIABLE = "UNLIMITEDWS_CONFIG"
APP_VARIABLE = "UNLIMITEDWS_APP"
UPGRADE_VARIABLE = "UNLIMITEDWS_UPGRADE"
# Ours, but no settings: the first two are read by the command line, the third is what a supervisor leaves to the one after
# it, the others are read when the package is built, where an image may well keep them set.
OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, APP_VARIABLE, UPGRADE_VARIABLE, "UNLIMITEDWS_NATIVE", "UNLIMITEDWS_SANITIZE"})
TEST_PREFIX = "UNLIMITEDWS_TEST_"

BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
SIZE = re.compile(r"([0-9]+)\s*(?:([kmg])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
TWICE = re.compile("Cannot overwrite|Cannot declare")  # how tomllib begins to say so
SERVICE = re.compile("UNLIMITEDWS_(SERVICE_(HOST|PORT)(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""Variables that Kubernetes makes of a Service of the name unlimitedws; and UNLIMITEDWS_PORT as a URL."""
UNITS = {None: 1, "k": KIB, "m": MIB, "g": 1024 * MIB}

Layer = dict[str, tuple[Any, str]]
"""Setting name to its value and where that came from."""


def load(flags: Mapping[str, object], environ: Mapping[str, str], file: str | None = None) -> tuple[Config, dict[str, str]]:
    """The configuration of a command line, and where each setting's value came from.

    flags: setting name to text (or bool), only what was given.  file: a TOML file; without it, the
    one that UNLIMITEDWS_CONFIG names, if any.  The second result maps each name to `default`, the file's
    name, `UNLIMITEDWS_X` or `--x`.  Raises ConfigError."""
    if file is not None and not file.strip():
        raise ConfigError("--config names no file; leave it out where there is none")
    file = file or environ.get(CONFIG_VARIABLE)
    values: dict[str, Any] = {}
    sources = dict.fromkeys(DEFAULTS, "default")
    layers = (from_file(file) if file else {}, from_environ(environ), from_flags(flags))
    for layer in layers:
        for name, (value, source) in layer.items():
            values[name], sources[name] = value, source
    return made(values, sources), sources


def traced(config: Config, sources: Mapping[str, str], keywords: Iterable[str]) -> dict[str, str]:
    """Where each setting of a program's `config` came from: its keyword arguments, what `load` said, or the Config itself."""
    program = {name: "default" if getattr(config, name) == default else "Config" for name, default in DEFAULTS.items()}
    return {**program, **sources, **dict.fromkeys(keywords, "keyword argument")}


def made(values: Mapping[str, Any], sources: Mapping[str, str]) -> Config:
    try:
        return Config(**values)
    except BadValue as error:
        # Each value was accepted by itself; two of them contradict each other. Say where this one is from.
        raise BadValue(error.key, error.value, sources[error.key], error.accepted, error.why) from None


def from_file(file: str) -> Layer:
    """What a TOML file sets: flat keys. Raises ConfigError when it cannot be read or is no TOML."""
    import tomllib  # here: not for every server's memory

    try:
        table = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte order mark
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text, as TOML must be: {error.reason} at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        twice = "; a key or a section is there twice" if TWICE.search(str(error)) else ""
        raise ConfigError(f"{file}: not valid TOML: {error}{twice}") from None
    layer: Layer = {}
    for name, value in table.items():
        if name not in DEFAULTS and isinstance(value, dict):
            raise ConfigError(f"{file}: there are no sections: write its keys, such as port = 8000, without [{name}] above them")
        if name not in DEFAULTS:
            raise UnknownSetting(name, file, DEFAULTS)
        if isinstance(value, str) and name.endswith("_bytes"):
            value = parse(name, value, file)
        check(name, value, file)
        layer[name] = (value, file)
    return layer


def from_environ(environ: Mapping[str, str]) -> Layer:
    """What UNLIMITEDWS_* variables set. One that no setting has is an error: it would be silently without effect."""
    names = {variable(name): name for name in DEFAULTS}
    layer: Layer = {}
    for key in sorted(environ):
        if not key.startswith(PREFIX) or key.startswith(TEST_PREFIX) or key in OTHER_VARIABLES:
            continue
        if SERVICE.fullmatch(key) or (key == variable("port") and "://" in environ[key]):
            raise ConfigError(
                f"environment: {key} is what Kubernetes makes of a Service named unlimitedws, and no setting: "
                "give the pod enableServiceLinks: false, or the Service another name"
            )
        if key not in names:
            raise UnknownSetting(key, "environment", [*names, CONFIG_VARIABLE, APP_VARIABLE])
        layer[names[key]] = (parse(names[key], environ[key], key), key)
    return layer


def from_flags(flags: Mapping[str, object]) -> Layer:
    """What the command line sets: text as it was typed, or a bool for --x and --no-x."""
    layer: Layer = {}
    for name, given in flags.items():
        source = flag(name) if given is not False else flag(f"no_{name}")
        layer[name] = (parse(name, given, source) if isinstance(given, str) else given, source)
    return layer


def parse(name: str, text: str, source: str) -> Any:
    """The value that `text` (of a flag, a variable or a TOML string) gives to a setting. Raises BadValue."""
    text = text.strip()
    value: object = text
    if kind(name) is bool:
        value = BOOLEANS.get(text.lower(), text)
    elif kind(name) is float:
        value = parse_float(text)
    elif kind(name) is int:
        value = parse_int(text, size=name.endswith("_bytes"))
    check(name, text if value is None else value, source)
    return value


def parse_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def parse_int(text: str, *, size: bool) -> int | None:
    # int() would raise on thousands of digits; no setting has more than these.
    if len(text) > 20:
        return None
    if size and (match := SIZE.fullmatch(text)):
        unit = match[2].lower() if match[2] else None
        return int(match[1]) * UNITS[unit]
    return int(text) if WHOLE.fullmatch(text) else None
