"""Every error this package raises on purpose, in one tree.

    UnlimitedwsError
        ConfigError                a setting that cannot be used
            UnknownSetting
            BadValue
            BadCertificate         a file of the TLS settings that cannot be used
        AppError                   the app cannot be served
            AppNotFound
            AppImportFailed
            AppInvalid
            StartFailed
            ExtraMissing           it needs a library that is not installed
        TokenInvalid               a token that lets nobody in
        ListenError                the address cannot be listened on
            SocketFileError        ... a Unix socket
            ActivationError        ... what systemd should have passed
        OutOfResources             the machine, or a limit of it, has no more of what is needed
        TooFewFiles                the limit of open files is too low for so many workers
        UpgradeError               this program cannot take a server over from the one before it
        OutputFailed               what a command shows cannot be written
        BenchError                 a load cannot be applied to that server, from this machine
        EngineUnavailable          the engine asked for is not there
        PlatformUnsupported        not Linux, or Python too old
        ProcMissing                /proc is not mounted

`exit_code` is what the command line ends with when the error reaches it. Each error
writes its own sentence, which says what to do next where that is known.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import ClassVar


class UnlimitedwsError(Exception):
    """The root: catch this to catch all of them."""

    exit_code = 1


class ConfigError(UnlimitedwsError):
    """A setting that cannot be used."""

    exit_code = 2


class UnknownSetting(ConfigError):
    """A key that no setting has. accepted: those there are.  see: the command that lists them."""

    def __init__(self, key: str, source: str, accepted: Iterable[str], see: str = "unlimitedws serve --help") -> None:
        import difflib  # here: not for every server's memory

        self.key, self.source, self.accepted = key, source, sorted(accepted)
        near = difflib.get_close_matches(key, self.accepted, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        super().__init__(f"{source}: unknown setting {key}{meant}; all of them: {see}")


class BadValue(ConfigError):
    """A value that its setting does not accept."""

    def __init__(self, key: str, value: object, source: str, accepted: str, why: str = "") -> None:
        self.key, self.value, self.source, self.accepted, self.why = key, value, source, accepted, why
        super().__init__(f"{source}: {key} cannot be {value!r}" + (f": {why}" if why else f"; accepted: {accepted}"))


class BadCertificate(ConfigError):
    """A file of the TLS settings that cannot be used."""

    def __init__(self, file: str, why: str) -> None:
        self.file, self.why = file, why
        super().__init__(f"TLS cannot use {file}: {why}")


class AppError(UnlimitedwsError):
    """The app cannot be served; ends with exit code 3, so that a process manager can tell."""

    exit_code = 3


class AppNotFound(AppError):
    """The `module:attribute` given does not lead to an app."""

    def __init__(self, spec: str, why: str) -> None:
        self.spec, self.why = spec, why
        super().__init__(f"no app at {spec!r}: {why}")


class AppImportFailed(AppError):
    """The app's module raised while it was imported."""

    def __init__(self, spec: str, report: str) -> None:
        self.spec, self.report = spec, report
        super().__init__(f"importing the app {spec!r} failed:\n{report.rstrip()}")


class AppInvalid(AppError):
    """What was given as the app is neither Handlers nor a mapping of paths to Handlers."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the app cannot be served: {why}")


class StartFailed(AppError):
    """`on_start` raised before the worker ever accepted."""

    def __init__(self, report: str) -> None:
        self.report = report
        super().__init__(f"on_start failed, so the worker cannot accept:\n{report.rstrip()}")


class ExtraMissing(AppError):
    """The app uses a part of this package that needs a library which is not installed."""

    def __init__(self, part: str, library: str, extra: str) -> None:
        self.part, self.library, self.extra = part, library, extra
        super().__init__(f"{part} needs {library}, which is not installed: pip install 'unlimitedws[{extra}]'")


class TokenInvalid(UnlimitedwsError):
    """A token that lets nobody in; raised by `checks.JWT.verify`. It never shows the token."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the token {why}")


