"""Attention as a recurrence: keys come in parts, their (m, u, w) merge exactly; prefixes come from a parallel scan."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels.split_attention import prefix_attention
from petground.kernels.text_to_voxel import text_to_voxel
from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.backend import tells_backend
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
        backend: of the attention of given queries, see `petground.kernels.text_to_voxel`.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        backend: Literal["auto", "sdpa", "chunked", "triton", "reference"] = "auto",
    ):
        super().__init__()
        self.backend = backend
        self.query = nn.Parameter(torch.randn(num_heads, channels // num_heads))

    @tells_backend("aaren")
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
        """Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool True = real -> [B, H, N, E]; no map."""
        check_attention(
            "aaren",
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            cross=cross,
            patterns=("self", "cross", "causal"),
            takes_bias=False,
        )
        check_heads("aaren", q, *self.query.shape)
        if causal:
            return prefix_attention(self.query.to(k.dtype), k, v, mask), None
        return text_to_voxel(q, k, v, mask=mask, backend=self.backend), None
