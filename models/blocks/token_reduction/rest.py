"""From the kept voxels to fewer tokens and the way back; the rest is dropped, or averaged into a few tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels.token_merge import gather_tokens, merge_tokens, unmerge_tokens
from petground.kernels.topk import topk_indices
from petground.models.blocks.backend import TokenBackend
from petground.models.blocks.contract import Reduced

__all__ = ["keep_and_drop", "keep_and_merge", "width_of"]


def width_of(keep: Tensor) -> int:
    """Columns for the exam that keeps most, keep [B, N] bool. A compiled graph cannot look: there it is N."""
    return keep.shape[1] if torch.compiler.is_compiling() else max(1, int(keep.sum(dim=1).max()))


def keep_and_drop(tokens: Tensor, keep: Tensor, size: int, backend: TokenBackend = "auto") -> Reduced:
    """Kept tokens in the order of their places, in `size` columns (none may keep more); the dropped get zeros back."""
    places, assignment = _columns(tokens, keep, size, backend)
    short = gather_tokens(tokens, places, backend=backend)
    return Reduced(short, places >= 0, places, lambda values: unmerge_tokens(values, assignment, backend=backend))


def keep_and_merge(
    tokens: Tensor,
    keep: Tensor,
    size: int,
    group: Tensor,
    groups: int,
    weights: Tensor,
    *,
    total: bool,
    backend: TokenBackend = "auto",
) -> Reduced:
    """Kept tokens as in `keep_and_drop`, then `groups` tokens, each of its dropped members; they get its value back.

    group: [B, N] long, a dropped voxel's group; negative: in none (kept, padding).
    weights: [B, N], not negative. A group's token is the weighted mean of its members, with `total` their weighted sum.
    """
    places, assignment = _columns(tokens, keep, size, backend)
    means, sizes = merge_tokens(tokens, group, weights, groups, backend=backend)
    merged = means * sizes[..., None].to(means.dtype) if total else means
    filled = (group[..., None] == torch.arange(groups, device=group.device)).any(dim=1)
    assignment = torch.where(group >= 0, size + group, assignment)
    return Reduced(
        torch.cat([gather_tokens(tokens, places, backend=backend), merged], dim=1),
        torch.cat([places >= 0, filled], dim=1),
        torch.cat([places, torch.full_like(group[:, :1], -1).expand(-1, groups)], dim=1),
        lambda values: unmerge_tokens(values, assignment, backend=backend),
    )


def _columns(tokens: Tensor, keep: Tensor, size: int, backend: TokenBackend) -> tuple[Tensor, Tensor]:
    """The kept voxels' places [B, size], ascending, and each voxel's column [B, N], -1 where it is not kept."""
    places = topk_indices(keep.to(tokens.dtype), size, keep, size=size, backend=backend)
    return places, (keep.cumsum(dim=1) - 1).masked_fill(~keep, -1)
