"""PyTorch's fused attention, softmax only."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["text_to_voxel_sdpa"]


def text_to_voxel_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor) -> Tensor:
    """Same contract as the reference with softmax; scale [H] goes into the queries, of which there are few."""
    q = q * scale[:, None, None].to(q.dtype)
    if mask is None:
        return scaled_dot_product_attention(q, k, v, scale=1.0)
    has_key = mask.any(dim=-1)
    # an all-masked row is undefined across PyTorch's backends: let it attend to everything, then zero it
    keep = mask | ~has_key[:, None]
    out = scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :], scale=1.0)
    return out * has_key[:, None, None, None].to(out.dtype)
