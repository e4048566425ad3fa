"""Based: a Taylor linear attention over everything beside an exact softmax in a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from petground.models.blocks.attention.grouping import box_attention, lattice
from petground.models.blocks.attention.linear import LinearAttention
from petground.models.blocks.attention.windows import triple
from petground.models.blocks.contract import Grid, check_attention

__all__ = ["Based"]


class Based(nn.Module):
    """out = (1 - g_h) linear(q, k, v) + g_h window(q, k, v), g = sigmoid of a number per head, 1/2 at the start.

    linear: weights 1 + s + s^2 / 2 over their row sum, s = q' . k' / sqrt(d'), q' and k' of `feature_dim` numbers; at
    least 1/2 each, so all shares are positive. window: exact softmax over the voxels at most `radius` away along each
    axis; without a grid, over the tokens at most `window` / 2 before and after in the order; causal: over the last
    `window`. Based, arXiv 2402.18668: there the two are layers in turn; here they stand side by side in one block.
    The window and feature_dim set how much is recalled exactly against the size of the state.

    Args:
        channels: of all heads together.
        num_heads: heads.
        feature_dim: d'; 0: as wide as the heads are.
        window: tokens of the exact part in an order; 0: the linear part alone.
        radius: of the exact part on a grid, along z, y, x.
        chunk_size: of the linear part.
        backend: of the linear part's kernel.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        feature_dim: int = 16,
        window: int = 64,
        radius: Sequence[int] = (2, 2, 2),
        chunk_size: int = 64,
        backend: Literal["auto", "chunked", "reference", "triton"] = "auto",
    ):
        super().__init__()
        if window < 0:
            raise ValueError(f"window={window} must be at least 0")
        self.window = window
        self.radius = triple("radius", radius, least=0)
        self.linear = LinearAttention(
            channels,
            num_heads,
            "based",
            "taylor",
            value_map="identity",
            normalize="sum",
            feature_dim=feature_dim,
            chunk_size=chunk_size,
            backend=backend,
        )
        self.share = nn.Parameter(torch.zeros(num_heads, 1, 1)) if window else None

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
        """Q [B, H, N, D], k [B, H, N, D], v [B, H, N, E], mask [B, N] bool True = real -> [B, H, N, E] and the map."""
        check_attention(
            "based",
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            patterns=("self", "causal"),
            takes_bias=False,
        )
        out, weights = self.linear(q, k, v, mask=mask, causal=causal, need_weights=need_weights)
        if self.share is None:
            return out, weights
        gate = self.share.sigmoid().to(out.dtype)
        out = out + gate * (self._near(q, k, v, mask, grid, causal) - out)
        if weights is not None:
            units = torch.eye(k.shape[2], dtype=q.dtype, device=q.device).expand(*k.shape[:2], -1, -1)
            weights = weights + gate * (self._near(q, k, units, mask, grid, causal) - weights)
        return out, weights

    def _near(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, grid: Grid | None, causal: bool) -> Tensor:
        if mask is not None:
            v = v.masked_fill(~mask[:, None, :, None], 0.0)
        shape = lattice(q.shape[2], grid, causal=causal)
        line = (0, 0, self.window - 1 if causal else self.window // 2)
        radius = self.radius if grid is not None and not causal else line
        return box_attention(q, k, v, shape, radius, mask=mask, causal=causal)
