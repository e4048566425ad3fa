"""Tokens in tiles: index tables of a grid's blocks and their surroundings, and softmax attention within a box.

Everything here works on a lattice (z, y, x). Without a grid tokens lie in a line, (1, 1, N), in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from petground.kernels.sdpa import masked_sdpa
from petground.kernels.window_attention import neighbourhood_attention
from petground.models.blocks.chunks import by_rows
from petground.models.blocks.contract import BlockInputError, Grid

__all__ = [
    "BoxBackend",
    "Lattice",
    "Tiles",
    "box_attention",
    "box_by_kernel",
    "in_chunks",
    "lattice",
    "near_places",
    "tile",
]

Lattice = tuple[int, int, int]
BoxBackend = Literal["auto", "chunked", "reference", "triton"]

AT_ONCE = 1 << 25  # numbers: 128 MiB in single precision
LINE_TILE, VOLUME_TILE = 256, 8  # tokens a side: bounds the table of who is near whom inside a tile


@dataclass(frozen=True, eq=False)
class Tiles:
    """A lattice cut into T tiles of L places, which may overlap and reach over its ends.

    members: [T, L] the token at a place, any token where there is none. inside: [T, L] bool, False where there is none.
    home: [N] which of the T * L places is a token's own. counts: tiles along each axis.
    """

    members: Tensor
    inside: Tensor
    home: Tensor
    counts: Lattice

    def split(self, x: Tensor) -> Tensor:
        """[..., N, C] -> [..., T, L, C]; places outside hold some token: mask them."""
        return torch.unflatten(x.index_select(-2, self.members.flatten()), -2, self.members.shape)

    def join(self, x: Tensor) -> Tensor:
        """[..., T, L, C] -> [..., N, C]: each token from its own place."""
        return x.flatten(-3, -2).index_select(-2, self.home)

    def rows(self, first: int, last: int) -> Tiles:
        """Some of the tiles; not to be joined."""
        return Tiles(self.members[first:last], self.inside[first:last], self.home, self.counts)

    def real(self, mask: Tensor | None) -> Tensor:
        """[B, N] bool or None -> [B or 1, T, L]: the places that hold a real token."""
        if mask is None:
            return self.inside[None]
        real = mask.index_select(1, self.members.flatten())
        return torch.unflatten(real, 1, self.members.shape) & self.inside


def lattice(count: int, grid: Grid | None, *, causal: bool = False) -> Lattice:
    """The grid's shape; a line of `count` tokens without one, and for the causal pattern, which knows an order only."""
    return (1, 1, count) if grid is None or causal else grid.shape_zyx


def tile(
    shape: Lattice,
    size: Lattice,
    *,
    before: Lattice = (0, 0, 0),
    after: Lattice = (0, 0, 0),
    device: torch.device | None = None,
) -> Tiles:
    """Cuts `shape` into tiles of `size`, each of which reaches `before` and `after` further along the axes."""
    places, inside, home_tile, home_place = [], [], [], []
    for n, side, low, high in zip(shape, size, before, after, strict=True):
        at = torch.arange(0, n, side, device=device)[:, None] + torch.arange(-low, side + high, device=device)
        places.append(at.clamp(0, n - 1))
        inside.append((at >= 0) & (at < n))
        own = torch.arange(n, device=device)
        home_tile.append(torch.div(own, side, rounding_mode="floor"))
        home_place.append(own % side + low)
    counts, spans = [one.shape[0] for one in places], [one.shape[1] for one in places]
    table = (math.prod(counts), math.prod(spans))
    z, y, x = _spread(places)
    members = ((z * shape[1] + y) * shape[2] + x).reshape(table)
    z, y, x = _spread(inside)
    there = (z & y & x).reshape(table)
    home = _raster(home_tile, counts) * table[1] + _raster(home_place, spans)
    return Tiles(members, there, home, (counts[0], counts[1], counts[2]))