class ListenError(UnlimitedwsError):
    """The address cannot be listened on."""

    NEXT: ClassVar[dict[int, str]] = {
        errno.EADDRINUSE: "another program (or another server of yours) listens there; stop it or choose another --port",
        errno.EACCES: "this user may not; choose a port above 1023, or grant CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "no interface of this machine has that address; check --host",
    }
    UNKNOWN: ClassVar[str] = "--host is an address or a name that is known here, alone: without http://, a port or brackets"

    def __init__(self, host: str, port: int, error: OSError, *, flags: str = "--") -> None:
        """flags: what the names of the flags for this address begin with; `--admin-` for the stats endpoint."""
        self.host, self.port, self.errno, self.error = host, port, error.errno, error
        from socket import gaierror  # not at the top: on a platform that is told what is missing, this may be, too

        is_unknown = isinstance(error, gaierror)  # whose numbers are others
        why = error.strerror or str(error)
        next_step = self.UNKNOWN if is_unknown else self.NEXT.get(error.errno or 0, "")
        next_step = next_step.replace("--", flags)
        super().__init__(f"cannot listen on {host} port {port}: {why}" + (f" ({next_step})" if next_step else ""))


class SocketFileError(ListenError):
    """A Unix socket that cannot be listened on."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        UnlimitedwsError.__init__(self, f"cannot listen on unix:{path}: {why}")


class ActivationError(ListenError):
    """systemd passed no socket, or one that is of no use."""

    def __init__(self, why: str) -> None:
        self.why = why
        UnlimitedwsError.__init__(self, f"cannot listen on what systemd passed: {why}")


class OutOfResources(UnlimitedwsError):
    """The machine, or a limit of it, has no more of what is needed: open files, processes, memory, space on a disk."""

    NEXT: ClassVar[dict[int, str]] = {
        errno.EMFILE: "raise the limit of open files: ulimit -n, LimitNOFILE= of a systemd unit, docker run --ulimit nofile=N",
        errno.ENFILE: "the whole machine has no more: raise the sysctl fs.file-max",
        errno.EAGAIN: "there may be no more processes: raise ulimit -u, TasksMax= of a systemd unit, docker run --pids-limit",
        errno.ENOMEM: "free some memory, or raise the limit: ulimit -v, MemoryMax= of a systemd unit, docker run --memory",
        errno.ENOSPC: "free some space on that disk",
        errno.EDQUOT: "free some space, or raise this user's quota",
    }

    def __init__(self, error: OSError) -> None:
        self.errno = error.errno or 0
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        super().__init__(f"{what} ({self.NEXT[self.errno]})")

    @classmethod
    def of(cls, error: BaseException) -> OutOfResources | None:
        """What an error says of resources, if anything."""
        if isinstance(error, MemoryError):
            error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return cls(error) if isinstance(error, OSError) and error.errno in cls.NEXT else None


class TooFewFiles(UnlimitedwsError):
    """The limit of open files is too low for so many workers."""

    def __init__(self, limit: int, needed: int, workers: int) -> None:
        self.limit, self.needed, self.workers = limit, needed, workers
        who, fewer = ("1 worker", "") if workers == 1 else (f"{workers} workers", "; or run fewer --workers")
        next_step = OutOfResources.NEXT[errno.EMFILE] + fewer
        super().__init__(f"{who} and their supervisor need {needed:,} open files each, and the limit is {limit:,}: {next_step}")


class UpgradeError(UnlimitedwsError):
    """This program cannot take a server over from the one before it."""


class OutputFailed(UnlimitedwsError):
    """What a command shows cannot be written to stdout."""

    exit_code = 74  # EX_IOERR of <sysexits.h>: 1 and 2 mean something else already, of `doctor` above all

    def __init__(self, error: OSError) -> None:
        self.errno = error.errno
        why = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        super().__init__(f"cannot write to stdout: {why}")


class BenchError(UnlimitedwsError):
    """A load cannot be applied; the text says why, and what to do."""


class EngineUnavailable(UnlimitedwsError):
    """The engine asked for is not built on this machine."""

    def __init__(self, engine: str, why: str) -> None:
        self.engine, self.why = engine, why
        super().__init__(
            f"the {engine} engine is not available: {why}; to build it, install a C compiler and the Python "
            f"headers (gcc, python3-dev) and reinstall: pip install --force-reinstall --no-cache-dir unlimitedws"
        )


class PlatformUnsupported(UnlimitedwsError):
    """This is not Linux, or its Python is too old."""

    def __init__(self, found: str) -> None:
        super().__init__(f"unlimitedws needs Linux and Python 3.11 or newer; this is {found}")


class ProcMissing(UnlimitedwsError):
    """/proc is not mounted, and a server has to know what it has open."""

    def __init__(self) -> None:
        super().__init__("/proc is not mounted here, and a server needs it: mount -t proc proc /proc")
