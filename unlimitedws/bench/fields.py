"""What the JSON of a run says, field by field: the reference is made from this, and a test holds reports to it."""

from __future__ import annotations

FIELDS = {
    "format": "1; grows when a field changes its meaning",
    "tool": "unlimitedws bench",
    "at": "when it ended, local time",
    "machine": "`kernel`, `cpus`, `cpu`, `python` of the load's machine",
    "urls": "what was loaded",
    "mode": "what the connections did",
    "loop": "`open` or `closed`",
    "options": "every option with its value",
    "ok": "whether no error was counted and it ran to its end",
    "interrupted": "whether SIGINT ended it",
    "stopped_early": "why it ended before its time, where it was not for SIGINT",
    "connections": "`asked`, `opened`, `failed`, `lost`; slow and half-open ones `held` and `cut` by the server; `per_s`; the time taken: "
    "`connecting_s`; idle: `leaving_s`; reconnect: `coming_back_s`",
    "messages": "`due`, `answered`, `unanswered`, `published`, `delivered`, `per_s`",
    "latency_us": "histograms by name. `latency`: of answers or deliveries; connect: until open; reconnect: until back. `quiet`: of "
    "answers before slow or half-open ones came. `kept`: how long the server held those. `late`, of an open loop: from when a message was "
    "due to its sending, where it was the load that was late",
    "connect_us": "a histogram: from when a connection was due to the end of its handshake",
    "server": "with --pid: `pid`; `doubt`: why it may be another than the server; `memory`: `pss`, `rss`, `processes` and `connections` at "
    "each of `empty`, `full`, `end`, `after`, null where it had ended; `pss_per_connection_bytes`; `cores`, `busiest_core` (of one "
    "process), `cpu_us_per_message` while it was measured; `rest_us_per_connection_s`",
    "kernel": "`connections` when full; `bytes_per_connection`: growth from empty to full, as `slab` (the whole machine's), `caches` "
    "(sockets, files and epoll entries in use; for root), `cgroup` (the server's, where it is another than ours), `tcp_pages` (socket "
    "buffers); `both_ends`: whether all but `cgroup` hold both ends of a connection",
    "load": "`processes`, `sources`, `cores`, `busiest_core`, `machine_cores` (all programs), `seconds` measured, "
    "`waited_cores` (that one of them waited for while others used them); `limit`: what was at its limit, `server`, `load`, `machine`, "
    "`rate` (neither) or `unknown`; null where it stopped early",
    "errors": "what makes a run not ok, by kind",
    "faults": "what servers and system calls did to connections, in words",
    "closes": "close code of the server to number of connections",
    "statuses": "HTTP status to number of refused handshakes",
    "errnos": "system call to errno to number",
    "counters": "everything that was counted",
}

HISTOGRAM = {
    "number": "of latencies",
    "mean": "of all",
    "least": "exactly",
    "p50": "percentiles, three digits of them right: `p50`, `p90`, `p99`, `p99_9`, `p99_99`",
    "longest": "exactly",
    "histogram_ns": "all of it, in ns, as HdrHistogram encodes it",
}
