"""A process that runs a network: threads, number and memory format (allocator: kernels/memory.py), and its siblings."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn

__all__ = ["channels_last_on_cpu", "default_precision", "native_bf16", "of_all_processes", "seed_step", "use_threads"]


def use_threads() -> int:
    """One PyTorch thread per core this process may use, unless OMP_NUM_THREADS says otherwise; the number."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(cores)
    return torch.get_num_threads()


def channels_last_on_cpu(net: nn.Module) -> None:
    """Lays the weights of 3D convolutions channels last where they are on the CPU: their features then follow.

    oneDNN works in blocks of channels and otherwise brings every input and result from one order into the other.
    Depthwise convolutions gain nothing and stay as they are; on a GPU nothing changes.
    """
    for layer in net.modules():
        if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)) and layer.groups == 1 and layer.weight.is_cpu:
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)


def seed_step(*of: int) -> None:
    """What the step draws (dropout, sampled rows) depends on these numbers alone: a fit that goes on draws the same.

    of: epoch, batch, process. The run's seed counts, too.
    """
    run = int(os.environ.get("PL_GLOBAL_SEED", "0"))  # where Lightning's seed_everything leaves it
    torch.manual_seed(int(np.random.SeedSequence([run, *of]).generate_state(1)[0]))


def of_all_processes(names: list[str]) -> list[str]:
    """The names of every process, in order; all must ask."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return names
    found: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(found, names)
    return [name for one in found for name in one]


def default_precision(accelerator: object) -> str:
    """Lightning's name for what a training works in unless it is told: bfloat16 where its device has it natively.

    accelerator: Lightning's `--trainer.accelerator`.
    """
    kind = "cpu" if accelerator == "cpu" or not torch.cuda.is_available() else "cuda"
    return "bf16-mixed" if native_bf16(kind) else "32-true"


def native_bf16(device: torch.device | str = "cpu") -> bool:
    """True when the device multiplies bfloat16 in hardware (AVX-512 BF16, AMX, Ampere and later)."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported()) if supported is not None else False
    return False
