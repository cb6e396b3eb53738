"""What the files of deploy/ and their page say of our settings is what those are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, MANUAL, ROOT, read, seconds
from unlimitedws.config import DEFAULTS, settings, variable
from unlimitedws.sources import load

FILES = sorted([path for path in DEPLOY.rglob("*") if path.is_file()] + [MANUAL])
NUMBER_AND_NAME = re.compile(r"([0-9][0-9,.]*) s(?:econds)?\s[^().;:]{0,40}\(([a-z_]+_s)\)")
NAME_AND_NUMBER = re.compile(r"\b([a-z_]+_s)`? \(([0-9][0-9,.]*) s\)")
CLOSED_AFTER = DEFAULTS["ping_interval_s"] + DEFAULTS["ping_timeout_s"]


def said(text: str) -> list[tuple[str, float]]:
    """Setting and number of every `25 s ... (ping_interval_s)` and `stop_timeout_s (30 s)`, comment signs left out."""
    text = re.sub(r"\s*\n\s*#?\s*", " ", text)
    found = [(name, number) for number, name in NUMBER_AND_NAME.findall(text)] + NAME_AND_NUMBER.findall(text)
    return [(name, float(number.replace(",", ""))) for name, number in found]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_numbers_that_stand_by_a_setting_are_its_default(file: Path) -> None:
    for name, number in said(file.read_text()):
        assert DEFAULTS[name] == number, f"{name} is said to be {number}"


def test_such_numbers_are_found() -> None:
    names = {name for file in FILES for name, _ in said(file.read_text())}
    assert names >= {"ping_interval_s", "ping_timeout_s", "stop_timeout_s", "handshake_timeout_s", "hang_timeout_s", "stuck_timeout_s"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_variable_of_ours_is_a_setting(file: Path) -> None:
    known = {variable(name) for name in settings()} | {"UNLIMITEDWS_NATIVE", "UNLIMITEDWS_PORT"}
    assert set(re.findall(r"\bUNLIMITEDWS_[A-Z_]+", file.read_text())) <= known


def test_the_settings_of_the_page_are_accepted(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / "unlimitedws.toml"
    file.write_text(text)
    config, _ = load({}, {}, str(file))
    assert (config.trusted_proxies, config.forwarded_header) == ("192.0.2.10", "x-forwarded-for")


@pytest.mark.parametrize("name", ["haproxy.cfg", "nginx.conf", "Caddyfile", "envoy.yaml"])
def test_the_settings_that_a_proxy_asks_for_are_accepted(name: str, tmp_path: Path) -> None:
    """The lines after "The server:" at its top."""
    top = read(f"proxy/{name}").partition("# The server:")[2].partition("\n\n")[0]
    text = "\n".join(line.strip("# ") for line in top.splitlines() if "=" in line).replace("the address of this proxy", "192.0.2.10")
    file = tmp_path / "unlimitedws.toml"
    file.write_text(text)
    config, _ = load({}, {}, str(file))
    assert (config.trusted_proxies, config.forwarded_header, config.health_path) == ("192.0.2.10", "x-forwarded-for", "/health")


SILENCE = [
    ("proxy/haproxy.cfg", r"timeout tunnel (\S+)"),
    ("proxy/haproxy-passthrough.cfg", r"timeout client (\S+)"),
    ("proxy/haproxy-passthrough.cfg", r"timeout server (\S+)"),
    ("proxy/nginx.conf", r"proxy_read_timeout (\S+);"),
    ("proxy/envoy.yaml", r"stream_idle_timeout: (\S+)"),
]


@pytest.mark.parametrize(("name", "pattern"), SILENCE)
def test_a_proxy_is_more_patient_than_our_heartbeat(name: str, pattern: str) -> None:
    (timeout,) = re.findall(pattern, read(name))
    assert seconds(timeout) > CLOSED_AFTER
    assert f"beyond {CLOSED_AFTER:g} s it is the server" in read(name)


HANDSHAKE = [
    ("proxy/haproxy.cfg", r"timeout http-request (\S+)"),
    ("proxy/nginx.conf", r"client_header_timeout (\S+);"),
    ("proxy/Caddyfile", r"read_header (\S+)"),
    ("proxy/envoy.yaml", r"request_headers_timeout: (\S+)"),
]


@pytest.mark.parametrize(("name", "pattern"), HANDSHAKE)
def test_a_proxy_gives_as_long_for_a_request_as_we_do(name: str, pattern: str) -> None:
    (timeout,) = re.findall(pattern, read(name))
    assert seconds(timeout) == DEFAULTS["handshake_timeout_s"]


def test_nginx_gives_up_on_a_stuck_client_later_than_we_do() -> None:
    for name in ("proxy_send_timeout", "send_timeout"):
        (timeout,) = re.findall(rf"^ +{name} (\S+);", read("proxy/nginx.conf"), re.MULTILINE)
        assert seconds(timeout) > DEFAULTS["stuck_timeout_s"]
