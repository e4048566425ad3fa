"""PyTorch's fused attention: [N, P] scores are never held. Softmax only."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["cross_attention_sdpa"]


def cross_attention_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """Same contract as `cross_attention_reference` with softmax and no gate; memory linear in N.

    scale [H] goes into the keys, of which there are few; None is 1 / sqrt(D).
    """
    factor: float | None = None
    if scale is not None:
        k = k * scale[:, None, None].to(k.dtype)
        factor = 1.0
    if mask is None:
        return scaled_dot_product_attention(q, k, v, scale=factor)
    has_key = mask.any(dim=-1)
    # an all-masked row is undefined across PyTorch's backends: let it attend to everything, then zero it
    keep = mask | ~has_key[:, None]
    out = scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :], scale=factor)
    return out * has_key[:, None, None, None].to(out.dtype)
