"""PyTorch's fused attention: [N, P] scores are never held. Softmax only."""

from __future__ import annotations

from torch import Tensor

from petground.kernels.sdpa import masked_sdpa

__all__ = ["cross_attention_sdpa"]


def cross_attention_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """Same contract as `cross_attention_reference` with softmax and no gate; memory linear in N.

    scale [H] goes into the keys, of which there are few, before they are rounded; None is 1 / sqrt(D).
    """
    keep = None if mask is None else mask[:, None, None, :]
    if scale is None:
        return masked_sdpa(q, k, v, keep)
    return masked_sdpa(q, (k.to(scale.dtype) * scale[:, None, None]).to(k.dtype), v, keep, scale=1.0)
