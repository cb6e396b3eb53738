"""How many descriptors this process may still open."""

from __future__ import annotations

import os
import resource
from contextlib import suppress


def descriptors_left(*, held: int, spare: int) -> int:
    """The rest of RLIMIT_NOFILE, `spare` of it left alone.

    held: descriptors known to be in use, for kernels before 6.2, which do not tell. Never by listing /proc/self/fd: that costs
    the kernel almost a kilobyte for each."""
    in_use = held
    with suppress(OSError):
        in_use = os.stat("/proc/self/fd").st_size or held
    return max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - in_use - spare)
