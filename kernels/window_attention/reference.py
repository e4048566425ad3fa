"""The truth: attention over windows and neighbourhoods of a grid, every pair of voxels looked at, in any type."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import head_scale
from petground.kernels.window_attention.pattern import SLIDE, WINDOW, Axis, Pattern

__all__ = ["pairs", "window_attention_reference"]


def pairs(pattern: Pattern, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Whether query i sees key j, [N, N] bool, and the entry of the flat bias that the pair takes, [N, N] int64."""
    seen = torch.ones((1,) * 6, dtype=torch.bool, device=device)
    entry = torch.zeros((1,) * 6, dtype=torch.long, device=device)
    for place, (axis, reach) in enumerate(zip(pattern.axes, pattern.reach, strict=True)):
        sees, offset = _axis_pairs(axis, pattern.kind, device)
        shape = [1] * 6
        shape[place] = shape[3 + place] = axis.size
        seen = seen & sees.reshape(shape)
        entry = entry * (2 * reach + 1) + (offset.clamp(-reach, reach) + reach).reshape(shape)
    grid = pattern.grid
    count = grid[0] * grid[1] * grid[2]
    return seen.expand(*grid, *grid).reshape(count, count), entry.expand(*grid, *grid).reshape(count, count)


def _axis_pairs(axis: Axis, kind: int, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """Along one axis: who sees whom [n, n], and the query's step less the key's."""
    place = torch.arange(axis.size, device=device) + axis.origin
    phase, step = place % axis.step, place // axis.step
    if kind == WINDOW:
        first = step // axis.window * axis.window - axis.back
    else:
        first = step - axis.back
        if kind == SLIDE:
            length = torch.bincount(phase, minlength=axis.step)[phase]
            first = torch.minimum(first, length - axis.span).clamp_min(0)
    inside = (step >= first[:, None]) & (step < first[:, None] + axis.span)
    return inside & (phase[:, None] == phase), step[:, None] - step


def window_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    *,
    pattern: Pattern,
    scale: Tensor | None = None,
) -> Tensor:
    """softmax(scale_h q k^T + B) v over the keys that `pattern` lets each query see.

    Q, k [B, H, N, D], v [B, H, N, E], mask [B, N] bool (True = a real key), bias [H, offsets] -> [B, H, N, E]; a query
    without keys gives zero. Windows: Swin, arXiv 2103.14030, section 3.2; halo: HaloNet, arXiv 2103.12731, section
    2.1; neighbourhoods that slide: NAT, arXiv 2204.07143, section 3.1. Holds [B, H, N, N] in memory.
    """
    factor = head_scale("window_attention", q, None) if scale is None else scale
    seen, entry = pairs(pattern, q.device)
    scores = torch.einsum("bhnd,bhpd->bhnp", q, k) * factor.to(q.dtype)[:, None, None]
    if bias is not None:
        scores = scores + bias.to(q.dtype)[:, entry]
    keep = seen[None, None] if mask is None else seen & mask[:, None, None, :]
    weights = scores.masked_fill(~keep, float("-inf")).softmax(dim=-1).masked_fill(~keep, 0.0)
    return torch.einsum("bhnp,bhpe->bhne", weights, v)
