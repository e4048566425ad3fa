"""PyTorch's fused attention: [N, P] scores are never held."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["cross_attention_sdpa"]


def cross_attention_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Same contract as `cross_attention_reference`; memory linear in N."""
    if mask is None:
        return scaled_dot_product_attention(q, k, v)
    has_key = mask.any(dim=-1)
    # an all-masked row is undefined across PyTorch's backends: let it attend to everything, then zero it
    keep = mask | ~has_key[:, None]
    out = scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])
    return out * has_key[:, None, None, None].to(out.dtype)
