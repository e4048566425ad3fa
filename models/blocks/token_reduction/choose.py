"""From scores to the kept voxels: how many, and which, as masks [B, N]. Nothing here has a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from petground.kernels.topk import topk_mask
from petground.models.blocks.backend import TokenBackend
from petground.models.blocks.contract import Grid

__all__ = ["budget", "check_keep", "keep_hierarchy", "keep_planes", "most", "neighbours", "real_voxels"]


def check_keep(block: str, keep: float) -> float:
    """Raises ValueError unless the share of kept voxels is above 0 and at most 1."""
    if not (isinstance(keep, (int, float)) and 0 < keep <= 1):
        raise ValueError(f"{block}: keep={keep} is no share of the voxels; give a number above 0, at most 1")
    return float(keep)


def most(keep: float, count: int) -> int:
    """ceil(keep * count), at least one: what an exam without padding keeps. The small number undoes binary rounding."""
    return max(1, min(count, math.ceil(keep * count - 1e-9)))


def budget(keep: float, real: Tensor) -> Tensor:
    """ceil(keep * n) of each exam's n real voxels, at least one of them: real [B, N] bool -> [B] long."""
    n = real.sum(dim=1)
    return torch.minimum((n.double() * keep - 1e-9).ceil().long().clamp(min=1), n)


def real_voxels(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The mask [B, N], all true where there is none."""
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask


def keep_planes(
    scores: Tensor, real: Tensor, grid: Grid, keep: float, plane: str, backend: TokenBackend = "auto"
) -> Tensor:
    """Whole rows (along x) or whole axial slices, those of the greatest sums of scores (FoPru's row strategy)."""
    length = grid.shape_zyx[2] if plane == "row" else grid.shape_zyx[1] * grid.shape_zyx[2]
    sums = scores.masked_fill(~real, 0.0).reshape(len(real), -1, length)
    sums = sums.sum(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    there = real.reshape(len(real), -1, length).any(dim=-1)
    chosen = topk_mask(sums, budget(keep, there), there, backend=backend)
    return chosen.repeat_interleave(length, dim=1) & real


def neighbours(chosen: Tensor, grid: Grid) -> Tensor:
    """The voxels that share a face with a chosen one (or are one): [B, N] bool -> [B, N] bool. Nothing wraps."""
    dense = chosen.reshape(len(chosen), *grid.shape_zyx)
    around = dense.clone()
    for axis in (1, 2, 3):
        widths = [0, 0] * (3 - axis) + [1, 1] + [0, 0] * (axis - 1)
        wide, n = pad(dense, widths), dense.shape[axis]
        around |= wide.narrow(axis, 0, n) | wide.narrow(axis, 2, n)
    return around.flatten(1)


def keep_hierarchy(
    middle: Tensor,
    deep: Tensor,
    real: Tensor,
    grid: Grid,
    wanted: Tensor,
    alpha: float,
    backend: TokenBackend = "auto",
) -> Tensor:
    """Anchors by the middle layer, buffers around them, registers by the deep layer up to `wanted` [B] (HiPrune).

    An anchor and its six neighbours are seven voxels: round(wanted * alpha / 7) anchors, at most wanted // 7, so that
    there is room for every neighbour.
    """
    anchors = torch.minimum((wanted * (alpha / 7)).round().long(), wanted // 7)
    near = neighbours(topk_mask(middle, anchors, real, backend=backend), grid) & real
    return near | topk_mask(deep, wanted - near.sum(dim=1), real & ~near, backend=backend)
