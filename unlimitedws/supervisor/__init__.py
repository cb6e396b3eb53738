"""The processes: listeners, forks and restarts, signals, reload, stats and the admin endpoint.

    supervisor.py   the sequence: listen, start, wait, stop; owns the signals
    fleet.py        the slots and their workers: started, restarted, stopped;  reload.py  fresh code for them
    generation.py   the supervisor's side of a template process;  template.py  the process itself
    child.py        the supervisor's side of a worker process;    process.py   the process itself
    stats_table.py  what workers count, shared;  report.py, admin.py  the same for the operator

May import everything but the tools and the command line. The supervisor's own process runs no thread, imports no
app and is idle unless something happens.
"""

from __future__ import annotations

from unlimitedws.supervisor.supervisor import Supervisor

__all__ = ["Supervisor"]
