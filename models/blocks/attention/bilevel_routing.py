"""Bi-level routing: each region of the grid attends to the voxels of the few regions most like it (BiFormer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels.routed_attention import routed_attention
from petground.models.blocks.attention.window_attention import window_mask
from petground.models.blocks.attention.windows import Cut, cut, join, split, triple
from petground.models.blocks.attention.within import BUDGET, attend
from petground.models.blocks.backend import tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, check_attention

__all__ = ["BilevelRouting"]

KEY = "bilevel_routing"


class BilevelRouting(nn.Module):
    """out = softmax(q k_r^T / sqrt(D)) v_r + LCE(v), r: the top-k regions of the query's region (arXiv 2303.08810).

    Regions: the grid in n_z x n_y x n_x parts. Q_r, K_r: means over a region's real voxels, all heads together;
    A_r = Q_r K_r^T; each region keeps the `topk` regions of its row (section 3.2). The choice carries no gradient, as
    in the authors' code. LCE: a depthwise convolution of v.

    Args:
        channels: of all heads together.
        num_heads: heads.
        regions: [z, y, x]; an axis shorter than its number has one region a voxel. The cheapest number of all together
            is (topk N^2 / 2)^(1/3) (section 3.3): about 7 each at 16^3 voxels, 14 each at 48^3.
        topk: regions that each attends to; more than there are means all, which is full attention.
        local: odd kernel of LCE, 0 for none; 5 in the paper's 2D, where that is 25 weights and 3 here are 27.
        backend: of the kernel; "auto" takes PyTorch's attention on the CPU.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        regions: Sequence[int] = (7, 7, 7),
        topk: int = 4,
        local: int = 3,
        backend: Literal["auto", "chunked", "reference", "triton"] = "auto",
    ):
        super().__init__()
        self.regions = triple("regions", regions)
        if topk < 1 or local < 0 or (local and local % 2 == 0):
            raise ValueError(f"topk={topk} must be at least 1, local={local} odd or 0")
        self.topk, self.backend = topk, backend
        self.channels = channels
        self.local = nn.Conv3d(channels, channels, local, padding=local // 2, groups=channels) if local else None

    def cut(self, grid: Grid) -> Cut:
        """The grid in regions of one size; the last of an axis may be short."""
        z, y, x = (-(-n // parts) for n, parts in zip(grid.shape_zyx, self.regions, strict=True))
        return cut(grid.shape_zyx, (z, y, x))

    def route(self, q: Tensor, k: Tensor, grid: Grid, mask: Tensor | None = None) -> Tensor:
        """The routing table [B, S, topk] of q, k [B, H, N, D]: for each region those it attends to, most alike first.

        Regions are counted in C order of `cut(grid)`. Regions without a real voxel come last.
        """
        regions = self.cut(grid)
        real = window_mask(mask, regions, q)
        wide = torch.promote_types(q.dtype, torch.float32)
        with torch.no_grad():
            means, empty = [], torch.zeros(1, 1, dtype=torch.bool, device=q.device)
            for one in (q, k):
                parts = split(one, regions)  # [B S, H, R, D]
                if real is None:
                    mean = parts.mean(2)
                else:
                    count = real.sum(1)
                    empty = torch.unflatten(count == 0, 0, (-1, regions.count))
                    kept = parts.masked_fill(~real[:, None, :, None], 0.0)
                    mean = (kept.sum(2, dtype=wide) / count.clamp(min=1)[:, None, None]).to(q.dtype)
                means.append(torch.unflatten(mean.flatten(1), 0, (-1, regions.count)))
            alike = means[0] @ means[1].transpose(1, 2)
            alike = alike.masked_fill(empty[:, None, :], float("-inf"))
            return torch.topk(alike, min(self.topk, regions.count), dim=-1)[1]

    @tells_backend("bilevel_routing")
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

        The map [B, H, N, N] is the attention's, without LCE, and only when asked for.
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
        if self.local is not None and v.shape[1] * v.shape[3] != self.channels:
            raise BlockInputError(KEY, "v", f"is {tuple(v.shape)}", f"all heads: {self.channels}, or local=0")
        regions, table = self.cut(grid), self.route(q, k, grid, mask)
        weights: Tensor | None = None
        if not need_weights and (self.backend != "auto" or q.device.type != "cpu"):
            answer = routed_attention(
                q, k, v, table, grid=regions.grid, region=regions.window, mask=mask, backend=self.backend
            )
        else:
            asking = split(q * q.shape[-1] ** -0.5, regions)
            keys, values = split(k, regions), split(v, regions)
            out, weights = self._routed(asking, keys, values, window_mask(mask, regions, q), table, need_weights)
            answer = join(out, regions)
        if self.local is not None:
            answer = answer + self._local(v, mask, grid)
        return answer, None if weights is None else _dense(weights, table, regions)

    def _routed(
        self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, table: Tensor, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Each region's queries to the voxels of its routed regions, some regions at a time: [B S, H, R, .]."""
        batch, count, top = table.shape
        first = torch.arange(batch, device=table.device)[:, None, None] * count
        rows = (table + first).flatten(0, 1)  # [B S, topk] among all regions of the batch
        step = max(1, BUDGET // (top * k.shape[1] * k.shape[2] * max(k.shape[3], q.shape[2])))
        outs, maps = [], []
        for start in range(0, batch * count, step):
            chosen = rows[start : start + step]
            out, weights = attend(
                q[start : start + step],
                _gather(k, chosen),
                _gather(v, chosen),
                keys=None if real is None else real[chosen].flatten(1),
                need_weights=need_weights,
            )
            outs.append(out)
            maps.append(weights)
        kept = [one for one in maps if one is not None]
        return torch.cat(outs), torch.cat(kept) if kept else None

    def _local(self, v: Tensor, mask: Tensor | None, grid: Grid) -> Tensor:
        assert self.local is not None
        x = v.transpose(1, 2).flatten(2)
        if mask is not None:
            x = x.masked_fill(~mask[:, :, None], 0.0)
        near: Tensor = self.local(grid.dense(x))
        return torch.unflatten(grid.flat(near), -1, (v.shape[1], -1)).transpose(1, 2)


def _gather(x: Tensor, rows: Tensor) -> Tensor:
    """X [B S, H, R, C], rows [G, topk] -> [G, H, topk R, C]."""
    picked = torch.unflatten(x.index_select(0, rows.flatten()), 0, rows.shape)
    return picked.transpose(1, 2).flatten(2, 3)


def _dense(weights: Tensor, table: Tensor, regions: Cut) -> Tensor:
    """Weights [B S, H, R, topk R] -> [B, H, N, N]."""
    batch, count, top = table.shape
    size = weights.shape[2]
    total = weights.new_zeros(batch, count, weights.shape[1], size, count, size)
    parts = weights.reshape(batch, count, weights.shape[1], size, top, size)
    where = table[:, :, None, None, :, None].expand(parts.shape)
    total.scatter_(4, where, parts)
    # [B, S, H, R, S, R]: rows, then columns, from regions back to the grid
    rows = join(total.flatten(4).reshape(batch * count, weights.shape[1], size, -1), regions)
    columns = torch.unflatten(rows, -1, (count, size)).movedim(-2, 1)  # [B, S, H, N, R]
    return join(columns.flatten(0, 1).transpose(2, 3), regions).transpose(2, 3)
