"""What operators over the voxels of a grid share: checks, and how gradients lie in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from petground.kernels._shared.errors import KernelInputError

__all__ = ["check_grid", "empty_heads", "three"]


def three(name: str, value: Sequence[int], least: int = 1) -> tuple[int, int, int]:
    """Raises KernelInputError unless value is three whole numbers (z, y, x) of at least `least`."""
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    if len(numbers) != 3 or any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in numbers):
        raise KernelInputError(f"{name} is {value!r}, expected three whole numbers (z, y, x) of at least {least}")
    return numbers[0], numbers[1], numbers[2]


def check_grid(operator: str, grid: tuple[int, int, int], q: Tensor, k: Tensor) -> None:
    """Raises KernelInputError unless queries and keys are the voxels of the grid."""
    count = math.prod(grid)
    if q.shape[2] != count or k.shape[2] != count:
        held = f"q has {q.shape[2]} queries and k {k.shape[2]} keys"
        raise KernelInputError(f"{operator}: grid is {grid}, {count} voxels, but {held}; expected as many of each")


def empty_heads(like: Tensor, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """[B, H, N, width], as [B, N, H, width] in memory: splitting and joining heads around it copies nothing."""
    batch, heads, rows, _ = like.shape
    return like.new_empty(batch, rows, heads, width, dtype=dtype).transpose(1, 2)
