"""Landmark attention: one softmax over a query's own block and the landmarks of others, which gate their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from petground.models.blocks.attention.grouping import in_chunks, lattice, tile
from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.attention.windows import triple
from petground.models.blocks.contract import Grid, check_attention

__all__ = ["LandmarkAttention"]


class LandmarkAttention(nn.Module):
    """Grouped softmax over blocks b of tokens (Landmark Attention, arXiv 2305.16300, section 3.1, equations 1 to 4).

    For query i in block b(i): one softmax p over {s_ij: j in b(i)} and {q_i l_c / sqrt(D): blocks c that it fetches};
    token j of its own block weighs p_ij, token j of a fetched block c p_ic softmax_c(s_i)_j, with s = q k^T / sqrt(D).
    Landmarks have no value of their own, and the own block's landmark is not asked. The `top_k` blocks of the largest
    q_i l_c are fetched (section 3.2); all of them: the form of training.

    A landmark is a token of the sequence in the paper. Here no such token runs along: the landmark of block c is what a
    learned query u_h reads from keys, l_c = sum_j softmax_c(u_h k / sqrt(D))_j k_j; u = 0, the start, gives their mean.

    Args:
        channels: of all heads together.
        num_heads: heads.
        block: voxels of a block (z, y, x) in a grid, 0 for the whole axis.
        block_tokens: tokens of a block in an order without a grid.
        top_k: blocks that a query fetches besides its own, for each head apart.
        retrieval: "block": all queries of a block fetch the same blocks, by their largest score (the paper's table of
            granularity); memory top_k times the keys'. "token": each query its own; memory N top_k block D. The
            causal pattern is by token: a later query must not choose for an earlier one.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        *,
        block: Sequence[int] = (4, 4, 4),
        block_tokens: int = 50,
        top_k: int = 4,
        retrieval: Literal["block", "token"] = "block",
    ):
        super().__init__()
        if top_k < 0 or block_tokens < 1:
            raise ValueError(f"top_k={top_k}, block_tokens={block_tokens}: not negative, at least 1")
        self.num_heads, self.head_channels = num_heads, channels // num_heads
        self.block, self.block_tokens = triple("block", block, least=0), block_tokens
        self.top_k, self.retrieval = top_k, retrieval
        self.reader = nn.Parameter(torch.zeros(num_heads, channels // num_heads))

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
            "landmark",
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
        check_heads("landmark", q, self.num_heads, self.head_channels)
        out = self._out(q, k, v, mask, grid, causal)
        if not need_weights:
            return out, None
        unit = torch.eye(k.shape[2], dtype=v.dtype, device=v.device).expand(*k.shape[:2], -1, -1)
        return out, self._out(q, k, unit, mask, grid, causal)  # linear in v: applied to the unit vectors

    def _out(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, grid: Grid | None, causal: bool) -> Tensor:
        shape = lattice(q.shape[2], grid, causal=causal)
        asked = (1, 1, self.block_tokens) if grid is None or causal else self.block
        z, y, x = (min(b or n, n) for b, n in zip(asked, shape, strict=True))
        blocks = tile(shape, (z, y, x), device=q.device)
        real = blocks.real(mask)  # [B or 1, G, L]
        count, places = real.shape[1:]
        asking, keys, values = blocks.split(q) * q.shape[-1] ** -0.5, blocks.split(k), blocks.split(v)

        reading = (keys @ self.reader.to(k.dtype)[:, None, :, None]).squeeze(-1) * q.shape[-1] ** -0.5
        landmarks = (masked_softmax(reading, real[:, None])[..., None, :] @ keys).squeeze(-2)  # [B, H, G, D]
        top = min(self.top_k, count - 1)
        rows = 1 if self.retrieval == "block" and not causal else places

        def some(first: int, last: int) -> Tensor:
            return _read(asking, keys, values, landmarks, real, (first, last), (top, rows), causal=causal)

        each = q.shape[0] * q.shape[1] * places * (count + (top + 1) * places + top * rows * (q.shape[3] + v.shape[3]))
        return blocks.join(in_chunks(some, count, each))


def _read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    landmarks: Tensor,
    real: Tensor,
    blocks: tuple[int, int],
    fetch: tuple[int, int],
    *,
    causal: bool,
) -> Tensor:
    """What the queries of blocks first to last read, [B, H, n, L, E], of q, k, v [B, H, G, L, D], q scaled.

    Landmarks [B, H, G, D], real [B or 1, G, L]; fetch: blocks a query fetches, and for how many rows of a block apart.
    """
    (first, last), (top, rows) = blocks, fetch
    count, places = real.shape[1:]
    asking, there = q[:, :, first:last], real[:, first:last]
    own = asking @ k[:, :, first:last].transpose(-1, -2)  # [B, H, n, L, L]
    own_keep = there[:, None, :, None, :]
    if causal:
        own_keep = own_keep & torch.ones(places, places, dtype=torch.bool, device=q.device).tril()
    if not top:
        return masked_softmax(own, own_keep) @ v[:, :, first:last]
    number = torch.arange(count, device=q.device)
    mine = number[first:last, None]
    other = mine > number if causal else mine != number
    open_ = (other & real.any(dim=-1)[:, None, :])[:, None, :, None, :]  # [B or 1, 1, n, 1, G]
    gates = asking @ landmarks[:, :, None].transpose(-1, -2)  # [B, H, n, L, G]
    fetched = _choose(gates, open_, there, top, rows)  # [B, H, n, R, top]
    each = fetched.expand(-1, -1, -1, places, -1)
    group = torch.cat([own, gates.gather(-1, each)], dim=-1)
    keep = torch.cat([own_keep.expand(own.shape), open_.expand(gates.shape).gather(-1, each)], dim=-1)
    weights = masked_softmax(group, keep)
    to_tokens, to_blocks = weights[..., :places], weights[..., places:]

    far_keys, far_values = _fetch(k, fetched), _fetch(v, fetched)  # [B, H, n, R, top, L, D]
    far_real = _fetch(real[:, None, :, :, None].expand(*q.shape[:2], -1, -1, -1), fetched).squeeze(-1)
    grouped = torch.unflatten(asking, 3, (rows, -1))[:, :, :, :, None]  # [B, H, n, R, 1, L / R, D]
    inside = masked_softmax(grouped @ far_keys.transpose(-1, -2), far_real[..., None, :])  # [.., top, L / R, L]
    share = torch.unflatten(to_blocks, 3, (rows, -1)).transpose(-1, -2)[..., None]
    far = (share * (inside @ far_values)).sum(dim=4).flatten(3, 4)
    return to_tokens @ v[:, :, first:last] + far


def _choose(gates: Tensor, open_: Tensor, real: Tensor, top: int, rows: int) -> Tensor:
    """The blocks of the largest gates [B, H, G, L, G]: [B, H, G, R, top], R = 1 for all queries of a block."""
    scores = gates.detach().masked_fill(~open_, float("-inf"))
    if rows == 1:  # a padded query must not choose for the others
        scores = scores.masked_fill(~real[:, None, :, :, None], float("-inf")).amax(dim=3, keepdim=True)
    return scores.topk(top, dim=-1).indices


def _fetch(x: Tensor, chosen: Tensor) -> Tensor:
    """Blocks [B, H, G, L, D] by numbers [B, H, ...] -> [B, H, ..., L, D]."""
    index = chosen.flatten(2)[..., None].expand(-1, -1, -1, x.shape[-2] * x.shape[-1])
    fetched = torch.unflatten(x.flatten(-2).gather(2, index), -1, x.shape[-2:])
    return torch.unflatten(fetched, 2, chosen.shape[2:])
