"""Softmax attention: the baseline of its slot, and the written-out form that others are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.kernels.sdpa import masked_sdpa
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
        cross: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool True = real -> [B, H, N, E] and the map.

        The map [B, H, N, M] only when asked for; otherwise nothing of N x M is held, but for a bias as it was given and
        the bits of "causal with padding".
        """
        check_attention(
            "softmax",
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            cross=cross,
            patterns=("self", "cross", "causal"),
        )
        keep = None if mask is None else mask[:, None, None, :]
        if not need_weights:
            return masked_sdpa(q, k, v, keep, bias=bias, causal=causal), None
        if causal:
            before = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
            keep = before if keep is None else keep & before
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        weights = masked_softmax(scores if bias is None else scores + bias, keep)
        return weights @ v, weights
