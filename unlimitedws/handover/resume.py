"""How the app gets a connection with the state that it gave along."""

from __future__ import annotations

from typing import Any

from unlimitedws.engine.contract import Endpoint


def resume(engine: Any, endpoint: Endpoint, connection: Any, state: Any) -> None:
    """Calls on_resume, or where there is none on_connect, which finds the state in place and `resumed` True."""
    name = "on_connect" if endpoint.on_resume is None else "on_resume"
    try:
        if endpoint.on_resume is not None:
            endpoint.on_resume(connection, state)
        else:
            connection.state = state
            if endpoint.on_connect is not None:
                endpoint.on_connect(connection)
    except BaseException as error:
        engine.fail(connection, name, error)
