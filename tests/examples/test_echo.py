from __future__ import annotations

from contextlib import ExitStack

from websockets.sync.client import connect

from tests.examples.conftest import Serve


def test_it_sends_text_and_bytes_back(serve: Serve) -> None:
    serving = serve("examples.echo:handlers")
    with connect(serving.url, proxy=None) as client:
        for message in ("déjà vu", b"\x00\xff", "", "x" * 100_000):
            client.send(message)
            assert client.recv(timeout=30) == message


def test_many_clients_share_the_port(serve: Serve) -> None:
    serving = serve("examples.echo:handlers", "--workers", "2")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(serving.url, proxy=None)) for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(str(number))
        assert [client.recv(timeout=30) for client in clients] == [str(number) for number in range(20)]
