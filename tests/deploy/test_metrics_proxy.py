"""The proxy beside the server: of the admin port it lets /metrics through, read only, and nothing else."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from tests.deploy.files import changed, read
from tests.deploy.programs import program, running
from tests.serving import WAIT_S
from tests.supervisor.conftest import Run, run

__all__ = ["run"]  # a fixture


def status(port: int, method: str, path: str) -> int:
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        asking.request(method, path)
        return asking.getresponse().status
    finally:
        asking.close()


def test_prometheus_may_read_the_metrics_and_nobody_anything_else(run: Run, tmp_path: Path) -> None:
    server = run().ready()
    file = tmp_path / "metrics.cfg"

    def command(ports: list[int]) -> list[str | Path]:
        edits = {"bind :9001": f"bind 127.0.0.1:{ports[0]}", "127.0.0.1:9000": f"127.0.0.1:{server.admin_port}"}
        file.write_text(changed(read("kubernetes/metrics.cfg"), edits))
        return [program("haproxy"), "-db", "-f", file]

    with running(command, tmp_path) as (port,):
        assert status(port, "GET", "/metrics") == server.get("/metrics")[0]
        for method, path in (
            ("POST", "/metrics"),
            ("GET", "/"),
            ("GET", "/config"),
            ("GET", "/metrics/../config"),
            ("DELETE", "/connections/1"),
        ):
            assert status(port, method, path) == 403, (method, path)
    assert server.get("/stats")[0] == 200


@pytest.mark.parametrize("line", ["bind :9001", "server admin 127.0.0.1:9000"])
def test_the_file_is_the_one_that_the_manifests_mean(line: str) -> None:
    assert line in read("kubernetes/metrics.cfg")
