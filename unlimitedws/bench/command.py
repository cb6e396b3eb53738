"""What `unlimitedws bench` does with its arguments."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from unlimitedws.bench import options as declared
from unlimitedws.bench.options import Options
from unlimitedws.errors import BenchError, ConfigError
from unlimitedws.output import show

if TYPE_CHECKING:
    from unlimitedws.bench.report import Report

INTERRUPTED = 130  # what shells report for a program that SIGINT ended


def run(given: argparse.Namespace) -> int:
    """Runs or compares, as asked; 0 where nothing went wrong, 1 where a server did. Raises UnlimitedwsError."""
    check_built()
    if given.compare:
        return compare(*given.compare, plot=getattr(given, "plot", ""))
    if not given.urls:
        raise ConfigError("which server? unlimitedws bench ws://host:port/path, or --compare A.json B.json")
    if mode := next((word for word in given.urls if word in declared.MODES), ""):
        raise ConfigError(f"{mode!r} is no URL; what the connections do is said by --mode {mode}")
    options = declared.parse(vars(given))
    report = measure(options, given.urls)
    from unlimitedws.bench.table import table

    try:
        keep(report, options)
    finally:  # neither may cost the other: a run takes minutes
        show(table(report))
    return INTERRUPTED if report["interrupted"] else 0 if report["ok"] else 1


def measure(options: Options, urls: list[str]) -> Report:
    """One run against the servers of these URLs, all of which get the same requests. Raises BenchError."""
    from unlimitedws.bench import latency, listeners, plan, report, secure, target
    from unlimitedws.bench.crew import Crew
    from unlimitedws.bench.modes import MODES
    from unlimitedws.bench.progress import Progress
    from unlimitedws.bench.run import Run
    from unlimitedws.bench.scout import scout
    from unlimitedws.bench.server import Server

    check_files(options)
    latency.histogram()  # before anything is loaded: is the library there?
    targets = target.parse_all(urls)
    if not targets[0].is_secure and (options.cafile or options.insecure):
        raise ConfigError(f"--{'cafile' if options.cafile else 'insecure'} does nothing for {urls[0]}; it is for wss:// servers")
    context = secure.context(options) if targets[0].is_secure else None
    words = target.words(targets[0], options.header, options.subprotocol)
    planned = plan.make(options, targets)
    server, progress = Server(options.pid) if options.pid else None, Progress(quiet=options.quiet)
    for each in targets:
        scout(each, target.words(each, options.header, options.subprotocol), options.timeout_s, context)
    if server and (doubt := listeners.doubt(server.pid, targets)):
        server.doubt = doubt
        progress.say(f"unlimitedws: {doubt}")
    if planned.cpus:
        os.sched_setaffinity(0, planned.cpus)  # the load processes inherit it
    with Crew(options, planned, targets, words, context) as crew:
        made = Run(options, crew, progress, server)
        made.execute(MODES[options.mode])
        return report.make(made)


def check_built() -> None:
    """Raises BenchError unless the compiled modules are there."""
    try:
        import unlimitedws.bench.swarm  # noqa: F401
    except ImportError as error:
        raise BenchError(
            f"bench needs its compiled modules, which are not here ({error}). Install a C compiler and the Python headers "
            "(Debian, Ubuntu: apt install gcc python3-dev), then: pip install --force-reinstall --no-cache-dir unlimitedws (or make build)"
        ) from None


def keep(report: Report, options: Options) -> None:
    """Writes the files that were asked for."""
    if options.json:
        write(options.json, json.dumps(report, indent=1) + "\n")
    if options.plot:
        from unlimitedws.bench import plot

        plot.draw({report["mode"]: report}, options.plot)


def check_files(options: Options) -> None:
    """Raises BenchError where what was asked for cannot be written or drawn."""
    if options.plot:
        from unlimitedws.bench import plot

        plot.check(options.plot)
    for file in filter(None, (options.json, options.plot)):
        check_folder(file)


def check_folder(file: str) -> None:
    """Raises BenchError where a file cannot be written: before a run that takes long, not after it."""
    folder = Path(file).absolute().parent
    if Path(file).is_dir():
        raise BenchError(f"cannot write {file}: it is a folder; name a file in it")
    if not folder.is_dir():
        raise BenchError(f"cannot write {file}: there is no folder {folder}")
    if not os.access(file if Path(file).exists() else folder, os.W_OK):
        raise BenchError(f"cannot write {file}: it, or its folder, may not be written to")


def write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise BenchError(f"cannot write {file}: {error.strerror}") from None


def compare(before: str, after: str, *, plot: str = "") -> int:
    from unlimitedws.bench import comparison

    reports = comparison.read(before), comparison.read(after)
    names = comparison.names(before, after)
    show(comparison.table(*reports, names))
    if plot:
        from unlimitedws.bench import plot as plots

        plots.draw(dict(zip(names, reports, strict=True)), plot)
    return 0
