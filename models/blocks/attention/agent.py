"""Agent attention: a few pooled queries read all keys, all queries read those few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from petground.kernels.agent_attention import agent_attention, agent_maps
from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.pooling import bin_shares, grid_sum, linear_resize
from petground.models.blocks.attention.windows import triple
from petground.models.blocks.backend import tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, check_attention

__all__ = ["AgentAttention"]


class AgentAttention(nn.Module):
    """softmax(q a^T / sqrt(D) + B_2) softmax(a k^T / sqrt(D) + B_1) v + DWC(v), agents a = mean of q over bins.

    Agent Attention, arXiv 2312.08874, section 3.2, equations 5 and 6, in 3D: the bins are `pool` boxes of the grid; of
    the tokens' order where there is no grid. B_1 and B_2 are learned on a coarse grid of `bias_size` steps an axis and
    interpolated; the paper's full-resolution row and column biases need a grid of one size and are left out. DWC is
    the depthwise 3x3x3 convolution of the values. Biases and DWC exist for self-attention on a grid only.
    In self-attention the mask is the queries', too: padding enters no agent. In cross-attention all queries enter.

    Args:
        channels: of all heads together.
        num_heads: heads.
        pool: boxes along z, y, x; their product is the number of agents (the paper: 7 x 7 = 49).
        bias_size: steps of the learned biases along each axis (the paper: 7); 0: no biases.
        dwc: the depthwise convolution, which brings back what few agents blur.
        backend: of the kernel.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        pool: Sequence[int] = (4, 4, 4),
        bias_size: int = 4,
        dwc: bool = True,
        backend: Literal["auto", "reference", "triton"] = "auto",
    ):
        super().__init__()
        if bias_size < 0:
            raise ValueError(f"bias_size={bias_size} must be at least 0")
        self.num_heads, self.backend = num_heads, backend
        self.pool = triple("pool", pool)
        self.dwc = nn.Conv3d(channels, channels, 3, padding=1, groups=channels) if dwc else None
        self.of_keys, self.of_queries = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(num_heads, math.prod(pool), *[bias_size] * 3), std=0.02))
            if bias_size
            else None
            for _ in range(2)
        )

    @tells_backend("agent")
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

        The map [B, H, N, M] is that of the two softmaxes, without the convolution.
        """
        check_attention("agent", q, k, v, mask=mask, bias=bias, grid=grid, causal=causal, cross=cross, takes_bias=False)
        check_heads("agent", q, self.num_heads)
        agents, real = self._agents(q, None if cross else mask, grid)
        dense = None if cross else grid
        to_keys, to_queries = self._bias(self.of_keys, dense, q), self._bias(self.of_queries, dense, q)
        if to_queries is not None:
            to_queries = to_queries.transpose(-1, -2)
        out = agent_attention(
            q, agents, k, v, mask=mask, agent_mask=real, bias_in=to_keys, bias_out=to_queries, backend=self.backend
        )
        if self.dwc is not None and dense is not None:
            out = out + self._convolved(v, mask, dense, self.dwc)
        if not need_weights:
            return out, None
        ask, read = agent_maps(q, agents, k, mask, real, to_keys, to_queries)
        return out, ask @ read

    def _agents(self, q: Tensor, mask: Tensor | None, grid: Grid | None) -> tuple[Tensor, Tensor]:
        """Means of the real queries of each bin [B, H, n, D], and which bins have one [B, n]."""
        wide = q.to(torch.promote_types(q.dtype, torch.float32))  # a bin's share of real ones leaves 16 bits
        values = torch.cat([wide, torch.ones_like(wide[..., :1])], dim=-1)
        if mask is not None:
            values = values * mask.to(wide.dtype)[:, None, :, None]
        if grid is None:
            means = bin_shares(q.shape[2], math.prod(self.pool), wide) @ values
        else:
            z, y, x = (bin_shares(size, count, wide) for size, count in zip(grid.shape_zyx, self.pool, strict=True))
            means = grid_sum(values.reshape(*values.shape[:2], *grid.shape_zyx, -1), (z, y, x)).flatten(2, 4)
        held = means[..., -1:]
        return (means[..., :-1] / held.masked_fill(held == 0, 1.0)).to(q.dtype), held[:, 0, :, 0] > 0

    def _bias(self, coarse: Tensor | None, grid: Grid | None, like: Tensor) -> Tensor | None:
        """[1, H, n, N] from [H, n, b, b, b]."""
        if coarse is None or grid is None:
            return None
        z, y, x = (linear_resize(size, coarse.shape[-1], like) for size in grid.shape_zyx)
        return grid_sum(coarse.to(like.dtype)[..., None], (z, y, x)).flatten(2)[None]

    def _convolved(self, v: Tensor, mask: Tensor | None, grid: Grid, layer: nn.Conv3d) -> Tensor:
        width = v.shape[1] * v.shape[3]
        if width != layer.out_channels:
            raise BlockInputError(
                "agent", "v", f"has {width} channels", f"made for {layer.out_channels}: or dwc: false"
            )
        if mask is not None:
            v = v.masked_fill(~mask[:, None, :, None], 0.0)
        bias = None if layer.bias is None else layer.bias.to(v.dtype)
        x = conv3d(grid.dense(v).flatten(1, 2), layer.weight.to(v.dtype), bias, padding=1, groups=width)
        return grid.flat(x.reshape(x.shape[0], v.shape[1], v.shape[3], *grid.shape_zyx))
