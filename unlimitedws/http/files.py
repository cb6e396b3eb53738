"""An open file as the body of a response."""

from __future__ import annotations

import os
import stat
from email.utils import formatdate
from pathlib import Path

READ_BYTES = 64 * 1024
"""Read at once: a call of the pool costs ~50 us, which this makes a small part of sending it."""


class File:
    """A regular file, open for reading. Raises OSError; IsADirectoryError for a folder, PermissionError for a device or a pipe.

    Its size is that of the moment it was opened, which Content-Length names."""

    __slots__ = ("_fd", "modified_ns", "size")

    def __init__(self, path: str | Path) -> None:
        # Not blocking: to open a pipe nobody writes to would wait for somebody.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(self._fd)
            if stat.S_ISDIR(about.st_mode):
                raise IsADirectoryError(str(path))
            if not stat.S_ISREG(about.st_mode):
                raise PermissionError(f"{path} is no regular file")
        except BaseException:
            self.close()
            raise
        self.size = about.st_size
        self.modified_ns = about.st_mtime_ns

    @property
    def real_path(self) -> str:
        """Where it lies, whatever links led to it: the kernel's word, so nobody can change a link in between."""
        return os.readlink(f"/proc/self/fd/{self._fd}")

    @property
    def etag(self) -> str:
        """Changes whenever the file does (RFC 9110, section 8.8.3)."""
        return f'"{self.modified_ns:x}-{self.size:x}"'

    @property
    def last_modified(self) -> str:
        return formatdate(self.modified_ns // 1_000_000_000, usegmt=True)

    def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start`."""
        return os.pread(self._fd, size, start)

    def close(self) -> None:
        """Closes it, once; twice does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()
