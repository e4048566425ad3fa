"""The truth: tokens gathered, scattered, averaged in groups and handed back, by PyTorch's own gather and scatter.

A negative place or group means nowhere. Column 0 of a scratch tensor takes what goes nowhere, so that an index that is
too large is still out of bounds and fails, and nothing depends on the data's size.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "gather_tokens_reference",
    "merge_tokens_reference",
    "scatter_tokens_reference",
    "unmerge_tokens_reference",
]


def gather_tokens_reference(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens [B, N, C], places [B, K] long -> [B, K, C], zeros where the place is negative."""
    nowhere = (places < 0)[..., None]
    if tokens.shape[1] == 0:  # then all places are nowhere, and still need a token to be gathered from
        tokens = tokens.new_zeros(tokens.shape[0], 1, tokens.shape[2])
    wanted = places.clamp(min=0)[..., None].expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, wanted).masked_fill(nowhere, 0.0)  # also stops the gradient of a missing one


def scatter_tokens_reference(values: Tensor, places: Tensor, count: int, fill: Tensor | None) -> Tensor:
    """Values [B, K, E], places [B, K] long, all different in a row -> [B, count, E]; elsewhere `fill` or zeros."""
    batch, _, width = values.shape
    base = values.new_zeros(batch, count, width) if fill is None else fill
    scratch = torch.cat([base.new_zeros(batch, 1, width), base], dim=1)
    wanted = (places.clamp(min=-1) + 1)[..., None].expand(-1, -1, width)
    return scratch.scatter(1, wanted, values)[:, 1:]


def merge_tokens_reference(
    tokens: Tensor, assignment: Tensor, weights: Tensor | None, groups: int
) -> tuple[Tensor, Tensor]:
    """Tokens [B, N, C], assignment [B, N] long, weights [B, N] -> means [B, groups, C], sizes [B, groups].

    Mean of group g = sum of w_n x_n / sum of w_n over its members; size = sum of w_n, in float32 at least. The shares
    w_n / size are taken first, so that a group of one is its member bit for bit, whatever its weight. A group without
    members or weight is zero.
    """
    wide = torch.promote_types(tokens.dtype, torch.float32)
    weight = torch.ones(tokens.shape[:2], dtype=wide, device=tokens.device) if weights is None else weights.to(wide)
    group = assignment.clamp(min=-1) + 1
    weight = weight.masked_fill(group == 0, 0.0)
    sizes = weight.new_zeros(tokens.shape[0], groups + 1).scatter_add(1, group, weight)
    mine = sizes.gather(1, group)
    share = torch.where(mine > 0, weight / torch.where(mine > 0, mine, 1.0), 0.0)
    wanted = group[..., None].expand(-1, -1, tokens.shape[2])
    members = tokens.to(wide).masked_fill((group == 0)[..., None], 0.0) * share[..., None]
    sums = members.new_zeros(tokens.shape[0], groups + 1, tokens.shape[2]).scatter_add(1, wanted, members)
    return sums[:, 1:].to(tokens.dtype), sizes[:, 1:]


def unmerge_tokens_reference(values: Tensor, assignment: Tensor) -> Tensor:
    """Values [B, K, E], assignment [B, N] long -> [B, N, E]: each token gets its group's value, nowhere gets zeros."""
    return gather_tokens_reference(values, assignment)
