"""The pages about listening: what they tell an operator to write is accepted, and what they promise happens."""

from __future__ import annotations

import re
from pathlib import Path

from tests.certificates import Authority
from tests.docs.pages import DOCS, app_of
from tests.peer import TEXT, pack, request
from tests.serving import WAIT_S, head, served, upgrade
from unlimitedws.place import places


def code(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / "how-to" / page).read_text(), re.MULTILINE | re.DOTALL)


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