def _spread(axes: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """[tiles, places] of each axis, to be combined into [tiles z, y, x, places z, y, x]."""
    z, y, x = axes
    return z[:, None, None, :, None, None], y[None, :, None, None, :, None], x[None, None, :, None, None, :]


def _raster(axes: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Index along each axis -> index of every combination in raster order of an array of `sizes`, flat."""
    z, y, x = axes
    return ((z[:, None, None] * sizes[1] + y[None, :, None]) * sizes[2] + x[None, None, :]).flatten()


def in_chunks(compute: Callable[[int, int], Tensor], count: int, each: int, dim: int = 2) -> Tensor:
    """`by_rows` of compute(first, last), last - first long along axis `dim`, about AT_ONCE numbers at a time.

    each: numbers that one makes.
    """
    return by_rows(compute, count, max(1, AT_ONCE // each), dim)


def box_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shape: Lattice,
    radius: Lattice,
    *,
    mask: Tensor | None = None,
    sinks: int = 0,
    causal: bool = False,
    block: str = "box",
    backend: BoxBackend = "auto",
) -> Tensor:
    """Softmax attention of each token to the tokens of the box around it, and to the first `sinks` tokens.

    The box reaches `radius` tokens to either side along each axis, cut at the lattice's ends; causal (a line only): to
    the token itself and `radius` tokens before it, and to the sinks before it. Q, k [B, H, N, D], v [B, H, N, E],
    mask [B, N] bool -> [B, H, N, E]. Looks at N (tile + 2 radius)^3 pairs, tiles about as long as the radius: not at
    N x N unless the boxes cover the lattice; and holds some tiles at a time. backend: of `box_by_kernel`, which knows
    no sinks and no order: with those one by name is refused, and `block` is who asked. "auto" takes tiles on the CPU.
    """
    count = q.shape[2]
    sinks = min(sinks, count)
    reach = tuple(min(r, n - 1) for r, n in zip(radius, shape, strict=True))
    if backend != "auto" and (sinks or causal):
        what = f"is {backend}, but the kernels have no sinks and no order"
        raise BlockInputError(block, "backend", what, "leave it at auto, or give sinks: 0 and no causal pattern")
    if backend == "auto" and all(r == n - 1 for r, n in zip(reach, shape, strict=True)):
        return masked_sdpa(q, k, v, None if mask is None else mask[:, None, None, :], causal=causal)
    if backend != "auto" or (q.device.type != "cpu" and not sinks and not causal):
        return box_by_kernel(q, k, v, shape, (reach[0], reach[1], reach[2]), mask, backend)
    longest = LINE_TILE if shape[0] == shape[1] == 1 else VOLUME_TILE
    z, y, x = (min(max(r, 1), longest) for r in reach)
    size, low = (z, y, x), (reach[0], reach[1], reach[2])
    high = (0, 0, 0) if causal else low
    queries = tile(shape, size, device=q.device)
    keys = tile(shape, size, before=low, after=high, device=q.device)
    near = near_places(size, low, causal=causal, device=q.device)

    def some(first: int, last: int) -> Tensor:
        own, wide = queries.rows(first, last), keys.rows(first, last)
        asking, asked, values = own.split(q), wide.split(k), wide.split(v)
        keep = near & (wide.real(mask) & (wide.members >= sinks))[:, :, None, :]  # [B or 1, T, L, K]
        if sinks:
            keep = torch.cat([keep, _sinks_seen(own.members, sinks, mask, keep.shape[0], causal)], dim=-1)
            asked, values = _with_first(asked, k, sinks), _with_first(values, v, sinks)
        keep = keep.expand(q.shape[0], -1, -1, -1).flatten(0, 1)[:, None]
        out = masked_sdpa(_as_batch(asking), _as_batch(asked), _as_batch(values), keep)
        return torch.unflatten(out, 0, (q.shape[0], -1)).transpose(1, 2)

    count, span = keys.members.shape
    each = q.shape[0] * span * (q.shape[1] * (q.shape[3] + v.shape[3]) + near.shape[0])
    return queries.join(in_chunks(some, count, each))


def box_by_kernel(
    q: Tensor, k: Tensor, v: Tensor, shape: Lattice, reach: Lattice, mask: Tensor | None, backend: BoxBackend = "auto"
) -> Tensor:
    """`box_attention` without sinks and order by the kernels, which copy nothing into tiles."""
    return neighbourhood_attention(
        q, k, v, grid=shape, size=[2 * r + 1 for r in reach], edges="cut", mask=mask, backend=backend
    )


def _as_batch(x: Tensor) -> Tensor:
    """[B, H, T, L, C] -> [B T, H, L, C]."""
    return x.transpose(1, 2).flatten(0, 1)


def _with_first(tiles: Tensor, x: Tensor, sinks: int) -> Tensor:
    """[B, H, T, K, C] and tokens [B, H, N, C] -> [B, H, T, K + sinks, C]: the first tokens beside each tile's own."""
    first = x[:, :, None, :sinks].expand(-1, -1, tiles.shape[2], -1, -1)
    return torch.cat([tiles, first], dim=-2)


def near_places(size: Lattice, low: Lattice, *, causal: bool, device: torch.device) -> Tensor:
    """[L, K] bool: which places of a widened tile lie in the box around a place of the tile."""
    axes = []
    for side, reach in zip(size, low, strict=True):
        span = side + (reach if causal else 2 * reach)
        apart = torch.arange(span, device=device) - reach - torch.arange(side, device=device)[:, None]
        axes.append((apart >= -reach) & (apart <= (0 if causal else reach)))
    z, y, x = _spread(axes)
    return (z & y & x).reshape(math.prod(size), -1)


def _sinks_seen(members: Tensor, sinks: int, mask: Tensor | None, batch: int, causal: bool) -> Tensor:
    """[B or 1, T, L, S] bool: the first tokens that a place sees."""
    first = torch.arange(sinks, device=members.device)
    seen = first <= members[..., None] if causal else torch.ones_like(members[..., None] + first, dtype=torch.bool)
    if mask is None:
        return seen.expand(batch, -1, -1, -1)
    return seen & mask[:, None, None, :sinks]
