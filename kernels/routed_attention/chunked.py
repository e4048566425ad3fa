"""Routed attention on the CPU: some regions at a time, scores computed again in the backward.

Keys and values of a few lists are copied together, `AT_ONCE` scores at a time, so that memory does not grow with N. A
region of more is worked on in parts, of `ROWS` queries at least.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels.routed_attention.regions import Regions

__all__ = ["backward_chunked", "forward_chunked"]

AT_ONCE = 1 << 20  # scores: 4 MiB of float32
ROWS = 64  # the fewest queries that a large region is parted into


class _Whole:
    """The operands as rows [B H N, width] in the type that is computed in, and which rows the regions hold."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, mask: Tensor | None, scale: Tensor, regions: Regions
    ):
        # float16 products are a hundred times slower than float32 ones on CPUs, bfloat16 scores too coarse
        self.kind = torch.float64 if q.dtype == torch.float64 else torch.float32
        self.shape = q.shape[:3]
        self.q, self.k, self.v = self.flat(q), self.flat(k), self.flat(v)
        self.factor = scale.to(self.kind)[:, None, None, None]
        self.places = regions.voxels(q.device)
        self.mask = q.new_ones(q.shape[0], q.shape[2], dtype=torch.bool) if mask is None else mask
        self.table = table.long().expand(-1, q.shape[1], -1, -1)
        heads = torch.arange(q.shape[0] * q.shape[1], device=q.device).reshape(q.shape[0], q.shape[1], 1, 1)
        self.first = heads * q.shape[2]  # the row where a head begins
        rows = AT_ONCE // (q.shape[0] * q.shape[1] * self.table.shape[3] * regions.each)  # queries at a time
        self.step, self.rows = max(1, rows // regions.each), min(max(ROWS, rows), regions.each)

    def flat(self, x: Tensor) -> Tensor:
        return x.to(self.kind).reshape(-1, x.shape[-1])

    def chunks(self) -> Iterator[_Chunk]:
        for first in range(0, self.places.shape[0], self.step):
            for row in range(0, self.places.shape[1], self.rows):
                yield _Chunk(self, slice(first, first + self.step), slice(row, row + self.rows))


class _Chunk:
    """Some regions: some of their queries' rows [B, H, C, R] and all keys', and operands [B, H, C, rows, width]."""

    def __init__(self, whole: _Whole, some: slice, rows: slice):
        own = whole.places[some, rows]
        self.real = own >= 0
        self.asking = whole.first + own.clamp_min(0)
        table = whole.table[:, :, some]
        listed = whole.places[table.clamp_min(0)].masked_fill(table[..., None] < 0, -1).flatten(3)
        there = listed >= 0
        listed = listed.clamp_min(0)
        self.asked = whole.first + listed
        entry = torch.arange(listed.shape[0], device=listed.device)[:, None, None, None]
        self.drop = ~(there & whole.mask[entry, listed])[..., None, :]
        self.scaled = whole.q[self.asking] * whole.factor
        self.k, self.v = whole.k[self.asked], whole.v[self.asked]

    def scores(self) -> Tensor:
        return (self.scaled @ self.k.transpose(-1, -2)).masked_fill_(self.drop, float("-inf"))

    def put(self, into: Tensor, x: Tensor) -> None:
        """Queries' rows to where they belong in rows [B H N, width]."""
        into[self.asking[:, :, self.real]] = x[:, :, self.real]

    def add(self, into: Tensor, x: Tensor) -> None:
        """Keys' rows to what is there; places outside the grid hold zero."""
        into.index_add_(0, self.asked.flatten(), x.flatten(0, 3))


def forward_chunked(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, mask: Tensor | None, scale: Tensor, regions: Regions
) -> tuple[Tensor, Tensor]:
    """The answer [B, H, N, E] and log-sum-exp [B H N]."""
    whole = _Whole(q, k, v, table, mask, scale, regions)
    out, stat = torch.empty_like(whole.v), whole.q.new_empty(whole.q.shape[0], 1)
    for one in whole.chunks():
        scores = one.scores()
        peak = scores.amax(-1, keepdim=True)
        peak.masked_fill_(torch.isneginf(peak), 0.0)
        found = scores.sub_(peak).exp_()
        total = found.sum(-1, keepdim=True)
        total.masked_fill_(total == 0, 1.0)
        one.put(out, (found @ one.v).div_(total))
        one.put(stat, peak + total.log_())
    return _heads(out, q, v.shape[3]), stat.flatten()


def backward_chunked(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, mask: Tensor | None, scale: Tensor,
    out: Tensor, stat: Tensor, regions: Regions,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v."""
    whole = _Whole(q, k, v, table, mask, scale, regions)
    dq, dk, dv = torch.empty_like(whole.q), torch.zeros_like(whole.k), torch.zeros_like(whole.v)
    above, answer = whole.flat(grad), whole.flat(out)
    for one in whole.chunks():
        found = one.scores().sub_(stat[one.asking].unsqueeze(-1)).exp_()
        given = above[one.asking].masked_fill_(~one.real[:, :, None], 0.0)
        balance = torch.linalg.vecdot(given, answer[one.asking]).unsqueeze(-1)
        one.add(dv, found.transpose(-1, -2) @ given)
        steep = (given @ one.v.transpose(-1, -2)).sub_(balance).mul_(found)
        one.add(dk, steep.transpose(-1, -2) @ one.scaled)
        one.put(dq, steep @ one.k * whole.factor)
    return _heads(dq, q, q.shape[3]), _heads(dk, k, k.shape[3]), _heads(dv, v, v.shape[3])


def _heads(rows: Tensor, like: Tensor, width: int) -> Tensor:
    return empty_heads(like, width).copy_(rows.view(*like.shape[:3], width))
