"""A training process: its threads and number format (the allocator: kernels/memory.py), and its siblings."""

from __future__ import annotations

import os

import torch

__all__ = ["native_bf16", "of_all_processes", "use_threads"]


def use_threads() -> int:
    """One PyTorch thread per core this process may use, unless OMP_NUM_THREADS says otherwise; the number."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(cores)
    return torch.get_num_threads()


def of_all_processes(names: list[str]) -> list[str]:
    """The names of every process, in order; all must ask."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return names
    found: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(found, names)
    return [name for one in found for name in one]


def native_bf16(device: torch.device | str = "cpu") -> bool:
    """True when the device multiplies bfloat16 in hardware (AVX-512 BF16, AMX, Ampere and later)."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported()) if supported is not None else False
    return False
