"""LookupViT: a few tokens on a coarse grid gather from all voxels, and hand back through the same scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d

from petground.kernels.cross_attention import cross_attention
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.backend import Backend, tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.token_reduction.choose import real_voxels
from petground.models.blocks.token_reduction.maps import split_heads

__all__ = ["Lookup", "coarse_tokens"]

KEY = "lookup"


def coarse_tokens(tokens: Tensor, real: Tensor, grid: Grid, coarse_zyx: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Means of the real voxels in each cell of a coarser grid: tokens [B, M, C], mask [B, M] (cells without any)."""
    weight = real[..., None].to(tokens.dtype)
    z, y, x = (min(n, m) for n, m in zip(grid.shape_zyx, coarse_zyx, strict=True))
    sums, share = (grid.flat(adaptive_avg_pool3d(grid.dense(part), (z, y, x))) for part in (tokens * weight, weight))
    there = share[..., 0] > 0
    return sums / torch.where(share > 0, share, 1.0), there


class Lookup(nn.Module):
    """LookupViT's compressed tokens (arXiv 2407.12753, section 3.2): N lookup tokens x_l, M compressed x_p.

    x_p = means of x_l on a coarse grid of coarse_zyx cells (the resized feature map). With q = W_q x_p, k = W_k x_l,
    A = softmax(q k^T / sqrt(d)) over the N voxels, [M, N]:
    1. x_p <- x_p + W_o A (W_v x_l)   the reduced tokens, on which the attention that follows runs;
    2. x_l <- x_l + A^T v             the un-merge: the same scores transposed, no new queries and keys. With several
       heads the mean of their A. back: "softmax" normalises the same scores over the M tokens instead, so that what
       comes back has the size of v; A^T v is about M / N of it in a large volume.
    N M + M^2 time, N M memory. W_o starts at zero. The paper's small MLP on x_l belongs to the layer around this
    block, which has none. The weights do not depend on M: coarse_zyx may change after training.

    Args:
        channels: of the tokens.
        coarse_zyx: the compressed grid; an axis with fewer voxels keeps its own number.
        heads: must divide channels.
        back: see above.
        backend: of the kernel behind `back: softmax`.
    """

    text_use: TextUse = "ignores"

    def __init__(
        self,
        channels: int,
        coarse_zyx: Sequence[int] = (5, 5, 5),
        heads: int = 1,
        back: Literal["transposed", "softmax"] = "transposed",
        backend: Backend = "auto",
    ):
        super().__init__()
        split_heads(KEY, channels, heads)
        if len(coarse_zyx) != 3 or min(coarse_zyx) < 1:
            raise ValueError(f"coarse_zyx={list(coarse_zyx)}: three numbers of one or more")
        if backend != "auto" and back == "transposed":
            raise ValueError(f"backend={backend} is of the kernel behind back: softmax; leave one of them out")
        self.coarse_zyx = tuple(coarse_zyx)
        self.heads = heads
        self.back = back
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.backend = backend

    @tells_backend(KEY)
    def forward(
        self,
        tokens: Tensor,
        *,
        scores: Tensor | None = None,
        mask: Tensor | None = None,
        grid: Grid | None = None,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Reduced:
        """Tokens [B, N, C], mask [B, N] bool -> Reduced with M compressed tokens, `kept` -1; text is not read."""
        check_tokens(KEY, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        if grid is None:
            raise BlockInputError(KEY, "grid", "is missing", "give the 3D grid of the tokens")
        real = real_voxels(tokens, mask)
        clear = tokens.masked_fill(~real[..., None], 0.0)
        compressed, there = coarse_tokens(clear, real, grid, self.coarse_zyx)
        q, k, v = (self._split(part) for part in (self.query(compressed), self.key(clear), self.value(clear)))
        weights = masked_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, real[:, None, None])  # [B, H, M, N]
        gathered = self.out((weights @ v).transpose(1, 2).flatten(2))
        compressed = (compressed + gathered).to(tokens.dtype).masked_fill(~there[..., None], 0.0)
        places = torch.full_like(there, -1, dtype=torch.long)
        if self.back == "softmax":
            return Reduced(compressed, there, places, lambda values: self._normalised(k, q, values, there, real))
        shared = weights.mean(1).masked_fill(~there[..., None], 0.0)
        return Reduced(compressed, there, places, lambda values: shared.to(values.dtype).transpose(1, 2) @ values)

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)

    @tells_backend(KEY)
    def _normalised(self, k: Tensor, q: Tensor, values: Tensor, there: Tensor, real: Tensor) -> Tensor:
        spread = values.to(k.dtype)[:, None].expand(-1, self.heads, -1, -1)
        mine = cross_attention(k, q, spread, mask=there, backend=self.backend)
        return mine.mean(1).to(values.dtype).masked_fill(~real[..., None], 0.0)
