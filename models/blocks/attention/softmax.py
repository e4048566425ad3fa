"""Softmax attention: the baseline of its slot, and the written-out form that others are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from petground.models.blocks.contract import Grid, check_attention

__all__ = ["SoftmaxAttention", "masked_softmax"]


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores [B, H, N, M], mask broadcastable to it, True where a key counts -> weights; a row without keys is zero."""
    if mask is None:
        return scores.softmax(dim=-1)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0)  # a row without keys is 0/0; masked_fill also stops its gradient


class SoftmaxAttention(nn.Module):
    """softmax(q k^T / sqrt(D) + bias) v (Vaswani et al. 2017, section 3.2.1).

    Args:
        channels: of all heads together.
        num_heads: heads.
    """

    def __init__(self, channels: int, num_heads: int = 1):
        super().__init__()

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        grid: Grid | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool True = real -> [B, H, N, E] and the map.

        The map [B, H, N, M] only when asked for; otherwise nothing of N x M is held, but for a bias as it was given and
        the bits of "causal with padding".
        """
        check_attention(
            "softmax", q, k, v, mask=mask, bias=bias, grid=grid, causal=causal, patterns=("self", "cross", "causal")
        )
        # PyTorch's fused kernels want the channels side by side, and silently hold N x M where they are not
        q, k, v = (part if part.stride(-1) == 1 else part.contiguous() for part in (q, k, v))
        if causal and mask is None and bias is None and not need_weights:
            return scaled_dot_product_attention(q, k, v, is_causal=True), None
        keep = None if mask is None else mask[:, None, None, :]
        if causal:
            before = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
            keep = before if keep is None else keep & before
        if need_weights:
            scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            weights = masked_softmax(scores if bias is None else scores + bias, keep)
            return weights @ v, weights
        if keep is None:
            return scaled_dot_product_attention(q, k, v, attn_mask=bias), None
        has_key = keep.any(dim=-1, keepdim=True)
        # a row without keys is undefined across PyTorch's backends: it attends to everything, then becomes zero
        allowed = keep | ~has_key
        attend = allowed if bias is None else bias.masked_fill(~allowed, float("-inf"))
        return scaled_dot_product_attention(q, k, v, attn_mask=attend) * has_key.to(v.dtype), None
