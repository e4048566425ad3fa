"""How much goes on around a voxel: the entropy of the grey levels of its neighbourhood."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from petground.kernels._shared.precision import unrounded
from petground.models.blocks.contract import Grid

__all__ = ["neighbourhood_entropy"]


@unrounded
def neighbourhood_entropy(tokens: Tensor, mask: Tensor | None, grid: Grid | None, bins: int = 16) -> Tensor:
    """Entropy -sum p log p of the grey levels among the 3 x 3 x 3 voxels around each, tokens [B, N, C] -> [B, N].

    A token's grey level is the length of its vector, binned between the exam's least and greatest. Voxels outside the
    grid and padding do not count. Equal neighbours, or no grid: zero.
    """
    level = tokens.norm(dim=-1)
    if grid is None:
        return torch.zeros_like(level)
    real = torch.ones_like(level, dtype=torch.bool) if mask is None else mask
    low = level.masked_fill(~real, torch.inf).amin(dim=1, keepdim=True)
    high = level.masked_fill(~real, -torch.inf).amax(dim=1, keepdim=True)
    span = high - low
    place = torch.where(span > 0, (level - low) / torch.where(span > 0, span, 1.0), 0.0)
    binned = (place.masked_fill(~real, 0.0) * bins).long().clamp(0, bins - 1)
    counts = one_hot(binned, bins).to(tokens.dtype).masked_fill(~real[..., None], 0.0)
    dense = grid.dense(counts)
    for axis in (-3, -2, -1):
        dense = _three(dense, axis)
    counts = grid.flat(dense)
    share = counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(dim=-1).masked_fill(~real, 0.0)


def _three(x: Tensor, axis: int) -> Tensor:
    """Each place's sum with its two neighbours along an axis; nothing wraps."""
    around = [0, 0] * (-axis)
    around[2 * (-axis - 1) :] = [1, 1]
    wide, n = pad(x, around), x.shape[axis]
    return wide.narrow(axis, 0, n) + wide.narrow(axis, 1, n) + wide.narrow(axis, 2, n)
