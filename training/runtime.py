"""What a training or inference process sets once at its start: allocator, threads, number format."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

__all__ = ["native_bf16", "reuse_memory", "use_threads"]

# glibc's mallopt parameters (malloc.h)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def reuse_memory() -> bool:
    """Makes glibc keep freed memory instead of giving it back, which spares 3D training on a CPU its page faults.

    Every step frees and asks again for the same hundreds of megabytes; with glibc's defaults each page is faulted in
    anew. Process-wide, so only for a program's start. False (and nothing changed) without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    set_all = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_TOP_PAD, 256 << 20)]
    return all(set_all)


def use_threads() -> int:
    """One PyTorch thread per core this process may use, unless OMP_NUM_THREADS says otherwise; the number."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(cores)
    return torch.get_num_threads()


def native_bf16(device: torch.device | str = "cpu") -> bool:
    """True when the device multiplies bfloat16 in hardware (AVX-512 BF16, AMX, Ampere and later)."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported()) if supported is not None else False
    return False
