"""A grid in regions of one size, counted in C order; the last of an axis may reach over its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Regions", "Triple"]

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Regions:
    """Voxels (z, y, x) of the grid and of a region."""

    grid: Triple
    region: Triple

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Regions:
        """From `numbers()`."""
        a, b, c, d, e, f = numbers
        return cls((a, b, c), (d, e, f))

    def numbers(self) -> list[int]:
        """What an operator of PyTorch can take."""
        return [*self.grid, *self.region]

    @property
    def counts(self) -> Triple:
        """Regions along each axis."""
        z, y, x = [-(-n // r) for n, r in zip(self.grid, self.region, strict=True)]
        return z, y, x

    @property
    def count(self) -> int:
        return math.prod(self.counts)

    @property
    def each(self) -> int:
        """Places of a region."""
        return math.prod(self.region)

    def voxels(self, device: torch.device | None = None) -> Tensor:
        """[regions, each] the voxel at each place, -1 outside the grid."""
        axes = []
        for size, region, count in zip(self.grid, self.region, self.counts, strict=True):
            place = torch.arange(count * region, device=device).reshape(count, region)
            axes.append(torch.where(place < size, place, -1))
        z = axes[0][:, None, None, :, None, None]
        y = axes[1][None, :, None, None, :, None]
        x = axes[2][None, None, :, None, None, :]
        voxel = (z * self.grid[1] + y) * self.grid[2] + x
        return torch.where((z >= 0) & (y >= 0) & (x >= 0), voxel, -1).reshape(self.count, self.each)
