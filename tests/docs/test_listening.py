"""The pages about listening: what they tell an operator to write is accepted, and what they promise happens."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.docs.pages import DOCS, app_of
from tests.peer import TEXT, pack, request
from tests.serving import WAIT_S, head, served, upgrade
from unlimitedws.commands import parser
from unlimitedws.config import DEFAULTS
from unlimitedws.place import places
from unlimitedws.sources import load

PAGES = ["listen-behind-a-proxy.md", "listen-in-several-places.md", "serve-tls.md", "start-with-systemd.md"]


def code(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / "how-to" / page).read_text(), re.MULTILINE | re.DOTALL)


FILES = [(page, text) for page in PAGES for text in code(page, "toml")]
LINES = [(page, line) for page in PAGES for text in code(page, "sh") for line in text.replace("\\\n", "").splitlines() if line]
UNITS = [(page, line) for page in PAGES for text in code(page, "ini") for line in text.splitlines() if line.startswith("ExecStart=")]


@pytest.mark.parametrize(("page", "text"), FILES)
def test_every_settings_file_of_the_pages_is_accepted(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "unlimitedws.toml"
    file.write_text(text)
    load({}, {}, str(file))


@pytest.mark.parametrize(("page", "line"), [*LINES, *UNITS])
def test_every_command_line_of_the_pages_is_accepted(page: str, line: str) -> None:
    program, *arguments = shlex.split(line.removeprefix("ExecStart="))
    assert program.endswith("unlimitedws")
    options = vars(parser().parse_args(arguments))
    load({name: value for name, value in options.items() if name in DEFAULTS}, {})


def test_there_is_something_of_each_kind_to_check() -> None:
    assert (len(FILES), len(LINES), len(UNITS)) == (7, 4, 2)


def test_every_place_and_option_of_the_table_is_one() -> None:
    text = (DOCS / "how-to" / "listen-in-several-places.md").read_text()
    table = text.partition("| place |")[2].partition("Options follow")[0]
    named = [place for row in table.splitlines() for place in re.findall(r"`([^`]+)`", row.partition("|")[2].partition("|")[0])]
    assert len(named) == 7
    for place in named:
        assert len(places(place)) == 1
    options = re.findall(r"`([^`]+)`", " ".join(row.split("|")[1] for row in text.splitlines() if row.startswith("| `") and "=" in row))
    assert len(options) >= 4
    for option in options:
        places(f"unix:/x?{option}")


def test_the_hook_of_the_page_knows_a_client_by_its_certificate(engine_name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("localhost")
    handlers = app_of("how-to/serve-tls.md")["handlers"]
    handlers.on_message = lambda conn, message: conn.send(",".join(conn.state))
    settings = {"certfile": str(chain), "keyfile": str(key), "client_ca": str(authority.pem), "client_certs": "optional"}
    with served(handlers, engine=engine_name, **settings) as there:
        with authority.client_context("alice.example").wrap_socket(there.socket(), server_hostname="localhost") as alice:
            alice.settimeout(WAIT_S)
            upgrade(alice)
            alice.sendall(pack(TEXT, b"who am I?"))
            assert alice.recv(4096)[2:] == b"alice.example"
        with authority.client_context().wrap_socket(there.socket(), server_hostname="localhost") as nobody:
            nobody.settimeout(WAIT_S)
            nobody.sendall(request())
            assert head(nobody).startswith(b"HTTP/1.1 403 ")
