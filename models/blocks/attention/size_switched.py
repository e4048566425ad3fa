"""Exact attention where tokens are few, a light one where they are many: one name for every level of a network."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from petground.kernels.linear_attention import linear_attention
from petground.models.blocks.attention.softmax import SoftmaxAttention, masked_softmax
from petground.models.blocks.backend import tells_backend
from petground.models.blocks.contract import Grid, check_attention

__all__ = ["SizeSwitchedAttention"]


class SizeSwitchedAttention(nn.Module):
    """softmax(q k^T / sqrt(D)) v for M <= width keys, else softmax_features(q) (softmax_tokens(k)^T v).

    MAELRE, arXiv 2507.19409: standard attention once the tokens are no more than the channels, before that an
    approximation whose state is O(D^2). The approximation built is Efficient Attention (arXiv 1812.01243, section
    3.3): its implied map is not negative and its rows sum to one, as softmax's. Only the number of keys decides, not
    their values or the mask. Merging tokens between levels is the token_reduction's part.

    Args:
        channels: of all heads together.
        num_heads: heads.
        width: the most keys for exact attention; 0: `channels`.
        backend: of the light form's kernel.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        width: int = 0,
        backend: Literal["auto", "chunked", "reference", "triton"] = "auto",
    ):
        super().__init__()
        if width < 0:
            raise ValueError(f"width={width} must be at least 0")
        self.width, self.backend = width or channels, backend
        self.exact = SoftmaxAttention(channels, num_heads)

    @tells_backend("size_switched")
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
        """Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool True = real -> [B, H, N, E] and the map."""
        check_attention(
            "size_switched", q, k, v, mask=mask, bias=bias, grid=grid, causal=causal, cross=cross, takes_bias=False
        )
        if k.shape[2] <= self.width:
            out, weights = self.exact(q, k, v, mask=mask, cross=cross, need_weights=need_weights)
            return out, weights
        keep = None if mask is None else mask[:, None, None, :]
        of_k = masked_softmax(k.transpose(-1, -2), keep).transpose(-1, -2).to(v.dtype)  # autocast widens softmax
        of_q = q.softmax(dim=-1).to(v.dtype)
        return linear_attention(of_q, of_k, v, mask=mask, backend=self.backend), of_q @ of_k.transpose(
            -1, -2
        ) if need_weights else None
