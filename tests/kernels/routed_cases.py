"""Grids in regions and their lists that the tests of routed attention share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from petground.kernels.routed_attention import routed_attention
from tests.kernels.comparing import operands

__all__ = ["CASES", "made", "run", "table"]

# name: (grid, region, regions in a list, lists of each head?)
CASES = {
    "volume": ((3, 5, 4), (2, 3, 3), 3, False),
    "lists of heads": ((2, 3, 5), (2, 2, 3), 2, True),
    "line": ((1, 1, 43), (1, 1, 9), 2, False),
    "large regions": ((5, 4, 4), (3, 4, 4), 3, False),
    "one voxel": ((1, 1, 1), (4, 4, 4), 1, False),
}


def table(name: str, batch: int = 1) -> Tensor:
    """Lists with empty entries, and now and then a region twice or that nobody lists."""
    grid, region, top, by_head = CASES[name]
    count = math.prod(-(-n // r) for n, r in zip(grid, region, strict=True))
    shape = (batch, 2, count, top) if by_head else (batch, count, top)
    made = torch.randint(-1, count, shape, generator=torch.Generator().manual_seed(2))
    made[..., 0] = made[..., 0].clamp_min(0)
    return made


def run(name: str, **tensors: Any) -> Tensor:
    """The case on q, k, v and what else the operator takes."""
    grid, region, _, _ = CASES[name]
    lists = tensors.pop("table") if "table" in tensors else table(name, tensors["q"].shape[0])
    return routed_attention(table=lists, grid=grid, region=region, **tensors)


def made(name: str, dtype: torch.dtype, *, batch: int = 1, permuted: bool = False) -> tuple[dict[str, Tensor], Tensor]:
    """q, k, v, temperature of a case, and a mask; from two entries on the last has no real voxel."""
    count, heads = math.prod(CASES[name][0]), 2 if CASES[name][3] else 1
    q, k, v, mask = operands((batch, heads, count, count, 8, 5), dtype, permuted=permuted)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {"q": q, "k": k, "v": v, "temperature": torch.linspace(0.7, 1.3, heads, dtype=wide)}, mask
