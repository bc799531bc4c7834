"""What a process does with memory that it no longer uses."""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> bool:
    """Have the process keep freed memory for its next use, from now on.

    glibc hands blocks of more than 32 MB back to the system as soon as they are freed, and the
    system clears every page of them when they are next asked for. On a CPU that is up to two fifths
    of the time of a picture of 1024x1024 working pixels; one of 256x256 has no such blocks.

    It holds for everything in the process, which stays as large as it once was. So it is for you
    to call, first thing, and not done by `Colorizer`; the command line does it.

    Returns:
        Whether it is done: it takes Linux with glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _ARENA_MAX: 1}  # no mapping, no trimming
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in settings.items())
