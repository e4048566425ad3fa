"""What agent attention's kernels take, and their block sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._triton.attention_plans import Plan
from petground.kernels._triton.runtime import architecture, why_not

__all__ = ["cannot_serve", "plan"]

_WIDEST = {torch.bfloat16: 128, torch.float16: 128, torch.float32: 64}  # channels of a head


# {kernel: {(16-bit?, channels up to): plan}}; a fixed table: every entry is compiled ahead and compared
_TABLE = {
    "forward": {(True, 64): Plan(64, 64, 8, 2), (True, 128): Plan(64, 64, 8, 2), (False, 64): Plan(16, 32, 4, 1)},
    "queries": {(True, 64): Plan(64, 64, 8, 2), (True, 128): Plan(64, 32, 8, 2), (False, 64): Plan(16, 16, 4, 1)},
    "keys": {(True, 64): Plan(32, 64, 8, 2), (True, 128): Plan(32, 64, 8, 2), (False, 64): Plan(16, 16, 4, 1)},
    "bias": {(True, 64): Plan(64, 64, 8, 1), (True, 128): Plan(64, 64, 8, 1), (False, 64): Plan(16, 32, 8, 1)},
}
# Before Hopper matrix instructions take their operands from registers: smaller blocks where they would spill.
_AMPERE = {
    "forward": {(True, 64): Plan(64, 32, 8, 2)},
    "queries": {(True, 64): Plan(64, 32, 8, 2), (False, 64): Plan(16, 16, 8, 1)},
    "keys": {(True, 64): Plan(16, 32, 4, 1), (True, 128): Plan(32, 32, 8, 2)},
    "bias": {(True, 64): Plan(32, 32, 8, 1), (True, 128): Plan(32, 16, 8, 1)},
}
# Blackwell's compiler spills a little with the larger ones
_BLACKWELL = {
    "forward": {(True, 64): Plan(64, 32, 8, 2), (True, 128): Plan(64, 32, 8, 2)},
    "queries": {(False, 64): Plan(16, 16, 8, 1)},
    "keys": {(True, 128): Plan(16, 32, 8, 1)},
}


def plan(kernel: str, q: Tensor, v: Tensor) -> Plan:
    """For "forward", "queries", "keys" or "bias", on the GPU that holds q."""
    width = max(q.shape[3], v.shape[3])
    half = q.element_size() == 2
    arch = architecture(q.device)
    own = _AMPERE if arch < 90 else _BLACKWELL if arch >= 100 else {}
    table = _TABLE[kernel] | own.get(kernel, {})
    return next(found for (two, most), found in table.items() if two == half and width <= most)


def cannot_serve(q: Tensor, v: Tensor, device: torch.device) -> str | None:
    """Why the kernels cannot take these tensors, or None."""
    if q.dtype not in _WIDEST:
        return f"does not take {q.dtype}"
    width = max(q.shape[-1], v.shape[-1])
    if width > _WIDEST[q.dtype]:
        return f"takes up to {_WIDEST[q.dtype]} channels per head of {q.dtype}, these have {width}"
    return why_not(device)
