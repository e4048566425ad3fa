"""Aggregated attention: a voxel sees its neighbours sharply and the whole grid coarsely, in one softmax (TransNeXt)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from petground.models.blocks.attention.cells import Cells, neighbours
from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.relative_bias import log_spaced
from petground.models.blocks.attention.window_attention import unit
from petground.models.blocks.attention.windows import triple
from petground.models.blocks.contract import Grid, check_attention

__all__ = ["AggregatedAttention"]

KEY = "aggregated_attention"


class AggregatedAttention(nn.Module):
    """Pixel-focused attention, query embedding, positional attention, length scaling (arXiv 2311.17132, section 3).

    q' = (q/|q| + e) softplus(t) log(n), n the number of keys that the query has; logits of the w^3 neighbours
    q' k/|k| + b_local, of the pooled cells q' p/|p| + MLP(log-spaced mm); one softmax over both, a = [a_local, a_pool];
    out = (a_local + q/|q| T + b) v_local + a_pool v_pool. softplus(t) starts at 1 / 0.24, e and T small, b zero.

    Args:
        channels: of all heads together.
        num_heads: heads.
        window: odd neighbourhood [z, y, x].
        pool: cells [z, y, x] of the whole grid that every voxel sees; no more than the grid has.
        unit_mm: the distance that counts as one in the log-spaced offset.
        hidden: width of the MLP, 512 in the paper.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        window: Sequence[int] = (3, 3, 3),
        pool: Sequence[int] = (4, 4, 4),
        unit_mm: float = 4.0,
        hidden: int = 512,
    ):
        super().__init__()
        self.window, self.pool = triple("window", window), triple("pool", pool)
        if any(n % 2 == 0 for n in self.window):
            raise ValueError(f"window {list(self.window)}: odd numbers only")
        if unit_mm <= 0 or hidden < 1:
            raise ValueError(f"unit_mm={unit_mm} and hidden={hidden} must be above 0")
        self.unit_mm = unit_mm
        dim, local = channels // num_heads, math.prod(self.window)
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), math.log(math.expm1(1 / 0.24))))
        self.query_embedding = nn.Parameter(torch.zeros(num_heads, 1, dim))
        self.local_bias = nn.Parameter(torch.zeros(num_heads, 1, local))
        self.learned_tokens = nn.Parameter(torch.zeros(num_heads, dim, local))
        self.learned_bias = nn.Parameter(torch.zeros(num_heads, 1, local))
        for parameter, std in ((self.query_embedding, 0.02), (self.local_bias, 0.0004), (self.learned_tokens, 0.02)):
            nn.init.trunc_normal_(parameter, std=std)
        self.mlp = nn.Sequential(nn.Linear(3, hidden), nn.ReLU(), nn.Linear(hidden, num_heads))

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
        """Q, k [B, H, N, D], v [B, H, N, E] of a grid, mask [B, N] bool True = real -> [B, H, N, E] and the map.

        The map [B, H, N, N] spreads each cell's weight over its voxels and leaves T and b out; only when asked for.
        """
        check_attention(
            KEY,
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            patterns=("self",),
            takes_bias=False,
            needs_grid=True,
        )
        assert grid is not None
        check_heads(KEY, q, self.learned_tokens.shape[0], self.learned_tokens.shape[1])
        shape, cells = grid.shape_zyx, Cells.of(grid, self.pool)
        real = torch.ones(1, grid.tokens, dtype=torch.bool, device=q.device) if mask is None else mask
        real = real[:, None, :, None]
        seen = torch.cat(list(neighbours(torch.unflatten(real, 2, shape), self.window)), dim=-1)  # [., 1, Z, Y, X, w^3]
        parts = cells.means(real.to(q.dtype))  # [B or 1, 1, P, 1], how much of each cell is real
        full = (parts > 0).transpose(2, 3)
        parts = parts.masked_fill(parts == 0, 1.0)
        lengths = seen.flatten(2, 4).sum(-1, keepdim=True) + full.sum(-1, keepdim=True)

        direction = unit(q)
        scale = softplus(self.temperature) * lengths.clamp(min=1).to(q.dtype).log()
        asking = ((direction + self.query_embedding) * scale).to(q.dtype)
        near = self._near(torch.unflatten(asking, 2, shape), torch.unflatten(unit(k), 2, shape))
        near = near.masked_fill(~seen, float("-inf"))
        means = cells.means(k.masked_fill(~real, 0.0)) / parts
        far = asking @ unit(means).transpose(-1, -2) + self._cell_bias(cells)
        logits = torch.cat([near.flatten(2, 4), far.masked_fill(~full, float("-inf"))], dim=-1)
        # nobody there at all: any finite row, its weights become zero
        logits = logits.masked_fill(lengths == 0, 0.0)
        weights, places = logits.softmax(-1), near.shape[-1]
        sharp = weights[..., :places].masked_fill(~seen.flatten(2, 4), 0.0)
        coarse = weights[..., places:].masked_fill(~full, 0.0)

        values = v.masked_fill(~real, 0.0)
        mixed = torch.unflatten((sharp + direction @ self.learned_tokens + self.learned_bias).to(v.dtype), 2, shape)
        wide = torch.unflatten(values, 2, shape)
        dense = torch.zeros_like(wide)
        for place, one in enumerate(neighbours(wide, self.window)):
            dense = dense + mixed[..., place : place + 1] * one
        out = dense.flatten(2, 4) + coarse.to(v.dtype) @ (cells.means(values) / parts).to(v.dtype)
        return out, self._map(sharp, coarse, cells, parts, real) if need_weights else None

    def _near(self, asking: Tensor, keys: Tensor) -> Tensor:
        """Logits of the neighbours, [B, H, Z, Y, X, w^3], an elementwise product for each place of the window."""
        places = [(asking * one).sum(-1) for one in neighbours(keys, self.window)]
        return torch.stack(places, dim=-1) + self.local_bias[:, :, None, None].to(asking.dtype)

    def _cell_bias(self, cells: Cells) -> Tensor:
        """[H, N, P]: the MLP of the log-spaced mm from the centre of the query's own cell to the key's."""
        centres = cells.centres_mm(self.query_embedding)
        offsets = (centres[:, None] - centres[None]) / self.unit_mm
        table: Tensor = self.mlp(log_spaced(offsets)).movedim(-1, 0)  # [H, P, P]
        return table.index_select(1, cells.own(table.device))

    def _map(self, sharp: Tensor, coarse: Tensor, cells: Cells, parts: Tensor, real: Tensor) -> Tensor:
        """[B, H, N, N] from [B, H, N, w^3] and [B, H, N, P]."""
        grid = cells.grid
        names = torch.arange(1, grid.tokens + 1, device=sharp.device).reshape(1, 1, *grid.shape_zyx, 1)
        places = torch.cat(list(neighbours(names, self.window)), dim=-1).flatten(2, 4)  # 0: outside the grid
        whole = sharp.new_zeros(*sharp.shape[:3], grid.tokens + 1)
        whole = whole.scatter_add(3, places.expand_as(sharp), sharp)[..., 1:]
        spread = cells.matrix(coarse) * real.transpose(2, 3) / parts
        return whole + coarse @ spread
