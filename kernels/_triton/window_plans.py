"""Block sizes, warps and stages of the kernels over windows and neighbourhoods; every entry is compiled ahead."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._triton import attention_plans
from petground.kernels._triton.attention_plans import Plan

__all__ = ["PAIRS", "cannot_serve", "routed_plan", "window_plan"]

PAIRS = 1 << 24  # of a query and a key, which the bias's gradient is summed over: 64 MiB of float32
# Channels per head; for wider ones registers do not suffice, and another backend serves.
WIDEST = {torch.bfloat16: 128, torch.float16: 128, torch.float32: 64}


def cannot_serve(q: Tensor, v: Tensor, device: torch.device) -> str | None:
    """Why the kernels cannot take these tensors, or None."""
    width = max(q.shape[-1], v.shape[-1])
    if q.dtype in WIDEST and width > WIDEST[q.dtype]:
        return f"takes up to {WIDEST[q.dtype]} channels per head of {q.dtype}, these have {width}"
    return attention_plans.cannot_serve(q, v, device)


# {kernel: {(16-bit?, channels up to): plan}}; 64 rows or keys are what Hopper's matrix instructions work on
_PLAIN = {
    "forward": {
        (True, 64): Plan(64, 64, 4, 2), (True, 128): Plan(64, 64, 8, 2), (False, 64): Plan(16, 16, 8, 1),
    },
    "queries": {
        (True, 64): Plan(64, 64, 4, 2), (True, 128): Plan(64, 32, 8, 2), (False, 64): Plan(16, 16, 8, 1),
    },
    "keys": {
        (True, 64): Plan(32, 64, 4, 2), (True, 128): Plan(32, 64, 8, 1), (False, 64): Plan(16, 16, 4, 1),
    },
    "bias": {(False, 64): Plan(16, 16, 4, 1)},
}  # fmt: skip
# Where each pair is looked at (a bias, a rule of who sees whom) fewer go at a time: their places take registers.
_PAIRWISE = {
    "forward": {(True, 64): Plan(64, 32, 4, 2), (True, 128): Plan(64, 32, 8, 2)},
    "queries": {(True, 64): Plan(64, 32, 4, 2), (True, 128): Plan(64, 32, 8, 2)},
    "keys": {(True, 32): Plan(32, 64, 4, 2), (True, 64): Plan(32, 64, 8, 2), (True, 128): Plan(32, 32, 8, 1)},
    "bias": {(True, 128): Plan(64, 32, 8, 1)},
}  # fmt: skip
# Before Hopper matrix instructions take their operands from registers: for what is looked at pairwise and all backward.
_AMPERE = {
    "forward": {(True, 64): Plan(32, 32, 4, 1), (True, 128): Plan(32, 32, 8, 1)},
    "queries": {(True, 32): Plan(32, 32, 4, 1), (True, 64): Plan(32, 16, 4, 1), (True, 128): Plan(32, 32, 8, 2)},
    "keys": {(True, 64): Plan(32, 32, 8, 1), (True, 128): Plan(32, 32, 8, 2)},
    "bias": {(True, 64): Plan(32, 32, 8, 1), (True, 128): Plan(32, 16, 8, 1)},
}  # fmt: skip


def window_plan(
    kernel: str, itemsize: int, channels: int, arch: int, rows: int = 64, cols: int = 64, *, pairwise: bool = False
) -> Plan:
    """For "forward", "queries", "keys" or "bias" on an architecture (80, 90, ...); blocks fit few rows or cols."""
    tables = [_PLAIN[kernel]]
    if arch < 90 and (pairwise or kernel != "forward"):
        tables.insert(0, _AMPERE[kernel])
    elif pairwise:
        tables.insert(0, _PAIRWISE[kernel])
    every = [one for table in tables for one in table.items()]
    found = next(p for (half, width), p in every if half == (itemsize == 2) and channels <= width)
    return Plan(_fit(found.rows, rows), _fit(found.cols, cols), found.num_warps, found.num_stages)


def _fit(block: int, needed: int) -> int:
    return min(block, 32) if needed <= 32 else block


def routed_plan(kernel: str, itemsize: int, channels: int, arch: int, each: int) -> Plan:
    """For "forward", "queries" or "keys" over regions of `each` voxels."""
    found = window_plan(kernel, itemsize, channels, arch)
    # of lists many voxels follow each other: only the side that one program finishes can be short
    if kernel != "keys":
        return Plan(_fit(found.rows, each), found.cols, found.num_warps, found.num_stages)
    return Plan(_fit(found.rows, each), _fit(found.cols, each), found.num_warps, found.num_stages)
