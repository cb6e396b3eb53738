from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.examples.serving import Serving

Serve = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path, engine_name: str) -> Iterator[Serve]:
    """Serves an app by its spec, on free ports: `serve("examples.echo:handlers", "--workers", "1", GUESTBOOK=...)`."""
    with ExitStack() as stack:

        def start(app: str, *flags: str, **environ: str) -> Serving:
            arguments = ["-m", "unlimitedws", app, "--port", "0", "--admin-port", "0", "--engine", engine_name, *flags]
            serving = Serving(arguments, tmp_path, environ)
            stack.callback(ended_well, serving)
            return serving

        yield start


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Serve]:
    """Runs a program of the repository's that serves: `run("examples/launcher.py", "--port", "0")`."""
    with ExitStack() as stack:

        def start(*arguments: str, **environ: str) -> Serving:
            serving = Serving(list(arguments), tmp_path, environ)
            stack.callback(ended_well, serving)
            return serving

        yield start


def ended_well(serving: Serving) -> None:
    log = serving.stop()
    assert "Traceback" not in log, log
    errors = [line for line in log.splitlines() if " ERROR " in line]
    assert [line for line in errors if not any(words in line for words in serving.expected_errors)] == []
