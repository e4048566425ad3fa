"""Cutting a 3D grid into windows and putting it together again: plain, shifted, strided, and with a halo of keys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from petground.kernels._shared.grids import three as triple

__all__ = ["Cut", "Triple", "cut", "dense_map", "join", "regions", "split", "split_halo", "triple"]

Triple = tuple[int, int, int]

# [B, H, (R, G, I) of z, of y, of x, C] -> [B, R and I of each axis, H, G of each axis, C]; R regions, I strides
_ORDER = (0, 2, 4, 5, 7, 8, 10, 1, 3, 6, 9, 11)
_BACK = tuple(_ORDER.index(place) for place in range(len(_ORDER)))


@dataclass(frozen=True)
class Cut:
    """One way to cut a grid, all in voxels (z, y, x).

    The windows hold `window` voxels, `interval` apart; `shift` of them came over from the far side; the keys reach
    `halo` voxels further than the queries on every side.
    """

    grid: Triple
    window: Triple
    shift: Triple = (0, 0, 0)
    interval: Triple = (1, 1, 1)
    halo: Triple = (0, 0, 0)

    @property
    def padded(self) -> Triple:
        """The grid, filled up to whole windows at the far end."""
        spans = [w * i for w, i in zip(self.window, self.interval, strict=True)]
        z, y, x = (-(-n // span) * span for n, span in zip(self.grid, spans, strict=True))
        return z, y, x

    @property
    def count(self) -> int:
        """Windows."""
        return math.prod(self.padded) // math.prod(self.window)

    @property
    def reach(self) -> Triple:
        """The farthest that a query sees along each axis, in steps of `interval`."""
        z, y, x = (w - 1 + h for w, h in zip(self.window, self.halo, strict=True))
        return z, y, x

    @property
    def filled(self) -> bool:
        """True when windows or halos hold places outside the grid."""
        return self.padded != self.grid or any(self.halo)


def cut(
    grid: Triple,
    window: Triple,
    *,
    shifted: bool = False,
    interval: Triple = (1, 1, 1),
    halo: Triple = (0, 0, 0),
) -> Cut:
    """A cut that fits the grid.

    No window, stride or halo is longer than the axis needs, and an axis of a single window is not shifted.
    """
    size = [min(w, n) for w, n in zip(window, grid, strict=True)]
    strides = [min(i, -(-n // w)) for i, n, w in zip(interval, grid, size, strict=True)]
    moved = [w // 2 if shifted and n > w else 0 for n, w in zip(grid, size, strict=True)]
    rims = [min(h, (-(-n // w) - 1) * w) for h, n, w in zip(halo, grid, size, strict=True)]
    return Cut(
        grid,
        (size[0], size[1], size[2]),
        (moved[0], moved[1], moved[2]),
        (strides[0], strides[1], strides[2]),
        (rims[0], rims[1], rims[2]),
    )


def split(x: Tensor, cut: Cut) -> Tensor:
    """[B, H, N, C] -> windows [B * W, H, K, C]; places outside the grid are zero (False)."""
    dense = torch.unflatten(x, 2, cut.grid)
    ends = [p - n for p, n in zip(cut.padded, cut.grid, strict=True)]
    if any(ends):
        dense = pad(dense, (0, 0, 0, ends[2], 0, ends[1], 0, ends[0]))
    if any(cut.shift):
        dense = dense.roll([-s for s in cut.shift], (2, 3, 4))
    parts = dense.reshape(*dense.shape[:2], *_axes(cut), dense.shape[-1]).permute(_ORDER)
    return parts.reshape(x.shape[0] * cut.count, x.shape[1], math.prod(cut.window), x.shape[-1])


def join(windows: Tensor, cut: Cut) -> Tensor:
    """Windows [B * W, H, K, C] -> [B, H, N, C]: the way back of `split`."""
    batch = windows.shape[0] // cut.count
    axes = _axes(cut)
    outer = [axes[at] for at in (0, 2, 3, 5, 6, 8)]
    parts = windows.reshape(batch, *outer, windows.shape[1], *cut.window, windows.shape[-1]).permute(_BACK)
    dense = parts.reshape(batch, windows.shape[1], *cut.padded, windows.shape[-1])
    if any(cut.shift):
        dense = dense.roll(list(cut.shift), (2, 3, 4))
    z, y, x = cut.grid
    return dense[:, :, :z, :y, :x].flatten(2, 4)


def split_halo(x: Tensor, cut: Cut) -> Tensor:
    """[B, H, N, C] -> each window with its halo, [B * W, H, K', C]; places outside the grid are zero (False)."""
    if not any(cut.halo):
        return split(x, cut)
    ends = [h + p - n for h, p, n in zip(cut.halo, cut.padded, cut.grid, strict=True)]
    sides = (0, 0, cut.halo[2], ends[2], cut.halo[1], ends[1], cut.halo[0], ends[0])
    dense = pad(torch.unflatten(x, 2, cut.grid), sides)
    for axis, (window, rim) in enumerate(zip(cut.window, cut.halo, strict=True)):
        dense = dense.unfold(2 + axis, window + 2 * rim, window)
    parts = dense.permute(0, 2, 3, 4, 1, 6, 7, 8, 5)
    return parts.reshape(x.shape[0] * cut.count, x.shape[1], -1, x.shape[-1])


def regions(cut: Cut, device: torch.device) -> Tensor | None:
    """Which side of the grid each voxel came from, [W, K]: voxels of one window but two numbers are no neighbours.

    None where nothing is shifted. Numbers as in Swin's attention mask (arXiv 2103.14030, section 3.2).
    """
    if not any(cut.shift):
        return None
    over = [torch.arange(n, device=device) < s for n, s in zip(cut.grid, cut.shift, strict=True)]
    code = 4 * over[0][:, None, None].long() + 2 * over[1][:, None].long() + over[2].long()
    return split(code.reshape(1, 1, -1, 1), cut)[:, 0, :, 0]


def dense_map(weights: Tensor, cut: Cut) -> Tensor:
    """Weights within windows [B * W, H, Q, K] -> the whole map [B, H, N, N], zero where nobody looks."""
    total = math.prod(cut.grid)
    names = torch.arange(1, total + 1, device=weights.device).reshape(1, 1, -1, 1)  # 0: outside the grid
    rows, columns = split(names, cut)[:, 0, :, 0], split_halo(names, cut)[:, 0, :, 0]
    whole = weights.new_zeros(weights.shape[0] // cut.count, weights.shape[1], total + 1, total + 1)
    whole[:, :, rows[:, :, None], columns[:, None, :]] = torch.unflatten(weights, 0, (-1, cut.count)).movedim(1, 2)
    return whole[:, :, 1:, 1:]


def _axes(cut: Cut) -> list[int]:
    """(regions, window, interval) of z, y and x."""
    sizes = []
    for padded, window, interval in zip(cut.padded, cut.window, cut.interval, strict=True):
        sizes += [padded // (window * interval), window, interval]
    return sizes
