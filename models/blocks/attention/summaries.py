"""Attention to the near blocks' tokens and to one summary of every other block, in one softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from petground.models.blocks.attention.grouping import Lattice, Tiles, in_chunks, lattice, near_places, tile
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.attention.windows import triple
from petground.models.blocks.contract import Grid, check_attention

__all__ = ["SummaryAttention"]

LONGEST = 8  # blocks a side whose queries share a table of near blocks


class SummaryAttention(nn.Module):
    """out_i = sum_{j near i} p_ij v_j + sum_{blocks R far from i} p_iR sum_{j in R} w_j v_j.

    p is one softmax over the scores q_i k_j / sqrt(D) of the near tokens and q_i k_R / sqrt(D) of the far blocks, and
    w = softmax over the block of q_R k_j / sqrt(D). Near are the blocks at most `near` blocks away along every axis; no
    token is counted twice. So every token has weight, p_ij or p_iR w_j, and a row sums to 1.

    - combiner (arXiv 2107.05768, section 4.1, fixed): near = 0; k_R and q_R are the block's largest (or mean) keys and
      queries, channel by channel (section 3.3); blocks of about sqrt(N) tokens: cost N sqrt(N) d.
    - core_context (CCA-Attention, arXiv 2412.12465v3, section 4): k_R = sum_j w_j k_j, the core token, q_R the query of
      the block's last token (causal) or the mean of its queries (else, as a volume has no last); near blocks stay
      tokens: N / g + s keys a query. g = 16 and s = 1024 in the paper.

    Args:
        channels: of all heads together.
        num_heads: heads.
        name: for errors.
        core: k_R is the weighted sum of keys, else it is pooled.
        block: voxels of a block (z, y, x) in a grid, 0 for the whole axis (a slab or a column); none: core 2, 2, 2,
            else about the square root of each side.
        block_tokens: tokens of a block in an order without a grid; 0: core 16, else about the root of their number.
        near: blocks to each side (z, y, x) that stay tokens in a grid; none: core 2, 2, 2 (1000 voxels), else no.
        near_tokens: the same without a grid, in tokens, rounded up to whole blocks; none: core 1024, else 0.
        near_mm: where given, the distance in mm takes the place of `near`, rounded up to whole blocks.
        pooling: of queries and of keys that are not weighted.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        *,
        name: str,
        core: bool,
        block: Sequence[int] | None = None,
        block_tokens: int = 0,
        near: Sequence[int] | None = None,
        near_tokens: int | None = None,
        near_mm: float | None = None,
        pooling: Literal["max", "mean"] = "mean",
    ):
        super().__init__()
        if min(block_tokens, near_tokens or 0, near_mm or 0) < 0:
            raise ValueError(
                f"block_tokens={block_tokens}, near_tokens={near_tokens}, near_mm={near_mm}: none negative"
            )
        self.name, self.core, self.pooling = name, core, pooling
        if core:
            block, near = (2, 2, 2) if block is None else block, (2, 2, 2) if near is None else near
            block_tokens, near_tokens = block_tokens or 16, 1024 if near_tokens is None else near_tokens
        self.block = None if block is None else triple("block", block, least=0)
        self.near = triple("near", (0, 0, 0) if near is None else near, least=0)
        self.block_tokens, self.near_tokens, self.near_mm = block_tokens, near_tokens or 0, near_mm

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
        """Q, k [B, H, N, D], v [B, H, N, E], mask [B, N] bool True = real -> [B, H, N, E] and the map [B, H, N, N]."""
        check_attention(
            self.name,
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
        out = self._out(q, k, v, mask, grid, causal)
        if not need_weights:
            return out, None
        unit = torch.eye(k.shape[2], dtype=v.dtype, device=v.device).expand(*k.shape[:2], -1, -1)
        return out, self._out(q, k, unit, mask, grid, causal)  # linear in v: applied to the unit vectors

    def sizes(self, shape: Lattice, grid: Grid | None) -> tuple[Lattice, Lattice]:
        """Tokens of a block and near blocks to each side, along z, y, x; grid None: of a line."""
        if grid is None:
            side = self.block_tokens or max(1, round(math.sqrt(shape[2])))
            return (1, 1, side), (0, 0, -(-self.near_tokens // side))
        roots = tuple(max(1, round(math.sqrt(n))) for n in shape)
        asked = roots if self.block is None else tuple(b or n for b, n in zip(self.block, shape, strict=True))
        size = tuple(min(b, n) for b, n in zip(asked, shape, strict=True))
        near = self.near
        if self.near_mm is not None:
            steps = (math.ceil(self.near_mm / (s * b)) for s, b in zip(grid.spacing_zyx_mm, size, strict=True))
            near = triple("near", tuple(steps), least=0)
        return triple("block", size), near

    def summaries(
        self, queries: Tensor, keys: Tensor, values: Tensor, real: Tensor, *, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """Blocks' queries, keys, values [B, H, G, g, D], real [B or 1, G, g] -> k_R and sum_j w_j v_j, [B, H, G, D]."""
        asking = _last(queries, real) if self.core and causal else self._pooled(queries, real)
        scores = (keys @ asking[..., None]).squeeze(-1) * queries.shape[-1] ** -0.5
        weights = masked_softmax(scores, real[:, None])[..., None, :]
        values = (weights @ values).squeeze(-2)
        return ((weights @ keys).squeeze(-2) if self.core else self._pooled(keys, real)), values

    def _pooled(self, x: Tensor, real: Tensor) -> Tensor:
        """[B, H, G, g, D] -> [B, H, G, D] over the real places; zero where there is none."""
        there = real[:, None, :, :, None]
        if self.pooling == "mean":
            return x.masked_fill(~there, 0.0).sum(dim=-2) / there.sum(dim=-2).clamp_min(1).to(x.dtype)
        return x.masked_fill(~there, float("-inf")).amax(dim=-2).masked_fill(~there.any(dim=-2), 0.0)

    def _out(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, grid: Grid | None, causal: bool) -> Tensor:
        shape = lattice(q.shape[2], grid, causal=causal)
        size, near = self.sizes(shape, None if causal else grid)
        blocks = tile(shape, size, device=q.device)
        real = blocks.real(mask)  # [B or 1, G, g]
        queries, keys, values = (blocks.split(one) for one in (q, k, v))  # [B, H, G, g, D]
        far_keys, far_values = self.summaries(queries, keys, values, real, causal=causal)  # [B, H, G, D]

        z, y, x = (min(n, count - 1) for n, count in zip(near, blocks.counts, strict=True))
        side = (min(max(z, 1), LONGEST), min(max(y, 1), LONGEST), min(max(x, 1), LONGEST))
        low, high = (z, y, x), ((0, 0, 0) if causal else (z, y, x))
        own = tile(blocks.counts, side, device=q.device)  # T tiles of l blocks whose queries share w near blocks
        wide = tile(blocks.counts, side, before=low, after=high, device=q.device)
        seen = near_places(side, low, causal=causal, device=q.device)  # [l, w] blocks
        there, places = real.any(dim=-1)[:, None, None, :], real.shape[-1]
        scale = q.shape[-1] ** -0.5

        def some(first: int, last: int) -> Tensor:
            asking, asked = own.rows(first, last), wide.rows(first, last)
            close_keep = self._close(blocks, asking, asked, seen & asked.inside[:, None, :], real, causal)
            far = _far(asking.members, blocks.counts, low, causal=causal)  # [T, l, G]
            far_keep = far.repeat_interleave(places, dim=1) & there  # [B or 1, T, l g, G]
            keep = torch.cat([close_keep, far_keep], dim=-1)[:, None]
            q_tiles = _gather(queries, asking) * scale  # [B, H, T, l g, D]
            close = q_tiles @ _gather(keys, asked).transpose(-1, -2)
            away = q_tiles @ far_keys[:, :, None].transpose(-1, -2)
            weights = masked_softmax(torch.cat([close, away], dim=-1), keep)
            to_tokens, to_blocks = weights[..., : close.shape[-1]], weights[..., close.shape[-1] :]
            out = to_tokens @ _gather(values, asked) + to_blocks @ far_values[:, :, None]
            return torch.unflatten(out, 3, (-1, places)).flatten(-2)  # [B, H, T, l, g E]

        count, together = own.members.shape
        each = q.shape[0] * q.shape[1] * together * places * (wide.members.shape[1] * places + real.shape[1])
        out = own.join(in_chunks(some, count, each))
        return blocks.join(torch.unflatten(out, -1, (places, -1)))

    @staticmethod
    def _close(blocks: Tiles, own: Tiles, wide: Tiles, seen: Tensor, real: Tensor, causal: bool) -> Tensor:
        """[B or 1, T, l g, w g] bool: which tokens of the near blocks a query sees."""
        places = real.shape[-1]
        tokens = seen[:, :, None, :, None].expand(-1, -1, places, -1, places)
        if causal:
            asking, asked = blocks.members[own.members], blocks.members[wide.members]
            tokens = tokens & (asked[:, None, None] <= asking[:, :, :, None, None])
        return tokens.flatten(3).flatten(1, 2) & real[:, wide.members].flatten(2)[:, :, None, :]


def _last(x: Tensor, real: Tensor) -> Tensor:
    """[B, H, G, g, D] -> [B, H, G, D]: each block's last real token."""
    place = (real * torch.arange(1, real.shape[-1] + 1, device=x.device)).argmax(dim=-1)  # [B or 1, G]
    place = place[:, None, :, None, None].expand(x.shape[0], x.shape[1], -1, 1, x.shape[-1])
    return x.gather(-2, place).squeeze(-2)


def _gather(x: Tensor, tiles: Tiles) -> Tensor:
    """Blocks [B, H, G, g, D] -> the tokens of the blocks of each tile, [B, H, T, places g, D]."""
    return torch.unflatten(tiles.split(x.flatten(-2)), -1, x.shape[-2:]).flatten(-3, -2)


def _far(members: Tensor, counts: Lattice, near: Lattice, *, causal: bool) -> Tensor:
    """Blocks [T, l] -> [T, l, G] bool: which blocks lie further than `near` away; causal: and before."""
    number = torch.arange(math.prod(counts), device=members.device)
    if causal:
        return members[..., None] - number > near[2]
    strides = (counts[1] * counts[2], counts[2], 1)
    far = torch.zeros(*members.shape, 1, dtype=torch.bool, device=members.device)
    for stride, count, reach in zip(strides, counts, near, strict=True):
        here, there = (torch.div(one, stride, rounding_mode="floor") % count for one in (members, number))
        far = far | ((here[..., None] - there).abs() > reach)
    return far
