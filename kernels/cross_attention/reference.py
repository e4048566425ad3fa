"""The truth: masked multi-head softmax attention written out, in any floating type."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cross_attention_reference"]


def cross_attention_reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Q [B, H, N, D], k [B, H, P, D], v [B, H, P, E], mask [B, P] bool (True = a real key) -> [B, H, N, E].

    softmax(q k^T / sqrt(D)) v over the real keys (Vaswani et al. 2017, section 3.2.1). Where a batch entry has no
    real key the output is zero. Holds [B, H, N, P] in memory.
    """
    scores = torch.einsum("bhnd,bhpd->bhnp", q, k) * q.shape[-1] ** -0.5
    if mask is None:
        return torch.einsum("bhnp,bhpe->bhne", scores.softmax(dim=-1), v)
    keep = mask[:, None, None, :]
    weights = scores.masked_fill(~keep, float("-inf")).softmax(dim=-1)
    # a row without keys is 0/0; masked_fill also stops its gradient
    weights = weights.masked_fill(~keep, 0.0)
    return torch.einsum("bhnp,bhpe->bhne", weights, v)
