"""Unix sockets: a file that clients connect to, with an owner and a mode that say who may."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat

from unlimitedws.config import Config
from unlimitedws.errors import SocketFileError
from unlimitedws.listener import Listener, set_options
from unlimitedws.place import UNIX_PREFIX, Unix

KEEP = -1
"""What chown(2) takes for: leave it."""

Identity = tuple[int, int]


class UnixListener(Listener):
    """A listener whose file is removed when it is closed, unless another server has replaced it meanwhile."""

    is_tcp = False

    def __init__(self, sock: socket.socket, path: str, *, proxied: bool = False, tls: bool = False) -> None:
        super().__init__(sock, proxied=proxied, tls=tls)
        self.path = os.path.abspath(path)  # the app may change the working directory
        self.file = identity(path)

    def __str__(self) -> str:
        return UNIX_PREFIX + self.path

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            if identity(self.path) == self.file:
                os.unlink(self.path)


def listen_unix(place: Unix, config: Config, kept: socket.socket | None = None) -> UnixListener:
    """Listens on a Unix socket; mode and owner are right before anybody can connect. Raises SocketFileError.

    A file that an earlier server left behind is replaced; a server that still answers there is an error.
    kept: a socket that listens there already, and is taken over."""
    owner, group = owner_of(place)
    sock = kept or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    is_new = False
    try:
        set_options(sock, config)
        if kept is None:
            bind(sock, place.path)
            is_new = True
        # Until listen() every attempt to connect is refused.
        os.chown(place.path, owner, group)
        os.chmod(place.path, place.mode)
        sock.listen(config.backlog)
    except OSError as error:
        sock.close()
        if is_new:
            with contextlib.suppress(OSError):
                os.unlink(place.path)
        raise SocketFileError(place.path, reason(place, error)) from None
    except SocketFileError:
        sock.close()
        raise
    return UnixListener(sock, place.path, proxied=place.proxied, tls=bool(place.tls))


def bind(sock: socket.socket, path: str) -> None:
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        remove_stale(path)
        sock.bind(path)


def probe(place: Unix) -> None:
    """Raises SocketFileError where one cannot listen. Changes nothing."""
    owner_of(place)
    folder = os.path.dirname(os.path.abspath(place.path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SocketFileError(place.path, reason(place, OSError(errno.EACCES if os.path.exists(folder) else errno.ENOENT, "")))
    if os.path.lexists(place.path):
        check_stale(place.path)


def remove_stale(path: str) -> None:
    """Removes the file of a server that is gone. Raises SocketFileError where it is something else."""
    check_stale(path)
    os.unlink(path)


def check_stale(path: str) -> None:
    """Raises SocketFileError unless this is the file of a server that is gone."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise SocketFileError(path, "there is a file of that name, which is no socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        # EAGAIN: its backlog is full, so somebody listens.
        if (answer := caller.connect_ex(path)) != errno.ECONNREFUSED:
            why = "another server answers there" if answer in (0, errno.EAGAIN) else os.strerror(answer)
            raise SocketFileError(path, f"{why}; stop it or choose another path")


def owner_of(place: Unix) -> tuple[int, int]:
    """User and group ids of `user` or `user:group`. Raises SocketFileError for a name that nobody has."""
    user, _, group = place.owner.partition(":")
    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid if user else KEEP
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid if group else KEEP
    except KeyError as error:
        raise SocketFileError(place.path, f"owner={place.owner}: {error.args[0]}") from None
    return uid, gid


def reason(place: Unix, error: OSError) -> str:
    next_step = {
        errno.ENOENT: "its folder does not exist; create it",
        errno.EPERM: f"this user may not give it to owner={place.owner}" if place.owner else "this user may not",
        errno.EACCES: "this user may not create files in its folder",
    }.get(error.errno or 0)
    why = os.strerror(error.errno or 0)
    return f"{why} ({next_step})" if next_step else why


def identity(path: str) -> Identity:
    found = os.stat(path)
    return found.st_dev, found.st_ino
