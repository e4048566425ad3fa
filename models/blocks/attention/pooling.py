"""Means over bins of an axis and interpolation along it, as matrices: any type, any grid, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bin_shares", "grid_sum", "linear_resize"]


def bin_shares(size: int, count: int, like: Tensor) -> Tensor:
    """[count, size], rows of sum one: bin c means i in floor(c size / count) .. ceil((c + 1) size / count) - 1.

    The bins of adaptive pooling: of about equal size, overlapping where they must, never empty. As a product they have
    every type and device, and the same gradient bit for bit each time.
    """
    c = torch.arange(count, device=like.device)[:, None]
    i = torch.arange(size, device=like.device)
    low = torch.div(c * size, count, rounding_mode="floor")
    high = -torch.div(-(c + 1) * size, count, rounding_mode="floor")
    held = ((i >= low) & (i < high)).to(like.dtype)
    return held / held.sum(1, keepdim=True)


def grid_sum(x: Tensor, matrices: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """X [..., Z, Y, X, C] times a matrix [out, in] along each axis -> [..., z, y, x, C]."""
    of_z, of_y, of_x = matrices
    x = torch.einsum("...zyxc,az->...ayxc", x, of_z)
    x = torch.einsum("...ayxc,by->...abxc", x, of_y)
    return torch.einsum("...abxc,dx->...abdc", x, of_x)


def linear_resize(size: int, count: int, like: Tensor) -> Tensor:
    """[size, count]: linear interpolation of count samples at size places (voxel centres, the ends held)."""
    places = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) * (count / size) - 0.5
    samples = torch.arange(count, device=like.device, dtype=like.dtype)
    return (1.0 - (places.clamp(0, count - 1)[:, None] - samples).abs()).clamp(min=0)
