"""Writes docs/reference from the code that it describes: `make docs-reference`. A test holds the pages to it."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docs import api_pages, command_pages  # noqa: E402  (the path comes first)
from unlimitedws.bench import options as bench  # noqa: E402
from unlimitedws.bench.fields import FIELDS, HISTOGRAM  # noqa: E402
from unlimitedws.commands import metavar, shown  # noqa: E402
from unlimitedws.config import DEFAULTS, accepted, flag, kind, settings, variable  # noqa: E402
from unlimitedws.doctor import fields as doctor  # noqa: E402
from unlimitedws.doctor.lines import WHERE  # noqa: E402
from unlimitedws.engine.counters import ENGINE, HISTOGRAMS, WORKER, Field  # noqa: E402
from unlimitedws.supervisor import fields, metrics  # noqa: E402
from unlimitedws.wire.closing import Cause  # noqa: E402

FOLDER = ROOT / "docs" / "reference"
ACRONYMS = {"http": "HTTP", "tls": "TLS"}

SETTINGS = """# Settings

Each setting has four spellings: a flag of `unlimitedws serve`, an environment variable, a key of the TOML file that
`--config FILE` (or `UNLIMITEDWS_CONFIG`) names, and a keyword argument of `Config`, `Supervisor` and `Server`. Later ones win:

    default < file < environment < flag < keyword argument

`unlimitedws serve --print-config` shows every value and where it came from. An unknown name and a value that is not accepted
are errors. The unit is the end of the name: `_s` seconds, `_per_s` a number each second, `_bytes` bytes, none: a number of
the thing named. Sizes may be written in text as `64k`, `1MiB` or `2g`, in powers of 1024; switches as `true`, `false`, `yes`,
`no`, `on`, `off`, `1`, `0`.

`UNLIMITEDWS_APP` names the app where the command line does not.
"""

COUNTERS = """# Counters

What each worker counts, under these names in [`/stats`](stats.md). A *counter* only grows, and a worker that was replaced leaves
its counters to its slot; a *gauge* is the value now. An *identity* and a *clock* are for the server itself, and not shown.
[`/metrics`](metrics.md) has the same numbers under names of its own.
"""

STATS = """# /stats

One JSON object, made when it is asked for. Memory, CPU and descriptors are at most a second old, or twenty times as old as
reading them takes. Fields that workers count are described in [counters.md](counters.md): there, closes and histograms are
columns; here they are objects, `closes` by [cause](closing.md), and a histogram by the upper bound of each bucket.
"""

METRICS = """# /metrics

For Prometheus and whoever reads the same: OpenMetrics text where the `Accept` header asks for `application/openmetrics-text`, else the
older text format (0.0.4), which knows no *info* and calls it a gauge. What a worker counts has the label `slot`: a slot outlives its
processes, so a restart or a reload makes no new series and no counter goes back. There is no series for a connection.
Units are seconds and bytes. Made from the [counters](counters.md) of the workers and from what the supervisor knows.

The processes of a `role` are `supervisor`, `template` (it imports the app and forks the workers) and `worker`, which has
its `slot` as well.

| name | meaning | type | unit |
|---|---|---|---|
"""

BENCH = """# unlimitedws bench

    unlimitedws bench URL [URL ...] [--mode MODE] [--option VALUE ...]
    unlimitedws bench --compare A.json B.json [--plot FILE]

Loads the WebSocket server at `ws://host:port/path?query`, or `wss://`; several URLs are several ports of it, and get the same requests.
[How to use it](../how-to/load-test-a-server.md). The unit is the end of a name, as in [settings](settings.md).

Exit status: 0 when nothing went wrong; 1 when the server did something wrong, or could not be loaded; 2 when the command line is
wrong; 74 when the table could not be written (the files of `--json` and `--plot` are, all the same); 130 after SIGINT, which ends a run
early and shows what there is.

| mode | what happens |
|---|---|
"""

BENCH_REPORT = """
## What --json writes

One object. Times are microseconds where the name ends with `_us` and seconds where it ends with `_s`; sizes are bytes; what is not
known is null.

| field | what |
|---|---|
"""

BENCH_HISTOGRAM = """
A histogram is an object, of which only `number` is there when it is 0:

| field | what |
|---|---|
"""

CLOSING = """# Why connections end

Each end of a connection has exactly one cause: handed to `on_close` as `close.cause`, and counted in `/stats`. The close
*code* is what went over the wire; the cause is why, as the server saw it. `Cause` is the enumeration of them, whose members are
strings: `close.cause == "idle"`.

| cause | meaning |
|---|---|
"""

DOCTOR = """# unlimitedws doctor

    unlimitedws doctor [APP] [--connections N] [--json] [--config FILE] [--setting VALUE ...]

Says how many connections this machine holds when it serves with these settings, what ends it first, what each costs and what to change.
[How to use it](../how-to/check-a-machine.md); [the arithmetic](../how-to/tune-for-many-connections.md). `APP` is taken so that the
arguments of `serve` fit, and not looked at. Settings come from the same places as those of [a server](settings.md).

