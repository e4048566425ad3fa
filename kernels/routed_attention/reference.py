"""The truth: attention of regions to the regions of their lists, every pair of voxels looked at, in any type."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import head_scale
from petground.kernels.routed_attention.regions import Regions

__all__ = ["routed_attention_reference"]


def routed_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    mask: Tensor | None,
    *,
    regions: Regions,
    scale: Tensor | None = None,
) -> Tensor:
    """softmax(scale_h q k^T) v over the voxels of the listed regions (BiFormer, arXiv 2303.08810, section 3.2).

    Q, k [B, H, N, D], v [B, H, N, E], table [B, 1 or H, S, T], mask [B, N] bool (True = a real key) -> [B, H, N, E].
    A region that is listed twice counts twice, entries below 0 count for nothing; a query without keys gives zero.
    Holds [B, H, N, N] in memory.
    """
    factor = head_scale("routed_attention", q, None) if scale is None else scale
    own = torch.empty(q.shape[2], dtype=torch.long, device=q.device)
    places = regions.voxels(q.device)
    number = torch.arange(regions.count, device=q.device)[:, None].expand(places.shape)
    own[places[places >= 0]] = number[places >= 0]
    times = (table[..., None] == torch.arange(regions.count, device=q.device)).sum(-2)  # [B, 1 or H, S, S]
    weight = times[:, :, own][..., own]  # [B, 1 or H, N, N]
    if mask is not None:
        weight = weight * mask[:, None, None, :]
    scores = torch.einsum("bhnd,bhpd->bhnp", q, k) * factor.to(q.dtype)[:, None, None]
    scores = scores + weight.clamp_min(1).to(scores.dtype).log()
    weights = scores.masked_fill(weight == 0, float("-inf")).softmax(dim=-1).masked_fill(weight == 0, 0.0)
    return torch.einsum("bhnp,bhpe->bhne", weights, v)
