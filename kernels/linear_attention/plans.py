"""What linear attention's kernels take, and their block sizes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from petground.kernels._triton.runtime import why_not

__all__ = ["Plan", "cannot_serve", "plan", "tile_width"]


@dataclass(frozen=True)
class Plan:
    """Chunks of `tokens`; at most `block` channels at a time."""

    tokens: int
    block: int
    num_warps: int
    num_stages: int


# {(bfloat16 products, or float32 ones; from Hopper on): (states of chunks, answers of chunks)}; all are compiled ahead
_TABLE = {
    (True, True): (Plan(64, 64, 8, 1), Plan(64, 64, 8, 2)),
    (True, False): (Plan(64, 64, 8, 2), Plan(64, 64, 8, 1)),
    (False, True): (Plan(32, 32, 8, 2), Plan(32, 32, 4, 2)),
    (False, False): (Plan(32, 32, 4, 2), Plan(32, 32, 4, 2)),
}


def plan(half: bool, arch: int) -> tuple[Plan, Plan]:
    """For the states and for the answers, of the same chunks and blocks, on an architecture (80, 90, ...)."""
    states, answers = _TABLE[half, arch >= 90]
    if half and arch >= 100:
        answers = _TABLE[half, False][1]  # on Blackwell it spills as before Hopper
    return states, answers


def tile_width(channels: int, most: int) -> int:
    """Channels at a time: a power of two from 16 to `most`."""
    return min(most, max(16, 1 << (channels - 1).bit_length()))


def cannot_serve(q: Tensor, log_decay: Tensor | None, device: torch.device) -> str | None:
    """Why the kernels cannot take these tensors, or None."""
    if q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"does not take {q.dtype}"
    if log_decay is not None and log_decay.requires_grad and torch.is_grad_enabled():
        return "gives log_decay no gradient"
    return why_not(device)
