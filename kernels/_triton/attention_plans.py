"""Block sizes, warps and stages of the attention kernels: a fixed table, so that every entry can be compiled ahead.

No tuning at run time: it would choose among configurations that nobody compared with the reference, and Hopper has
miscompiled single ones. Every entry compiles for sm_80, sm_90 and sm_100 without stack (`petground.kernels.aot`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from petground.kernels._triton.runtime import architecture, why_not

__all__ = ["WIDEST", "Plan", "block_width", "cannot_serve", "plan", "resident_plan"]

# Channels per head; for wider ones registers do not suffice, and few voxels have so many: another backend serves.
WIDEST = {torch.bfloat16: 256, torch.float16: 256, torch.float32: 64}


def cannot_serve(q: Tensor, v: Tensor, device: torch.device) -> str | None:
    """Why the attention kernels cannot take these tensors, or None."""
    if q.dtype not in WIDEST:
        return f"does not take {q.dtype}"
    width = max(q.shape[-1], v.shape[-1])
    if width > WIDEST[q.dtype]:
        return f"takes up to {WIDEST[q.dtype]} channels per head of {q.dtype}, these have {width}"
    return why_not(device)


@dataclass(frozen=True)
class Plan:
    """ROWS queries by COLS keys at a time."""

    rows: int
    cols: int
    num_warps: int
    num_stages: int


def block_width(channels: int) -> int:
    """The power of two, at least 16, that holds so many channels: what tl.dot takes."""
    return max(16, 1 << (channels - 1).bit_length())


# {kernel: {(16-bit?, channels up to): plan}}
_TABLE = {
    "forward": {
        (True, 32): Plan(64, 32, 4, 3), (True, 64): Plan(128, 64, 8, 3), (True, 128): Plan(64, 64, 4, 3),
        (True, 256): Plan(64, 32, 8, 2), (False, 64): Plan(32, 32, 4, 2),
    },
    "queries": {
        (True, 32): Plan(64, 32, 8, 2), (True, 64): Plan(64, 32, 4, 2), (True, 128): Plan(32, 32, 8, 2),
        (True, 256): Plan(32, 32, 8, 1), (False, 64): Plan(16, 32, 4, 1),
    },
    "keys": {
        (True, 64): Plan(32, 64, 4, 2), (True, 128): Plan(32, 64, 8, 2),
        (True, 256): Plan(32, 32, 8, 2), (False, 32): Plan(16, 32, 8, 2), (False, 64): Plan(16, 16, 4, 1),
    },
}  # fmt: skip
# Smaller blocks or more warps: before Hopper, whose matrix instructions need no operands in registers, and for channels
# or queries that 16 does not divide, whose places take more registers.
_SMALL = {
    "forward": {(True, 16): Plan(64, 32, 4, 3), (True, 32): Plan(64, 32, 8, 3), (True, 256): Plan(32, 32, 8, 2)},
    "queries": {(True, 64): Plan(64, 32, 8, 2), (True, 256): Plan(16, 32, 8, 1)},
    "keys": {(True, 16): Plan(32, 64, 8, 2)},
}
# One pass with all keys in 16 bits: channels up to, keys up to, from which architecture on, plan, of which the first
# that fits counts; where there is none, two kernels do it.
_RESIDENT = (
    (16, 64, 80, Plan(64, 64, 4, 2)),
    (32, 64, 100, Plan(64, 64, 8, 2)),
    (32, 64, 90, Plan(64, 64, 4, 2)),
    (32, 64, 80, Plan(32, 64, 8, 2)),
    (32, 128, 90, Plan(64, 128, 8, 2)),
    (64, 64, 100, Plan(64, 64, 8, 1)),
    (64, 64, 90, Plan(64, 64, 8, 2)),
)


def plan(kernel: str, q: Tensor, channels: int) -> Plan:
    """For "forward", "queries" or "keys", with so many channels (the larger of D and E), on the GPU that holds q."""
    half = q.element_size() == 2
    small = architecture(q.device) < 90 or q.shape[2] % 16 or q.shape[3] % 16
    table = _TABLE[kernel] | (_SMALL.get(kernel, {}) if small else {})
    return next(found for (two, most), found in sorted(table.items()) if two == half and channels <= most)


def resident_plan(q: Tensor, channels: int, keys: int) -> Plan | None:
    """For the one-pass backward on the GPU that holds q, or None where it would not fit."""
    arch = architecture(q.device)
    for width, most, first, found in _RESIDENT:
        if q.element_size() == 2 and channels <= width and keys <= most and arch >= first:
            return found
    return None