| exit code | meaning |
|---|---|
| 0 | N connections fit, or no N was given |
| 1 | N connections do not fit |
| 2 | wrong usage: an unknown flag, a value that is not accepted, a file that cannot be read |
| 74, 141 | the verdict could not be written, or nobody [read it to its end](errors.md) |
"""


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"wrote {(FOLDER / name).relative_to(ROOT)}")


def pages() -> dict[str, str]:
    """File name to text of every page."""
    return {
        "settings.md": settings_page(),
        "counters.md": counters_page(),
        "stats.md": stats_page(),
        "metrics.md": metrics_page(),
        "closing.md": closing_page(),
        "doctor.md": doctor_page(),
        **command_pages.pages(),
        **api_pages.pages(),
        "bench.md": bench_page(),
    }


def settings_page() -> str:
    parts = [SETTINGS]
    for group, names in groupby(settings(), key=lambda name: settings()[name].group):
        parts.append(f"\n## {ACRONYMS.get(group, group.capitalize())}\n")
        parts.extend(f"\n{setting_entry(name)}" for name in names)
    return "".join(parts)


def setting_entry(name: str) -> str:
    about = settings()[name]
    zero = f" 0: {about.zero}." if about.zero else ""
    empty = f" Empty: {about.empty}." if about.empty else ""
    default = shown(DEFAULTS[name]) or "empty"
    usage = f"{flag(name)}, {flag('no_' + name)}" if kind(name) is bool else f"{flag(name)} {metavar(name)}"
    values = accepted(name).partition(";")[0].partition(" (")[0]
    return (
        f"### {name}\n\n{about.help[0].upper()}{about.help[1:]}.{zero}{empty}\n\n"
        f"- default: `{default}`\n- accepted: {values}\n- flag: `{usage}`\n- variable: `{variable(name)}`\n"
    )


def bench_page() -> str:
    parts = [BENCH, *(f"| `{mode}` | {text} |\n" for mode, text in bench.ONE_AFTER_THE_OTHER.items())]
    for group, names in groupby(bench.about(), key=lambda name: bench.about()[name].group):
        parts.append(f"\n## {group.capitalize()}\n\n| flag | |\n|---|---|\n")
        parts.extend(f"| `{bench_usage(name)}` | {bench.help_of(name)} |\n" for name in names)
    parts += [BENCH_REPORT, *(f"| `{name}` | {text} |\n" for name, text in FIELDS.items())]
    parts += [BENCH_HISTOGRAM, *(f"| `{name}` | {text} |\n" for name, text in HISTOGRAM.items())]
    return "".join(parts)


def bench_usage(name: str) -> str:
    return flag(name) if bench.KINDS[name] is bool else f"{flag(name)} {bench.metavar(name)}".replace("|", "\\|")


def counters_page() -> str:
    parts = [
        COUNTERS,
        "\n## Of the engine\n\n",
        counters_table(ENGINE),
        "\n## Of the worker\n\n",
        counters_table(WORKER),
        "\n## Histograms\n",
    ]
    for histogram in HISTOGRAMS:
        parts.append(f"\n`{histogram.name}`: {histogram.help}.\n\n")
        parts.append(counters_table(histogram.fields))
    return "".join(parts)


def counters_table(fields: tuple[Field, ...]) -> str:
    rows = [f"| `{field.name}` | {field.help} | {field.kind} | {field.unit} |\n" for field in fields]
    return "| name | meaning | kind | unit |\n|---|---|---|---|\n" + "".join(rows)


STATS_PARTS = (
    ("The server", "", fields.SERVER, ()),
    ("All of it together", "total.", fields.RESOURCES, ("what all workers counted, those before them included",)),
    ("Each worker process", "workers[].", {**fields.WORKER, **fields.RESOURCES}, ("what this process has counted",)),
    ("Each slot", "slots[].", fields.SLOT, ("what all its processes have counted, the dead ones too",)),
    ("Each process", "processes[].", {**fields.PROCESS, **fields.RESOURCES}, ()),
)


def stats_page() -> str:
    parts = [STATS]
    for title, prefix, about, more in STATS_PARTS:
        parts.append(f"\n## {title}\n\n| field | meaning | unit |\n|---|---|---|\n")
        parts.extend(f"| `{prefix}{path}` | {help} | {unit} |\n" for path, (unit, help) in about.items())
        parts.extend(f"| `{prefix}...` | {what}: [counters.md](counters.md) | |\n" for what in more)
    return "".join(parts)


def metrics_page() -> str:
    return METRICS + "".join(metric_row(family) for family in metrics.families())


def metric_row(family: metrics.Family) -> str:
    names = ", ".join(f"`{name}`" for name in metrics.sample_names(family))
    return f"| {names} | {family.help} | {family.kind} | {family.unit} |\n"


def closing_page() -> str:
    return CLOSING + "".join(f"| `{cause.value}` | {cause.help} |\n" for cause in Cause)


DOCTOR_PARTS = (
    ("The verdict", "field", doctor.VERDICT),
    ("What would be served", "field", doctor.SERVER),
    ("The machine", "field", doctor.MACHINE),
    ("Bounds", "name", doctor.BOUNDS),
    ("Problems", "name", doctor.PROBLEMS),
    ("Lines", "section", WHERE),
)


def doctor_page() -> str:
    parts = [DOCTOR, "\nWith `--json` it prints one object. Later releases may add fields; those that are there keep their meaning.\n"]
    for title, what, about in DOCTOR_PARTS:
        rows = "".join(f"| `{name}` | {help} |\n" for name, help in about.items())
        parts.append(f"\n## {title}\n\n| {what} | meaning |\n|---|---|\n{rows}")
    parts.append("\nA problem may also have the name of a bound: settings let in more connections than it allows.\n")
    return "".join(parts)


if __name__ == "__main__":
    main()
