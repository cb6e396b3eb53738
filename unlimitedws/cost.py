"""What a connection at rest costs, in bytes, and where each figure is from.

Of a kernel that lets us look (root), `doctor` takes its own sizes instead; of the native engine, its structs' own. Tests hold
these figures to both.
"""

from __future__ import annotations

KERNEL_BYTES = 4096
"""Slab memory of the kernel for the server's end of an idle TCP connection, as measured on Linux 6.18; not in any RSS: the
socket (2,521 bytes), its inode (862), file (195), directory entry (195), epoll's notes of it (208) and the security module's (56)."""

ROW_BYTES = {"native": 48, "portable": 74}
"""Of each engine: a row of the table (table.pxd); what PSS grew by from 5,000 to 15,000 connections (docs/performance.md)."""
V6_BYTES = 16
"""The address of a peer, where the server listens on IPv6 (table.pyx)."""
METER_BYTES = 40
"""Counts of a connection, where a rate or the access log is set (table.pxd)."""
TLS_BYTES = 17 * 1024
"""OpenSSL's (docs/performance.md)."""
TAKEOVER_BYTES = {9: 18 * 1024, 12: 32 * 1024, 15: 200 * 1024}
"""Windows kept from message to message where `deflate_takeover` was agreed, by the largest `deflate_window_bits`."""

BUSY_BYTES = 4096
"""The page at least that a socket is charged while something is on its way (0.9 of 4,000 sockets with an unread byte, Linux 6.18)."""

WORKER_BYTES = 3 << 20
"""What one more worker adds to all of them: 2.5 MB of PSS empty and 0.4 MB more once it has served a crowd (`make bench-empty`, from one
worker to eight, native engine, CPython 3.11). The app's own comes on top."""
BASE_BYTES = 39 << 20
"""What a server would take without workers: the supervisor, the template and the libraries of all (40.3 MB of PSS in the same measures;
14.5 of them are libraries, which other Python programs on a machine share)."""

WORKER_DESCRIPTORS = 32
"""An empty worker has 16; the rest is for the app: files, clients of databases."""
SUPERVISOR_DESCRIPTORS = 24
"""One without workers has 15, and 7 more while it reloads; the rest is for who asks its admin port and control socket."""
SLOT_DESCRIPTORS = 2
"""What it has besides for each worker: its pidfd and a pipe; and a listener for each place of TCP, which comes on top."""

PING_S = 13e-6
"""CPU for a Ping and its Pong, kernel included (`make capacity`: 12 to 14 us with 100,000 and with 1,000,000 connections, pinged every
25 s, whose memory is in no cache by then; 7 us with 15,000 that are pinged every second)."""
