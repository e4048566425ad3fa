"""Attention as a recurrence: keys come in parts, their (m, u, w) merge exactly; prefixes come from a parallel scan."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels.split_attention import prefix_attention, split_attention
from petground.models.blocks.contract import Grid, check_attention

__all__ = ["Aaren"]


class Aaren(nn.Module):
    """Softmax attention as the recurrence m = max(m_a, m_b), u = u_a e^(m_a - m) + u_b e^(m_b - m), w alike, o = w / u.

    Attention as an RNN, arXiv 2405.13956, section 3. Self and cross: exact softmax attention of the given
    queries, the keys in parts, so that a sentence can read a whole body. Causal: Aaren itself, a
    learned query per head (q is not read) against every prefix, by an associative scan in log2(N) steps.

    Args:
        channels: of all heads together.
        num_heads: heads.
        split_size: keys looked at together by backend "reference". It changes memory, not the answer.
        backend: of the split attention: "auto", "sdpa" (parts inside PyTorch's kernel) or "reference".
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        split_size: int = 1024,
        backend: Literal["auto", "sdpa", "reference"] = "auto",
    ):
        super().__init__()
        if split_size < 1:
            raise ValueError(f"split_size={split_size} must be at least 1")
        self.split_size = split_size
        self.backend = backend
        self.query = nn.Parameter(torch.randn(num_heads, channels // num_heads))

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
        """Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool True = real -> [B, H, N, E]; no map."""
        patterns = ("self", "cross", "causal")
        check_attention(
            "aaren", q, k, v, mask=mask, bias=bias, grid=grid, causal=causal, patterns=patterns, takes_bias=False
        )
        if causal:
            return prefix_attention(self.query.to(k.dtype), k, v, mask), None
        return split_attention(q, k, v, mask=mask, split_size=self.split_size, backend=self.backend), None
