"""PyTorch's fused attention: parts and their merge happen inside, also going backward; N x M is never held."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["split_attention_sdpa"]


def split_attention_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, split_size: int = 0) -> Tensor:
    """Same contract as `split_attention_reference`; how the keys are split is PyTorch's."""
    # PyTorch's fused kernels want the channels side by side, and silently hold N x M where they are not
    q, k, v = (one if one.stride(-1) == 1 else one.contiguous() for one in (q, k, v))
    if mask is None:
        return scaled_dot_product_attention(q, k, v)
    has_key = mask.any(dim=-1)
    # a row without keys is undefined across backends: it looks at all, then becomes zero
    keep = mask | ~has_key[:, None]
    out = scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])
    return out * has_key[:, None, None, None].to(out.dtype)
