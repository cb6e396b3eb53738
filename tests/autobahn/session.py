"""Runs the Autobahn test suite against our echo server on each engine.

Exit status: 0 when no case failed, 1 when one did, 77 when the suite cannot be run here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.autobahn.suite import Suite, SuiteUnavailable
from tests.autobahn.verdicts import Verdict, read_report, summary

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "tests/autobahn/reports"
ENGINES = ("native", "portable")
EXCLUDED = ("12.*", "13.*")  # compression, which is not offered: the suite would call them UNIMPLEMENTED
SKIPPED = 77

# Run at the same time, in about equal shares: most cases wait for a clock rather than for the server.
GROUPS = (("1.*", "2.*", "3.*", "4.*", "5.*"), ("6.*",), ("7.*", "8.*", "10.*", "11.*"), ("9.*",))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests/autobahn/run", description=__doc__)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="only this engine (may repeat)")
    parser.add_argument("--cases", action="append", metavar="PATTERN", help="only these cases, such as 9.* (may repeat)")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds for all cases of one engine")
    options = parser.parse_args(arguments)
    try:
        suite = Suite(ROOT / "build/autobahn")
    except SuiteUnavailable as error:
        print(f"SKIPPED, nothing was tested: {error}", file=sys.stderr)
        return SKIPPED
    groups = [options.cases] if options.cases else GROUPS
    cases = [suite.cases(group, EXCLUDED) for group in groups]
    failed = 0
    for engine in options.engine or ENGINES:
        verdicts = run(suite, engine, cases, options.timeout)
        print(f"{engine}: {summary(verdicts)}", flush=True)
        failed += sum(not verdict.passed for verdict in verdicts)
    return 1 if failed or not any(cases) else 0


def run(suite: Suite, engine: str, groups: Sequence[Sequence[str]], timeout_s: float) -> list[Verdict]:
    """The verdicts on one engine: each group by a client of its own, all at once."""
    folders = [REPORTS / engine / str(number) for number in range(len(groups))]
    deadline = time.monotonic() + timeout_s
    with echo_server(engine) as url:
        clients = [suite.start(url, engine, cases, folder) for cases, folder in zip(groups, folders, strict=True)]
        try:
            for client in clients:
                client.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"{engine}: not through after {timeout_s:.0f} s; what is missing has failed", file=sys.stderr)
        finally:
            for client in clients:
                client.kill()
                client.wait()
    return [verdict for cases, folder in zip(groups, folders, strict=True) for verdict in read_report(folder, engine, cases)]


@contextmanager
def echo_server(engine: str) -> Iterator[str]:
    """The URL of an echo server in a process of its own. It must live to the end, and stop when asked."""
    command = [sys.executable, "-m", "tests.autobahn.echo_server", engine]
    server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        if not port:
            raise SystemExit(f"the echo server on the {engine} engine did not start (its report is above)")
        yield f"ws://127.0.0.1:{port}"
        if server.poll() is not None:
            raise SystemExit(f"the echo server on the {engine} engine ended by itself: status {server.returncode}")
        server.stdin.close()
        if server.wait(40) != 0:
            raise SystemExit(f"the echo server on the {engine} engine stopped with status {server.returncode}")
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()


if __name__ == "__main__":
    sys.exit(main())
