"""Where the control socket of a server is: `unlimitedws ctl` finds it by the rule by which the server makes it.

    control_socket = "PATH"    there
    control_socket = "auto"    unlimitedws-PORT.sock (without a TCP port unlimitedws.sock) in the first of these folders:
                               $RUNTIME_DIRECTORY   of a systemd unit that has RuntimeDirectory=
                               $XDG_RUNTIME_DIR     of a user who has logged in
                               /run                 for root
                               /tmp/unlimitedws-UID for everybody else

Who looks for a server looks into all of these, and into each folder of /run, where units of systemd have theirs. What a unit runs
itself (ExecReload=) looks into the unit's own folder alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from glob import escape, glob
from pathlib import Path

AUTO = "auto"
RUN = Path("/run")
TMP = Path("/tmp")  # not $TMPDIR: both sides have to come to the same folder


def place_of(control_socket: str, port: int | None, environ: Mapping[str, str], uid: int) -> Path:
    """Where a server listens whose first TCP port is this one. Makes the folder below /tmp; raises OSError where it cannot be used."""
    if control_socket != AUTO:
        return Path(control_socket)
    return folder_of(environ, uid) / (f"unlimitedws-{port}.sock" if port else "unlimitedws.sock")


def folder_of(environ: Mapping[str, str], uid: int) -> Path:
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        if folder := first_of(environ, variable):
            return folder
    if uid == 0:
        return RUN
    folder = own_folder(uid)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_own(folder, uid):
        raise PermissionError(f"{folder} is there, but it is not this user's alone; remove it")
    return folder


def first_of(environ: Mapping[str, str], variable: str) -> Path | None:
    """A unit may have several runtime directories, with colons between."""
    text = environ.get(variable, "").partition(":")[0]
    return Path(text) if text else None


def own_folder(uid: int) -> Path:
    return TMP / f"unlimitedws-{uid}"


def is_own(folder: Path, uid: int) -> bool:
    """Whether nobody else can put anything there: in /tmp, others can make a folder of any name first."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o022


def candidates(environ: Mapping[str, str], uid: int) -> list[Path]:
    """Files that may be the control socket of a server, each once."""
    return list(dict.fromkeys(file for folder in folders(environ, uid) for file in sockets_in(folder)))


def folders(environ: Mapping[str, str], uid: int) -> Iterator[str]:
    """Patterns of `glob`."""
    if folder := first_of(environ, "RUNTIME_DIRECTORY"):
        yield escape(str(folder))
        return
    if folder := first_of(environ, "XDG_RUNTIME_DIR"):
        yield escape(str(folder))
    yield str(RUN)
    yield str(RUN / "*")
    yield str(RUN / "user" / str(uid))
    if is_own(own_folder(uid), uid):
        yield str(own_folder(uid))


def sockets_in(folder: str) -> list[Path]:
    return [Path(name) for name in sorted(glob(f"{folder}/unlimitedws.sock") + glob(f"{folder}/unlimitedws-*.sock")) if is_socket(name)]


def is_socket(name: str | Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(name).st_mode)
    except OSError:
        return False
