"""What each field of `unlimitedws doctor --json` means: docs/reference/doctor.md is made from this, and a test holds a real document to it.

Paths as in supervisor/fields.py: `machine.open_files.hard`; `[]` stands for each item of a list.
"""

from __future__ import annotations

VERDICT = {
    "wanted": "connections asked for by `--connections`; null: none were",
    "enough": "whether they fit; null where none were asked for",
    "connections": "how many this machine really holds, served in this way: the least bound that ends it",
    "limited_by": "the name of that bound",
    "best.workers": "with so many workers it would hold the most, as the machine is set now",
    "best.connections": "and that is how many",
    "bounds[].name": "see below",
    "bounds[].connections": "the whole server holds at most so many because of it",
    "bounds[].ends": "true: beyond it connections are refused, dropped or cut; false: something gets worse",
    "bounds[].why": "the arithmetic, in words",
    "bytes_each": "what an idle connection costs, in bytes, the app's own state apart",
    "price[].what": "a part of that",
    "price[].bytes": "its size",
    "price[].source": "where the figure is from",
    "on_top[].what": "what comes to it while there is something to do",
    "on_top[].bytes": "its size; of peers that do their worst, at most",
    "on_top[].source": "where the figure is from",
    "problems[].name": "what is wrong, whatever the number of connections; see below",
    "problems[].text": "the same as a sentence",
    "problems[].serious": "true: a line in the log when a server starts; false: something that could be better",
    "changes[].bound": "the bound that it lifts, or the problem that it mends",
    "changes[].kind": "`setting`, `sysctl`, `boot` (the kernel's command line), `open_files`, `memory`, `memory_high`, `processes`, "
    "`user_processes`, or `hardware`, which no line changes",
    "changes[].key": "the setting, the sysctl, the parameter of the kernel, the resource limit, the file of a cgroup, or what is missing",
    "changes[].value": "what it must be at least, as text; of hardware: how much more",
    "changes[].instead_of": "the key of another change that this one replaces; empty: none",
    "lines": "the changes as lines to copy, by where they belong: `settings`, `sysctl`, `boot`, `systemd`, `login`, `docker`, `kubernetes`",
}

SERVER = {
    "server.workers": "worker processes it would have",
    "server.engine": "`native` or `portable`",
    "server.why_not_native": "why the native engine is not there; null where it is, or was not asked for",
    "server.uvloop": "whether it is installed",
    "server.versions.unlimitedws": "its release",
    "server.versions.python": "the release of Python that runs it",
    "server.versions.uvloop": "the release of uvloop; null: it is not installed",
    "server.settings": "the settings that the verdict depends on, with their values",
}

MACHINE = {
    "machine.kernel": "its release",
    "machine.surroundings": "`machine`, `docker`, `kubernetes`, `container` or `wsl`",
    "machine.own_network": "whether it is in a network namespace beside the host's",
    "machine.sealed": "whether /proc/sys is read-only",
    "machine.cpus": "CPUs that may be used: of the affinity mask, and of the cgroup's quota",
    "machine.open_files.soft": "RLIMIT_NOFILE; the server raises it to the hard limit",
    "machine.open_files.hard": "its hard limit",
    "machine.user_processes": "RLIMIT_NPROC, hard; null: no limit, or root, whom it does not hold",
    "machine.user_tasks": "processes and threads that count against it now; 0 where there is no limit",
    "machine.memory_bytes": "memory of the machine",
    "machine.available_bytes": "of it, available for new use",
    "machine.memory_limits[].path": "the file of each cgroup around this process that limits memory",
    "machine.memory_limits[].limit": "bytes",
    "machine.memory_limits[].used": "bytes in use, without page cache that is given up",
    "machine.memory_highs[].path": "the same for memory.high, beyond which the kernel slows everybody in it down",
    "machine.memory_highs[].limit": "bytes",
    "machine.memory_highs[].used": "bytes in use, without page cache that is given up",
    "machine.process_limits[].path": "the same for processes and threads",
    "machine.process_limits[].limit": "processes and threads",
    "machine.process_limits[].used": "of them, there now",
    "machine.tcp_pages": "pages in the buffers of all TCP sockets now",
    "machine.dropped_packets": "packets that waited for a busy CPU and were dropped since the machine started (/proc/net/softnet_stat)",
    "machine.huge_pages": "`always`, `madvise` or `never`: transparent huge pages; with `always` an empty worker takes up to 2 MiB more",
    "machine.tracks": "whether a firewall keeps a note of each connection, as far as can be told",
    "machine.sysctls": "settings of the kernel by name, each a list of numbers",
    "machine.unknown": "those that cannot be read here, and files that tell nothing; each with the reason",
}

BOUNDS = {
    "descriptors": "open files of each worker (RLIMIT_NOFILE)",
    "max_connections": "the setting, for all workers together",
    "max_connections_total": "the setting",
    "files": "open files of the whole machine (fs.file-max)",
    "epoll_watches": "what one user may watch with epoll (fs.epoll.max_user_watches); by default a twenty-fifth of the memory",
    "conntrack": "notes of a firewall about connections (nf_conntrack_max), where one keeps them",
    "memory": "of the machine or of a cgroup, whichever is less, up to `shed_memory`",
    "supervisor_files": "open files of the supervisor, which has some for each worker (RLIMIT_NOFILE)",
    "pids": "processes that a cgroup allows (pids.max)",
    "user_processes": "processes that this user may have (RLIMIT_NPROC)",
    "memory_high": "memory beyond which the kernel slows down everybody in a cgroup (memory.high); not an end",
    "memory_busy": "memory while something is under way to every connection at once; not an end",
    "tcp_mem": "buffers of all TCP sockets (net.ipv4.tcp_mem), a page for each connection with something under way; not an end",
    "cpu": "heartbeats alone would take all CPUs; not an end",
    "tcp_ehash": "more than two sockets in each chain of the kernel's hash of connections (net.ipv4.tcp_ehash_entries); not an end",
    "conntrack_buckets": "a note of a firewall in each of its chains (nf_conntrack_buckets), where one keeps them; not an end",
    "proxy_ports": "ports that the proxies of `trusted_proxies` connect from, where all their addresses are known; not an end by itself",
}

PROBLEMS = {
    "backlog": "the kernel cuts `backlog` to net.core.somaxconn",
    "max_connections": "the setting lets in more than a worker can open",
    "ping_interval_s": "proxies that are usual cut silent connections before a Ping is sent; without `trusted_proxies`, could be better",
    "workers": "not all of them can start: processes, or open files of the supervisor, are too few",
    "no_room": "not one connection fits",
    "syn_cookies": "they are off, so that a flood of SYNs locks everybody out",
    "overcommit": "the kernel counts address space, and the tables reserve more than there is",
    "uvloop": "it is not installed",
    "engine": "the portable engine serves because the native one is not available; could be better",
    "handshakes_per_s": "at that rate everybody would take more than five minutes to come back after an outage; could be better",
    "migration": "who waits in the queue of a worker that goes is reset; could be better",
    "dropped_packets": "packets that waited for a busy CPU were dropped (net.core.netdev_max_backlog); could be better",
    "orphans": "a stop closes faster than the kernel keeps ends for; could be better",
}
"""And the name of a bound, where `max_connections` or `max_connections_total` lets in more than it allows."""
