"""What each mode does, in order."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from unlimitedws.bench.run import SETTLE_S, Run, nobody
from unlimitedws.errors import BenchError

PROBE_S = 0.5
QUIET_S = 3.0  # to time the healthy ones by themselves


def echo(run: Run) -> None:
    run.read("empty")
    run.ramp()
    run.read("full")
    run.load(run.options.rate, run.options.warm_s, run.options.measure_s)
    run.read("end")


def idle(run: Run) -> None:
    options = run.options
    run.read("empty")
    run.ramp()
    run.pause("settling", SETTLE_S)
    run.read("full")
    if options.rest_s:
        with run.window("rest"):
            run.pause("at rest", options.rest_s)
    if options.sample:
        run.load(options.sample / options.measure_s, 0.0, options.measure_s, spread=True)
    run.read("end")
    began = time.monotonic()
    run.crew.order("leave", abrupt=options.abrupt)
    run.wait("leaving", nobody, options.timeout_s + SETTLE_S)
    run.seconds["leaving"] = time.monotonic() - began
    run.outstay("afterwards", options.after_s)
    run.read("after")


def connect(run: Run) -> None:
    options = run.options
    run.read("empty")
    _, from_ns, to_ns = run.times(options.warm_s, options.measure_s)
    run.crew.dial(rate=options.rate, again=True, cycling=True, abrupt=options.abrupt)
    run.measure("measure", from_ns, to_ns)
    run.crew.order("halt")
    run.wait("draining", nobody, options.timeout_s)
    run.read("end")


def broadcast(run: Run) -> None:
    options, crew = run.options, run.crew
    run.read("empty")
    run.ramp()
    reach(run)
    run.read("full")
    start_ns, from_ns, to_ns = run.times(options.warm_s, options.measure_s)
    crew.publish(options.rate, start_ns, to_ns)
    run.measure("measure", from_ns, to_ns)
    if not options.rate:
        crew.order("rest")
    due = math.ceil((to_ns - start_ns) * options.rate / 1e9) - 1  # give or take the last, which is due just at the end

    def delivered(now: Counter[str]) -> bool:
        return now["published"] >= due and now["delivered"] + now["missing"] >= now["published"] * crew.receivers

    run.wait("draining", delivered, options.timeout_s)
    run.read("end")


def reach(run: Run) -> None:
    """Publishes until everybody has got one. Raises BenchError."""
    deadline = time.monotonic() + run.options.timeout_s
    while True:
        run.crew.probe()
        if run.wait("reaching", lambda now: now["reached"] >= now["up"] - 1, PROBE_S):
            return
        if time.monotonic() > deadline:
            now = run.crew.counters()
            raise BenchError(
                f"a publication reached {now['reached']:,} of {run.crew.receivers:,} connections within {run.options.timeout_s:g} s; "
                "does the server pass a message on to all others? What must they say first (--subscribe)?"
            )


def besieged(run: Run) -> None:
    """Slow and half-open ones: the others are timed without them, then beside them."""
    options = run.options
    run.read("empty")
    run.ramp("plain")
    run.load(options.healthy_rate, options.warm_s, min(options.measure_s, QUIET_S), name="quiet")
    run.latencies["quiet"] = run.crew.latency("latency")
    run.crew.forget("latency")
    if run.stopped_early:  # nobody is left whom they could disturb
        return
    run.ramp("special")
    run.load(options.healthy_rate, 0.0, options.measure_s)
    run.read("full")


def reconnect(run: Run) -> None:
    options = run.options
    run.read("empty")
    run.ramp()
    run.read("full")
    run.pause("at rest", options.rest_s)
    began = time.monotonic()
    with run.window("measure"):
        run.crew.order("vanish")
        run.wait("losing", lambda now: now["up"] == 0, options.timeout_s)
        run.crew.dial(rate=options.connections / options.spread_s if options.spread_s else options.connect_rate, again=True)
        if not run.wait("coming back", lambda now: now["up"] >= options.connections, options.ramp_timeout_s):
            run.stopped_early = f"not all were back within {options.ramp_timeout_s:g} s (--ramp-timeout-s)"
    run.seconds["coming back"] = time.monotonic() - began
    run.crew.order("halt")
    run.read("end")


MODES: dict[str, Callable[[Run], None]] = {
    "echo": echo,
    "idle": idle,
    "connect": connect,
    "broadcast": broadcast,
    "slow": besieged,
    "half-open": besieged,
    "reconnect": reconnect,
}
