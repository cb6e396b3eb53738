"""/connections of a whole server."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, Running, until
from tests.supervisor.test_rebalance import rebalanced, rebalancing


def ask(server: Running, path: str, method: str = "GET", token: str = "") -> tuple[int, Any]:
    headers = {"Authorization": token} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{server.admin_port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def pages(server: Running, path: str) -> list[dict[str, Any]]:
    """All connections, page after page."""
    found = []
    while path:
        status, page = ask(server, path)
        assert status == 200, page
        found += page["connections"]
        path = page["next"] or ""
    return found


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_tell_of_everybody_once_whatever_their_size(run: Run, limit: int) -> None:
    server = run(workers=2).ready()
    assert ask(server, "/connections") == (200, {"connections": [], "next": None})
    clients = [server.connect() for _ in range(7)]
    until(lambda: server.stats["total"]["connections_open"] == 7)
    found = pages(server, f"/connections?limit={limit}")
    assert {tuple(each["address"]) for each in found} == {client.local_address for client in clients}
    assert len({each["connection"] for each in found}) == len(found) == 7
    assert {(each["path"], each["subprotocol"], each["queued_bytes"]) for each in found} == {("/", None, 0)}
    assert {each["pid"] for each in found} <= set(server.workers())


def test_one_is_told_by_its_id(run: Run) -> None:
    server = run(workers=2).ready()
    with server.connect() as client:
        (about,) = pages(server, "/connections")
        assert tuple(about["address"]) == client.local_address
        assert ask(server, f"/connections/{about['connection']}") == (200, about)
    until(lambda: ask(server, f"/connections/{about['connection']}")[0] == 404)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/connections/1", 404, "no connection 1 is open"),
        ("/connections/x", 404, "is a number"),
        ("/connections/" + "9" * 19, 404, "is a number"),
        ("/connections/1/2", 404, "is a number"),
        ("/connections?limit=0", 400, "limit (1 to 100)"),
        ("/connections?limit=101", 400, "limit (1 to 100)"),
        ("/connections?start=-1", 400, "accepted are"),
        ("/connections?page=2", 400, "accepted are"),
        ("/connectionz", 404, "/connections"),
    ],
)
def test_what_is_asked_wrongly_is_told_what_is_right(run: Run, path: str, status: int, words: str) -> None:
    found, text = ask(run(workers=1).ready(), path)
    assert found == status
    assert words in text


def test_a_start_beyond_every_descriptor_is_an_empty_page(run: Run) -> None:
    server = run(workers=1).ready()
    assert ask(server, f"/connections?worker=1&start={2**62}") == (200, {"connections": [], "next": None})


def test_who_has_the_token_closes_one_connection_and_no_other(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("open sesame\nthe second line is a comment\n")
    server = run(workers=2, admin_token_file=file).ready()
    one, other = server.connect(), server.connect()
    until(lambda: len(pages(server, "/connections")) == 2)
    id = next(each["connection"] for each in pages(server, "/connections") if tuple(each["address"]) == one.local_address)
    for token in ("", "open sesame", "Bearer open", "Bearer ", "Basic open sesame"):
        assert ask(server, f"/connections/{id}", "DELETE", token)[0] == 401
    assert ask(server, f"/connections/{id}", "DELETE", "Bearer open sesame")[1]["connection"] == id
    with pytest.raises(ConnectionClosed) as closed:
        one.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "closed by the operator")
    assert ask(server, "/connections/1", "DELETE", "bearer open sesame")[0] == 404
    other.send("still there")
    assert other.recv(timeout=30) == "still there"


def test_without_a_token_it_only_reads(run: Run, tmp_path: Path) -> None:
    server = run(workers=1).ready()
    assert ask(server, "/connections/1", "DELETE", "Bearer x") == (403, "read only; to close connections, set admin_token_file\n")
    assert ask(server, "/connections", "DELETE")[0] == 405
    assert ask(server, "/connections/1", "POST")[0] == 405
    missing = run(workers=1, admin_token_file=tmp_path / "nowhere").ready()
    status, text = ask(missing, "/connections/1", "DELETE", "Bearer x")
    assert status == 403
    assert "No such file" in text


def test_an_empty_token_file_lets_nobody_in(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("\nx\n")
    server = run(workers=1, admin_token_file=file).ready()
    assert ask(server, "/connections/1", "DELETE", "Bearer ")[0] == 401


def test_a_worker_that_hangs_is_a_504_and_holds_up_nobody_else(run: Run) -> None:
    server = run(workers=1).ready()
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        status, text = ask(server, "/connections")
        assert (status, f"worker {worker} of slot 0 does not answer" in text) == (504, True)
        assert server.get("/healthz")[0] == 200
    finally:
        os.kill(worker, signal.SIGCONT)
    until(lambda: ask(server, "/connections")[0] == 200)


def test_long_paths_and_strange_ones_fit_into_a_page(run: Run) -> None:
    server = run(workers=1, source=EVERYWHERE).ready()
    path = "/" + "%F0%9F%92%A9" * 400
    for _ in range(100):
        server.connect(path)
    until(lambda: server.stats["total"]["connections_open"] == 100)
    status, page = ask(server, "/connections")
    assert (status, len(page["connections"])) == (200, 100)
    assert {len(each["path"]) for each in page["connections"]} == {200}


EVERYWHERE = """
from unlimitedws import Handlers

handlers = {"/" + chr(0x1F4A9) * 400: Handlers()}
"""


def test_ids_stay_and_find_their_connections_after_every_move(run: Run, tmp_path: Path, engine_name: str) -> None:
    file = tmp_path / "token"
    file.write_text("open sesame")
    source = ECHO + "@handlers.on_connect\ndef connect(conn):\n    conn.send(str(conn.id))\n"
    script = rebalancing(workers=2, engine=engine_name, admin_token_file=str(file))
    server = run(source=source, script=script).ready()
    clients = {str(client.recv(timeout=30)): client for client in (server.connect() for _ in range(12))}
    for _ in range(2):
        (victim, other) = server.workers()
        kept = {each["connection"] for each in pages(server, "/connections") if each["pid"] == other}
        os.kill(victim, signal.SIGKILL)
        server.successors(victim, workers=2)
        clients = {id: client for id, client in clients.items() if id in kept}
        assert rebalanced(server) == len(clients) // 2
        clients |= {str(client.recv(timeout=30)): client for client in (server.connect() for _ in range(6))}
        found = pages(server, "/connections")
        assert sorted(each["connection"] for each in found) == sorted(clients)
        for each in found:
            assert ask(server, f"/connections/{each['connection']}") == (200, each)
    for id, client in clients.items():
        assert ask(server, f"/connections/{id}", "DELETE", "Bearer open sesame")[1]["connection"] == id
        with pytest.raises(ConnectionClosed):
            ids_told(client)
    until(lambda: server.stats["total"]["connections_open"] == 0)


def ids_told(client: ClientConnection) -> None:
    while True:
        client.recv(timeout=30)
