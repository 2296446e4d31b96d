"""Keep large buffers between steps instead of returning them to the system."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_large_allocations() -> bool:
    """Ask glibc to reuse freed memory of any size; return whether it agreed.

    A step allocates and frees the table's gradient and the tile scores, tens of MB. By default glibc maps
    such blocks anew each time and the kernel zeroes every page: a quarter of a step at d = 256. Where there
    is no glibc nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))
