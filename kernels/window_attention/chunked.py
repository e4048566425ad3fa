"""Windows and neighbourhoods on the CPU: some tiles at a time, scores computed again in the backward.

Keys and values of a few tiles are copied together, `AT_ONCE` scores at a time, so that memory does not grow with N. A
window of more is worked on in parts, of `TILE` queries at least.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels.window_attention.pattern import CUT, WINDOW, Axis, Pattern, Triple, query_tile

__all__ = ["backward_chunked", "forward_chunked"]

AT_ONCE = 1 << 20  # scores: 4 MiB of float32
TILE = 64  # queries of a neighbourhood's tile, and the fewest that a large window is parted into


@dataclass(frozen=True)
class _Line:
    """One axis: [tiles, q] and [tiles, k] voxels (-1 outside the grid), [tiles, q, k] who sees whom and its offset."""

    queries: Tensor
    keys: Tensor
    seen: Tensor
    entry: Tensor


def _line(axis: Axis, kind: int, tile: int, box: int, reach: int, device: torch.device) -> _Line:
    phase = torch.arange(axis.step, device=device)[:, None, None]
    first = torch.arange(0, axis.steps, tile, device=device)[:, None]
    u = first + torch.arange(tile, device=device)

    def start(step: Tensor) -> Tensor:
        if kind == WINDOW:
            return (step // axis.window * axis.window - axis.back).expand(axis.step, *step.shape)
        if kind == CUT:
            return (step - axis.back).expand(axis.step, *step.shape)
        length = -((phase - axis.size) // axis.step)
        return torch.minimum(step - axis.back, length - axis.span).clamp_min(0)

    w = start(first) + torch.arange(box, device=device)  # [phases, tiles, box]
    apart = w[..., None, :] - start(u)[..., None]

    def voxels(step: Tensor) -> Tensor:
        found = step * axis.step + phase - axis.origin
        return torch.where((found >= 0) & (found < axis.size), found, -1).flatten(0, 1)

    queries, keys = voxels(u.expand(axis.step, *u.shape)), voxels(w)
    seen = ((apart >= 0) & (apart < axis.span)).flatten(0, 1) & (keys >= 0)[:, None] & (queries >= 0)[:, :, None]
    entry = (u[..., None] - w[..., None, :] + reach).clamp(0, 2 * reach).flatten(0, 1)
    return _Line(queries, keys, seen, entry)


@dataclass(frozen=True)
class _Tiles:
    """Some tiles: queries [C, Q] and keys [C, K] as voxels, real [C, Q], seen [C, Q, K], entries [C or 1, Q, K]."""

    queries: Tensor
    real: Tensor
    keys: Tensor
    seen: Tensor
    entry: Tensor | None


def _queries_together(pattern: Pattern, at_once: int) -> Triple:
    """A tile's steps: the window, or even parts of it where it has more than `at_once` scores."""
    tile = query_tile(pattern, TILE)
    keys = math.prod(pattern.box(tile))
    if pattern.kind != WINDOW or math.prod(tile) * keys <= at_once:
        return tile
    rows = max(TILE, at_once // keys)
    z, y, x = ([part for part in range(1, side + 1) if side % part == 0] for side in tile)
    # about so many: a side of a prime number has no parts but single steps. Long along x, where voxels lie together
    return min(product(z, y, x), key=lambda part: (abs(math.log(math.prod(part) / rows)), -part[2], -part[1]))


def _tiles(pattern: Pattern, at_once: int, device: torch.device, *, biased: bool) -> Iterator[_Tiles]:
    tile = _queries_together(pattern, at_once)
    sides = zip(pattern.axes, tile, pattern.box(tile), pattern.reach, strict=True)
    lines = [_line(axis, pattern.kind, t, box, reach, device) for axis, t, box, reach in sides]
    counts = [line.queries.shape[0] for line in lines]
    pairs = math.prod(line.seen.shape[1] * line.seen.shape[2] for line in lines)
    step = max(1, at_once // pairs)
    for start in range(0, math.prod(counts), step):
        number = torch.arange(start, min(start + step, math.prod(counts)), device=device)
        at = (number // (counts[1] * counts[2]), number // counts[2] % counts[1], number % counts[2])
        queries, real = _voxels([line.queries[i] for line, i in zip(lines, at, strict=True)], pattern.grid)
        keys, _ = _voxels([line.keys[i] for line, i in zip(lines, at, strict=True)], pattern.grid)
        z, y, x = (_of_pairs(line.seen[i], place) for place, (line, i) in enumerate(zip(lines, at, strict=True)))
        seen = (z & y & x).reshape(len(number), queries.shape[1], keys.shape[1])
        entry = None
        if biased:
            # keys lie alike around every tile, unless it is moved inside the grid or a part of a window
            alike = pattern.kind == CUT or tile == tuple(axis.window for axis in pattern.axes)
            some = tuple(i[:1] for i in at) if alike else at
            z, y, x = (_of_pairs(line.entry[i], p) for p, (line, i) in enumerate(zip(lines, some, strict=True)))
            flat = (z * pattern.offsets[1] + y) * pattern.offsets[2] + x
            entry = flat.reshape(len(some[0]), queries.shape[1], keys.shape[1])
        yield _Tiles(queries, real, keys, seen, entry)


def _voxels(axes: list[Tensor], grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Voxels along each axis [C, n] -> in the grid [C, n n n] (0 outside), and whether there is one."""
    z, y, x = axes[0][:, :, None, None], axes[1][:, None, :, None], axes[2][:, None, None, :]
    real = (z >= 0) & (y >= 0) & (x >= 0)
    return ((z * grid[1] + y) * grid[2] + x).masked_fill(~real, 0).flatten(1), real.flatten(1)


def _of_pairs(x: Tensor, place: int) -> Tensor:
    """[C, q, k] of one axis -> [C, q, q, q, k, k, k] with 1 for the others."""
    shape = [x.shape[0], 1, 1, 1, 1, 1, 1]
    shape[1 + place], shape[4 + place] = x.shape[1:]
    return x.reshape(shape)


class _Chunk:
    """The operands of some tiles, [B, H, C, places, width], in the type that is computed in."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: Tensor, tiles: _Tiles
    ):
        # float16 products are a hundred times slower than float32 ones on CPUs, bfloat16 scores too coarse
        self.kind = torch.float64 if q.dtype == torch.float64 else torch.float32
        self.tiles = tiles
        self.factor = scale.to(self.kind)[:, None, None, None]
        self.q, self.k, self.v = self.take(q, tiles.queries), self.take(k, tiles.keys), self.take(v, tiles.keys)
        self.bias = None if bias is None or tiles.entry is None else bias.to(self.kind)[:, tiles.entry]
        drop = ~tiles.seen[None, None]
        if mask is not None:
            drop = drop | ~mask[:, tiles.keys][:, None, :, None, :]
        self.drop = drop if drop.any() else None

    def take(self, x: Tensor, places: Tensor) -> Tensor:
        return torch.unflatten(x.index_select(2, places.flatten()), 2, places.shape).to(self.kind)

    def scores(self) -> Tensor:
        found = (self.q * self.factor) @ self.k.transpose(-1, -2)
        if self.bias is not None:
            found += self.bias
        return found if self.drop is None else found.masked_fill_(self.drop, float("-inf"))

    def put(self, into: Tensor, x: Tensor) -> None:
        """Queries' rows to where they belong."""
        real = self.tiles.real
        into[:, :, self.tiles.queries[real]] = x[:, :, real].to(into.dtype)

    def add(self, into: Tensor, x: Tensor) -> None:
        """Keys' rows to what is there; places outside the grid hold zero."""
        into.index_add_(2, self.tiles.keys.flatten(), x.flatten(2, 3))


def forward_chunked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: Tensor, pattern: Pattern
) -> tuple[Tensor, Tensor]:
    """The answer [B, H, N, E] and log-sum-exp [B H N]."""
    out = empty_heads(q, v.shape[3])
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    stat = q.new_empty(*q.shape[:3], 1, dtype=kind)
    for tiles in _tiles(pattern, AT_ONCE // (q.shape[0] * q.shape[1]), q.device, biased=bias is not None):
        one = _Chunk(q, k, v, mask, bias, scale, tiles)
        scores = one.scores()
        peak = scores.amax(-1, keepdim=True)
        peak.masked_fill_(torch.isneginf(peak), 0.0)
        found = scores.sub_(peak).exp_()
        total = found.sum(-1, keepdim=True)
        total.masked_fill_(total == 0, 1.0)
        one.put(out, (found @ one.v).div_(total))
        one.put(stat, peak + total.log_())
    return out, stat.flatten()


def backward_chunked(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: Tensor,
    out: Tensor, stat: Tensor, pattern: Pattern, *, bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of q, k, v, and of the bias where asked for."""
    dq = empty_heads(q, q.shape[3])
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    dk, dv = torch.zeros_like(k, dtype=kind), torch.zeros_like(v, dtype=kind)
    dbias = torch.zeros_like(bias, dtype=kind) if bias is not None and bias_grad else None
    level = stat.view(*q.shape[:3], 1)
    for tiles in _tiles(pattern, AT_ONCE // (q.shape[0] * q.shape[1]), q.device, biased=bias is not None):
        one = _Chunk(q, k, v, mask, bias, scale, tiles)
        found = one.scores().sub_(one.take(level, tiles.queries)).exp_()
        above = one.take(grad, tiles.queries)
        above = above.masked_fill_(~tiles.real[:, :, None], 0.0)
        balance = torch.linalg.vecdot(above, one.take(out, tiles.queries)).unsqueeze(-1)
        one.add(dv, found.transpose(-1, -2) @ above)
        steep = (above @ one.v.transpose(-1, -2)).sub_(balance).mul_(found)
        one.add(dk, steep.transpose(-1, -2) @ (one.q * one.factor))
        one.put(dq, steep @ one.k * one.factor)
        if dbias is not None and tiles.entry is not None:
            pairs = steep.sum((0, 2)) if tiles.entry.shape[0] == 1 else steep.sum(0)
            dbias.index_add_(1, tiles.entry.flatten(), pairs.flatten(1))
    return dq, dk.to(k.dtype), dv.to(v.dtype), None if dbias is None or bias is None else dbias.to(bias.dtype)
