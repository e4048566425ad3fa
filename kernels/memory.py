"""Keeping freed memory in the process, by an explicit call at the start of a program (Linux with glibc).

By default glibc gives every large tensor back to the system when it is freed, and the next one is mapped anew: each
page is then cleared and faulted in again. A step of training asks for the same hundreds of megabytes every time.
"""

from __future__ import annotations

import ctypes
import logging
import sys

__all__ = ["reuse_memory"]

_log = logging.getLogger("petground.kernels")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc, mallopt(3)


def reuse_memory(top_pad_mib: int = 256) -> bool:
    """Makes freed memory stay with the process. Call it once, before the first large tensor; True where it took hold.

    No memory is mapped one tensor at a time any more (M_MMAP_MAX 0), and what is freed at the top of the heap is not
    given back below 2 GiB (M_TRIM_THRESHOLD); the heap grows in steps of `top_pad_mib` MiB (M_TOP_PAD). The price: the
    process keeps its peak, and holes in the heap cannot be returned. Set for the whole process, also for libraries
    beside us, and never undone: this is why nothing calls it on import. Without glibc (macOS, musl) or with another
    allocator preloaded it does nothing and returns False.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        _log.info("reuse_memory: no glibc here, nothing changed")
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, top_pad_mib << 20))
    return all(mallopt(option, value) == 1 for option, value in settings)
