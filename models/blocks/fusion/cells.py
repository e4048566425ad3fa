"""Coarser looks at a grid and the way back: means over a grid of cells, and cells of stride^3 voxels, stacked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from petground.models.blocks.attention.pooling import bin_shares

__all__ = ["cell_grid", "coarser", "pooled", "spread", "stacked", "unstacked"]

Zyx = tuple[int, int, int]


def coarser(shape: torch.Size | Zyx, cells: int) -> Zyx:
    """The last three axes of a shape, each at most `cells` long."""
    z, y, x = shape[-3:]
    return min(z, cells), min(y, cells), min(x, cells)


def pooled(x: Tensor, grid: Zyx) -> Tensor:
    """[B, C, Z, Y, X] -> [B, C, *grid], each cell the mean of the voxels it covers, axis by axis (see `bin_shares`)."""
    for axis, k in zip((2, 3, 4), grid, strict=True):
        n = x.shape[axis]
        if n != k:
            x = (x.movedim(axis, -1) @ bin_shares(n, k, x).T).movedim(-1, axis)
    return x


def spread(y: Tensor, grid: Zyx) -> Tensor:
    """[B, C, *cells] -> [B, C, *grid], trilinear; the same tensor where the grids are the same."""
    return y if tuple(y.shape[2:]) == grid else interpolate(y, size=grid, mode="trilinear", align_corners=False)


def cell_grid(shape: torch.Size | Zyx, stride: int) -> Zyx:
    """How many cells of stride^3 voxels cover the last three axes of a shape; those at the ends may be cut."""
    z, y, x = shape[-3:]
    return -(-z // stride), -(-y // stride), -(-x // stride)


def stacked(x: Tensor, stride: int) -> Tensor:
    """[B, C, Z, Y, X] -> [B, cells, stride^3, C]: a cell's voxels side by side; zeros where a cell is cut.

    A bijection (3D space-to-depth): `unstacked` gives x back bit for bit. Entry s of every cell together is one
    dilated sampling of the grid.
    """
    grid = cell_grid(x.shape, stride)
    after = [cells * stride - n for cells, n in zip(grid, x.shape[2:], strict=True)]
    x = pad(x, (0, after[2], 0, after[1], 0, after[0])) if any(after) else x
    b, c = x.shape[:2]
    x = x.reshape(b, c, grid[0], stride, grid[1], stride, grid[2], stride)
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, grid[0] * grid[1] * grid[2], stride**3, c)


def unstacked(h: Tensor, stride: int, shape: Zyx) -> Tensor:
    """[B, cells, stride^3, C] -> [B, C, *shape], the inverse of `stacked`."""
    grid = cell_grid(shape, stride)
    b, c = h.shape[0], h.shape[-1]
    h = h.reshape(b, *grid, stride, stride, stride, c).permute(0, 7, 1, 4, 2, 5, 3, 6)
    h = h.reshape(b, c, grid[0] * stride, grid[1] * stride, grid[2] * stride)
    return h[:, :, : shape[0], : shape[1], : shape[2]]
