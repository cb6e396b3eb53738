"""System calls that Python has only as methods of a socket, for a bare descriptor."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from contextlib import suppress


def shut(fd: int, how: int) -> None:
    """shutdown(2). The family does not matter to it."""
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    with suppress(OSError):  # the peer reset it, or it was shut before
        end.shutdown(how)
    end.detach()


def socket_error(fd: int) -> int:
    """SO_ERROR, which this takes away."""
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        return end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        end.detach()


def at_end(fd: int) -> bool:
    """Whether the peer's stream has ended and nothing lies unread before its end."""
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        return end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except OSError:
        return False
    finally:
        end.detach()


def unacknowledged(fd: int) -> int:
    """Bytes in the kernel's send buffer that the peer has not acknowledged (SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
