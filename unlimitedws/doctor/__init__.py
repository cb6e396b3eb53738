"""`unlimitedws doctor`: how many connections a machine holds, what ends it first, and the lines that change that.

    machine.py    what the kernel says: settings (sysctls.py), cgroups (cgroup.py), slabs (slab.py); under a root that may be a fake one
    server.py     what would be served: settings, engine, workers; versions.py  their releases
    price.py      what each connection costs, and where the figure is from
    capacity.py   each limit as a number of connections: bounds, the least of which is what is held
    changes.py    what has to be another value, so that a number of connections fits
    problems.py   what is wrong whatever the number
    verdict.py    all of it together;  lines.py, report.py, fields.py  the same as lines to copy, table and JSON
    checkup.py    the problems as log lines, when a server starts

May import the engines and what lies below. It stands below the supervisor, which has a short-lived child of its own run the
check-up: what is imported here, no process of a server keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unlimitedws.config import Config


def run(config: Config, wanted: int | None, *, cpus: int, as_json: bool) -> int:
    """Prints the verdict on this machine and gives the exit code: 1 where `wanted` connections do not fit, else 0. Raises OutputFailed.

    cpus: that this process may use."""
    import json
    import shutil

    from unlimitedws.doctor import machine, report, server, verdict
    from unlimitedws.output import show

    found = verdict.judge(machine.read(cpus=cpus, ours=1), server.read(config, cpus=cpus), wanted)
    columns = shutil.get_terminal_size((1000, 0)).columns  # 1,000 where it is no terminal
    show(json.dumps(report.document(found), indent=2) if as_json else report.text(found, columns))
    return 1 if found.is_enough is False else 0
