"""The pages of docs/how-to on who may connect: what each shows is served, and answers as the page says."""

from __future__ import annotations

import base64
import http.client
import json
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.checks.signing import jwk, token, write_keys
from tests.docs.pages import app_of
from tests.serving import WAIT_S, Served, eventually, served


def refusal(there: Served, path: str = "/", **options: Any) -> tuple[int, str]:
    """Status and body of the answer that a client is turned away with."""
    with pytest.raises(InvalidStatus) as caught, there.client(path, **options):
        pass
    return caught.value.response.status_code, (caught.value.response.body or b"").decode()


def answer(client: ClientConnection, message: str) -> str:
    client.send(message)
    return str(client.recv(timeout=WAIT_S))


def post(there: Served, path: str, body: str = "") -> http.client.HTTPResponse:
    asking = http.client.HTTPConnection("127.0.0.1", there.port, timeout=WAIT_S)
    try:
        asking.request("POST", path, body)
        response = asking.getresponse()
        response.read()
        return response
    finally:
        asking.close()


def test_a_hook_of_ones_own_decides_by_room_and_user(engine_name: str) -> None:
    with served(app_of("how-to/decide-who-may-connect.md")["handlers"], engine=engine_name) as there:
        with there.client("/?room=blue", additional_headers={"Cookie": "user=alice"}) as client:
            assert client.response is not None
            assert client.response.headers["X-Room"] == "blue"
            assert answer(client, "hello") == "alice in blue: hello"
        assert refusal(there, "/?room=red", additional_headers={"Cookie": "user=alice"}) == (403, "not a member of this room\n")
        assert refusal(there) == (403, "not a member of this room\n")


def test_the_servers_own_pages_are_let_in_and_others_are_not(engine_name: str) -> None:
    with served(app_of("how-to/let-in-your-own-pages.md")["handlers"], engine=engine_name) as there:
        for own in (f"http://127.0.0.1:{there.port}", f"https://127.0.0.1:{there.port}", None):
            with there.client(origin=own) as client:
                assert answer(client, "hello") == "hello"
        assert refusal(there, origin="https://evil.example") == (403, "pages of this origin may not connect\n")
        assert refusal(there, origin="null")[0] == 403


def test_a_user_signs_in_connects_and_signs_out(engine_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_KEYS", f"{'n' * 32} {'o' * 32}")
    app = app_of("how-to/sign-in-with-a-cookie.md")
    with served(app["handlers"], engine=engine_name) as there:
        assert refusal(there)[0] == 403
        set_cookie = post(there, "/login", json.dumps({"name": "alice"})).headers["Set-Cookie"]
        assert "Max-Age=28800; Secure; HttpOnly; SameSite=Lax" in set_cookie
        cookie = {"Cookie": set_cookie.partition(";")[0]}
        with there.client(additional_headers=cookie) as client:
            assert answer(client, "hello") == "alice says hello"
        assert refusal(there, additional_headers=cookie, origin="https://evil.example")[0] == 403
        assert refusal(there, additional_headers={"Cookie": cookie["Cookie"].swapcase()})[0] == 403
        assert "session=; " in post(there, "/logout").headers["Set-Cookie"]


@pytest.fixture
def jwt_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("JWKS_FILE", str(write_keys(tmp_path / "keys.json", jwk("ES256", kid="k"))))
    return app_of("how-to/accept-json-web-tokens.md")


def chat_token(**claims: Any) -> str:
    return token("ES256", headers={"kid": "k"}, **{"aud": "chat", "iss": "https://login.example.com", **claims})


def test_a_program_brings_its_token_in_a_header(engine_name: str, jwt_app: dict[str, Any]) -> None:
    with served(jwt_app["handlers"], engine=engine_name) as there:
        with there.client(additional_headers={"Authorization": f"Bearer {chat_token()}"}) as client:
            assert answer(client, "hello") == "alice says 'hello'"
        assert refusal(there) == (401, "a token is needed\n")
        expired = {"Authorization": f"Bearer {chat_token(exp=1)}"}
        assert refusal(there, additional_headers=expired) == (401, "the token has expired\n")


def test_a_page_brings_its_token_as_a_subprotocol_and_gets_the_real_one(engine_name: str, jwt_app: dict[str, Any]) -> None:
    with served(jwt_app["handlers"], engine=engine_name) as there:
        offered = ["chat.v1", f"bearer.{chat_token()}"]
        with there.client(subprotocols=offered, origin="https://app.example.com") as client:
            assert client.subprotocol == "chat.v1"
            assert answer(client, "hello") == "alice says 'hello'"
        assert refusal(there, subprotocols=offered, origin="https://evil.example")[0] == 403


def test_a_connection_ends_with_its_token_unless_it_is_renewed(engine_name: str, jwt_app: dict[str, Any]) -> None:
    soon = int(time.time()) + 2
    bearer = {"Authorization": f"Bearer {chat_token(exp=soon)}"}
    with served(jwt_app["handlers"], engine=engine_name) as there, there.client(additional_headers=bearer) as left_alone:
        with there.client(additional_headers=bearer) as renewed:
            assert answer(renewed, f"token {chat_token()}") == "renewed"
            with pytest.raises(ConnectionClosed):
                left_alone.recv(timeout=WAIT_S)
            assert left_alone.close_code == 1008
            assert time.time() >= soon
            assert answer(renewed, "still here") == "alice says 'still here'"
        eventually(lambda: there.counters["closes_expired"] == 1)


def test_a_bad_or_borrowed_token_renews_nothing(engine_name: str, jwt_app: dict[str, Any]) -> None:
    bearer = {"Authorization": f"Bearer {chat_token()}"}
    with served(jwt_app["handlers"], engine=engine_name) as there, there.client(additional_headers=bearer) as client:
        assert answer(client, f"token {chat_token(exp=1)}") == "not renewed: the token has expired"
        assert answer(client, "token x") == "not renewed: the token is malformed"
        client.send(f"token {chat_token(sub='bob')}")
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=WAIT_S)
        assert client.close_code == 1008


def basic(credentials: str) -> dict[str, Any]:
    """Options of a client that shows these credentials."""
    return {"additional_headers": {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}}


def test_the_right_password_lets_in(engine_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_PASSWORD", "open sesame")
    with served(app_of("how-to/ask-for-a-password.md")["handlers"], engine=engine_name) as there:
        with there.client(**basic("ops:open sesame")) as client:
            assert answer(client, "hello") == "ops: 'hello'"
        assert refusal(there, **basic("ops:open"))[0] == 401
        assert refusal(there) == (401, "a user name and its password are needed\n")


def test_a_password_hash_is_computed_in_a_thread(engine_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALICE_PASSWORD", "wonder")
    with served(app_of("how-to/ask-for-a-password.md", 2)["handlers"], engine=engine_name) as there:
        with there.client(**basic("alice:wonder")):
            pass
        assert refusal(there, **basic("alice:land"))[0] == 401
        assert refusal(there, **basic("bob:wonder"))[0] == 401
