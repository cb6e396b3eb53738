"""Measures unlimitedws, the floor and the peers by the same loads, in turn, and prints the tables.

    tests/bench/run                                     everything; takes most of an hour
    tests/bench/run --only floor,unlimitedws --work echo-64x32,piped-64x32 --rounds 5
    tests/bench/run --out build/bench/mine.jsonl --write docs/performance.md
    tests/bench/run --render build/bench/mine.jsonl     the tables again, from a kept run

Each server is started afresh for each measure, on a core of its own; the load runs on another one.
A machine that does nothing else is needed; a measure that other programs disturbed is made again.
Exit status: 0 when every measure was made, 1 when one failed, 2 when it cannot run here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.records import Record, Records, read
from tests.bench.servers import Server, ServerFailed, another, running
from tests.bench.servers import chosen as chosen_servers
from tests.bench.tables import report, write_between_markers
from tests.bench.tools import BUILD, Missing, compile_tools
from tests.bench.works import Load, Work, WorkFailed
from tests.bench.works import chosen as chosen_works

SERVER_CORE, LOAD_CORE = 0, 1
DISTURBED = 0.15  # share of a core that other programs may use
DISTURBED_BYTES = 16  # of file pages, for each connection
TRIES = 3
OPEN_FILES = 16_000  # 15,000 connections, and what a server has besides


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server in hand is stopped
    if options.render:
        kept = json.loads(options.render.with_suffix(".head.json").read_text())
        publish(Records(read(options.render)), kept, options.write)
        return 0
    try:
        servers, works = chosen_servers(options.only, options.server), chosen_works(options.work)
        compile_tools()
        check_machine()
    except (KeyError, Missing) as error:
        print(f"bench: {error.args[0]}", file=sys.stderr)
        return 2
    versions, missing = install(servers)
    head: dict[str, object] = {"versions": versions, "missing": missing, "conditions": conditions(options)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".head.json").write_text(json.dumps(head))
    records = measure_all([server for server in servers if server.name in versions], works, options)
    publish(records, head, options.write)
    return 1 if any(record.error for record in records.all) else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    def names(value: str) -> list[str]:
        return value.split(",")

    parser = argparse.ArgumentParser(
        prog="tests/bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--only", type=names, default=[], metavar="NAMES", help="servers, separated by commas")
    parser.add_argument("--work", type=names, default=[], metavar="NAMES", help="works, separated by commas")
    parser.add_argument("--server", type=another, action="append", default=[], metavar="NAME=COMMAND",
                        help="one more server; {port} and {mode} (echo, fan) are filled in")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="measures of each (default 3)")
    parser.add_argument("--warm", type=float, default=1.0, metavar="S", help="seconds before a timed measure (default 1)")
    parser.add_argument("--secs", type=float, default=3.0, metavar="S", help="seconds of a timed measure (default 3)")
    parser.add_argument("--out", type=Path, default=BUILD / "results.jsonl", metavar="FILE", help="every measure, as JSON lines")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the markers of this page, too")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing: the tables of a kept --out")
    return parser.parse_args(arguments)


def check_machine() -> None:
    """Raises Missing where the loads cannot be applied."""
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise Missing("two usable cores are needed: one for the server, one for the load")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < OPEN_FILES:
        raise Missing(f"the hard limit of open files is {hard}, and {OPEN_FILES} are needed; as root: ulimit -Hn {OPEN_FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, OPEN_FILES), hard))  # the servers inherit it


def install(servers: Sequence[Server]) -> tuple[dict[str, str], dict[str, str]]:
    """Versions of the servers that can be had, and why the others cannot."""
    versions, missing = {}, {}
    for server in servers:
        try:
            versions[server.name] = server.install()
        except Missing as error:
            missing[server.name] = str(error)
            print(f"MISSING {server.name}: {error}", file=sys.stderr, flush=True)
    return versions, missing


def measure_all(servers: Sequence[Server], works: Sequence[Work], options: argparse.Namespace) -> Records:
    """Every server in turn, work by work, round by round."""
    records = []
    with options.out.open("w") as out:
        for number in range(options.rounds):
            for work in works:
                for server in servers:
                    if server.works and work.name not in server.works:
                        continue
                    record = measure(server, work, number, options)
                    records.append(record)
                    print(record.to_json(), file=out, flush=True)
                    show(record, work, options.rounds)
    return Records(records)


def measure(server: Server, work: Work, number: int, options: argparse.Namespace) -> Record:
    """One measure; made again when other programs disturbed it, but not for ever."""
    for _ in range(TRIES):
        try:
            with running(server, work.mode, {SERVER_CORE}) as (port, pid):
                result = work.measure(Load(port, pid, {LOAD_CORE}, options.warm, options.secs))
        except (ServerFailed, WorkFailed) as error:
            return Record(number, work.name, server.name, None, error=str(error))
        record = Record(number, work.name, server.name, result.value, disturbed=disturbed(result.details), details=result.details)
        if not record.disturbed:
            break
    return record


def disturbed(details: dict[str, Any]) -> bool:
    """Whether other programs used the CPU of a timed measure or, of one of memory, mapped files of the server's: a page's PSS
    is split among all who map it."""
    if details["mode"] != "idle":
        return bool(max(details["other_cpu_util"], details["steal_util"]) > DISTURBED)
    server = details["server"]
    per_connection = server.get("pss_per_conn_end", 0)
    return bool(abs(per_connection - server.get("anon_per_conn_end", 0)) > max(DISTURBED_BYTES, per_connection * 0.05))


def show(record: Record, work: Work, rounds: int) -> None:
    value = f"FAILED {record.error}" if record.value is None else f"{record.value:,.2f} {work.unit}"
    mark = "  (disturbed)" if record.disturbed else ""
    print(f"[{record.round + 1}/{rounds}] {work.name:14} {record.server:22} {value}{mark}", file=sys.stderr, flush=True)


def conditions(options: argparse.Namespace) -> list[str]:
    """When, where and by which command."""
    with open("/proc/cpuinfo") as info:
        cpu = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    command = "tests/bench/run " + shlex.join(
        f"--{name}={','.join(value) if isinstance(value, list) else value}"
        for name, value in (("only", options.only), ("work", options.work), ("rounds", options.rounds), ("warm", options.warm),
                            ("secs", options.secs)) if value
    )  # fmt: skip
    return [
        f"Measured on {time.strftime('%Y-%m-%d')} by `{command}`: Linux {platform.release()}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores ({cpu}), server on core {SERVER_CORE}, load on core {LOAD_CORE}.",
        "Medians of the rounds, in parentheses the least and the most. Ratios compare the two measures of one round.",
    ]


def publish(records: Records, head: dict[str, object], page: Path | None) -> None:
    figures = report(records, **head)  # type: ignore[arg-type]  # as `main` made it
    print(figures)
    if page is not None:
        write_between_markers(page, figures)


if __name__ == "__main__":
    sys.exit(main())
