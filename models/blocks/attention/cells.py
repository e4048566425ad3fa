"""A grid seen coarsely: averages over cells, and the neighbours of every voxel, without a copy for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import pad

from petground.models.blocks.attention.pooling import bin_shares
from petground.models.blocks.attention.windows import Triple
from petground.models.blocks.contract import Grid

__all__ = ["Cells", "neighbours"]


@dataclass(frozen=True)
class Cells:
    """A grid in `shape` cells, cut as adaptive average pooling does (see `bin_shares`)."""

    grid: Grid
    shape: Triple

    @classmethod
    def of(cls, grid: Grid, wanted: Triple) -> Cells:
        """At most a cell a voxel."""
        z, y, x = (min(p, n) for p, n in zip(wanted, grid.shape_zyx, strict=True))
        return cls(grid, (z, y, x))

    def shares(self, like: Tensor) -> list[Tensor]:
        """What each voxel is of each cell's mean, along each axis: [cells, voxels], rows of sum one."""
        return [bin_shares(n, cells, like) for n, cells in zip(self.grid.shape_zyx, self.shape, strict=True)]

    def means(self, x: Tensor) -> Tensor:
        """[B, H, N, C] -> over each cell, [B, H, P, C]."""
        z, y, width = self.shares(x)
        dense = torch.unflatten(x, 2, self.grid.shape_zyx)
        dense = torch.einsum("bhzyxc,px->bhzypc", dense, width)
        dense = torch.einsum("bhzyxc,py->bhzpxc", dense, y)
        return torch.einsum("bhzyxc,pz->bhpyxc", dense, z).flatten(2, 4)

    def matrix(self, like: Tensor) -> Tensor:
        """The shares of all three axes together, [P, N]: only for maps that somebody asked for."""
        z, y, x = self.shares(like)
        return torch.einsum("az,by,cx->abczyx", z, y, x).flatten(0, 2).flatten(1)

    def own(self, device: torch.device) -> Tensor:
        """The cell whose centre is nearest to each voxel, [N]."""
        index = torch.zeros((), dtype=torch.long, device=device)
        for axis, (cells, voxels) in enumerate(zip(self.shape, self.grid.shape_zyx, strict=True)):
            place = (2 * torch.arange(voxels, device=device) + 1) * cells // (2 * voxels)
            shape = [1, 1, 1]
            shape[axis] = voxels
            index = index * cells + place.reshape(shape)
        return index.flatten()

    def centres_mm(self, like: Tensor) -> Tensor:
        """Of each cell, [P, 3] in mm."""
        axes = []
        for share, mm in zip(self.shares(like), self.grid.spacing_zyx_mm, strict=True):
            axes.append(share @ torch.arange(share.shape[1], device=like.device, dtype=like.dtype) * mm)
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def neighbours(x: Tensor, window: Triple) -> Iterator[Tensor]:
    """X [B, H, Z, Y, X, C] -> what lies at each place of an odd window around every voxel, zero (False) outside.

    Views of one padded array, in C order of the window.
    """
    rims = [w // 2 for w in window]
    wide = pad(x, (0, 0, rims[2], rims[2], rims[1], rims[1], rims[0], rims[0]))
    z, y, width = x.shape[2:5]
    for dz, dy, dx in product(*(range(w) for w in window)):
        yield wide[:, :, dz : dz + z, dy : dy + y, dx : dx + width]
