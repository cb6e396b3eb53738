"""A network namespace of its own, with a larger hash of established connections than the kernel makes by default.

The kernel finds the socket that a packet is for in a hash whose size it chooses at its start, 524,288 chains at most
(tcp_ehash_entries in Documentation/networking/ip-sysctl.rst): with both ends of a million connections each lookup walks a list of
cold sockets. `thash_entries` on the kernel's command line makes it larger for the machine; for a namespace a sysctl of its parent
does (since Linux 6.1)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

CLONE_NEWNET = 0x40000000  # sched.h
SIOCSIFFLAGS = 0x8914  # linux/sockios.h
IFF_UP = 0x1

OWN = Path("/proc/sys/net/ipv4/tcp_ehash_entries")
CHILDREN = Path("/proc/sys/net/ipv4/tcp_child_ehash_entries")


def enter(entries: int) -> None:
    """Puts this process and those that it starts into a namespace with nothing but loopback. entries: at least so many chains; at most
    16,777,216. Raises OSError: without the privilege, or on a kernel that does not know it."""
    unshare()  # so that the sysctl is not the machine's
    CHILDREN.write_text(str(entries))
    unshare()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def chains() -> int | None:
    """Of the hash that is used here; None where the kernel does not tell."""
    try:
        return abs(int(OWN.read_text()))  # negative: shared with the namespace that this one came from
    except OSError:
        return None
