"""Whether Triton kernels can run here, and the one place where they are launched (or only recorded)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

__all__ = ["Launch", "architecture", "capture", "interpreting", "launch", "multiprocessors", "why_not"]

_H200_MULTIPROCESSORS = 132  # what a plan assumes where no GPU can be asked
_INSTALLED = find_spec("triton") is not None
_INTERPRETING = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")
_assumed = 90
_recorded: list[Launch] | None = None


@dataclass(frozen=True)
class Launch:
    """One kernel with one set of compile-time values: what a compiler ahead of time needs, and a test compares."""

    kernel: Any
    arguments: dict[str, Any]  # tensors as meta tensors
    num_warps: int
    num_stages: int


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter. TRITON_INTERPRET decides, when kernels are imported."""
    return _INTERPRETING


def why_not(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on tensors of this device, or None when they can."""
    if device.type == "meta":
        return None
    if not _INSTALLED:
        return "needs Triton, which is not installed (pip install 'petground[triton]')"
    if interpreting():
        return None
    if device.type != "cuda" or torch.version.cuda is None:
        return f"needs an NVIDIA GPU, the tensors are on {device.type} (TRITON_INTERPRET=1 interprets, for tests)"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "needs compute capability 8.0 or more (A100 and later)"
    return None


def multiprocessors(device: torch.device) -> int:
    """Of the GPU; where there is none, a number that plans may count on."""
    if device.type != "cuda":
        return 2 if interpreting() else _H200_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def architecture(device: torch.device) -> int:
    """80 for compute capability 8.0, and so on; without a GPU the one that `capture` was told."""
    if device.type != "cuda":
        return _assumed
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@contextmanager
def capture(arch: int = 90) -> Iterator[list[Launch]]:
    """Within it nothing runs: launches are recorded, as for that architecture. Give the launchers meta tensors."""
    global _recorded, _assumed
    before = _recorded, _assumed
    _recorded, _assumed = [], arch
    try:
        yield _recorded
    finally:
        _recorded, _assumed = before


def launch(kernel: Any, programs: int, arguments: dict[str, Any], *, num_warps: int, num_stages: int) -> None:
    """Runs `programs` programs of a kernel, all arguments by name, compile-time ones too."""
    if _recorded is not None:
        _recorded.append(Launch(kernel, arguments, num_warps, num_stages))
        return
    # fused multiply-add is the default up to 3.9 and no longer from 3.10: said, so that results stay
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    device = next(value.device for value in arguments.values() if isinstance(value, Tensor))
    if device.type == "cuda":
        with torch.cuda.device(device):
            kernel[(programs,)](**arguments, **options)
    else:
        kernel[(programs,)](**arguments, **options)
