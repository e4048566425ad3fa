"""Which voxels see which: windows (shifted, with a halo, of voxels some steps apart) and neighbourhoods, as numbers.

One rule along each axis makes all of them. Voxels `step` apart form a phase; within it voxel p + origin lies at step u
of a line. A query at u sees the keys from start(u) to start(u) + span - 1 of its own phase, where start(u) is

    windows         window * (u // window) - back           (back: the halo)
    neighbourhood   u - back, cut at the grid's ends        ("cut")
                    the same, moved inside the grid         ("slide", so that every query sees span keys)

Shifted windows begin before the grid instead of going around it: voxels from its two sides then lie in windows of
their own, which is what Swin's mask (arXiv 2103.14030, section 3.2) makes of its ring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

__all__ = [
    "CUT",
    "SLIDE",
    "WINDOW",
    "Axis",
    "Pattern",
    "Triple",
    "key_tile",
    "query_tile",
    "relative_box",
    "relative_pairs",
]

Triple = tuple[int, int, int]
WINDOW, CUT, SLIDE = 0, 1, 2


@dataclass(frozen=True)
class Axis:
    """One axis: `size` voxels; `window` is 0 for neighbourhoods. See the module for the rest."""

    size: int
    window: int
    span: int
    back: int
    step: int
    origin: int

    @property
    def steps(self) -> int:
        """Steps of a phase, those outside the grid included."""
        if not self.window:
            return -(-self.size // self.step)
        return -(-(self.size + self.origin) // (self.window * self.step)) * self.window

    def queries_of(self, kind: int, first: int, count: int) -> tuple[int, int]:
        """[low, high) of the queries that may see the keys from `first` on, `count` of them; not cut at the ends."""
        last = first + count - 1
        if kind == WINDOW:
            return (first - self.back) // self.window * self.window, (
                (last + self.back) // self.window + 1
            ) * self.window
        return first + self.back - self.span + 1, last + self.back + 1


@dataclass(frozen=True)
class Pattern:
    """The rule along z, y and x, and its kind: WINDOW, CUT or SLIDE."""

    kind: int
    axes: tuple[Axis, Axis, Axis]

    @classmethod
    def windows(cls, grid: Triple, window: Triple, shift: Triple, halo: Triple, interval: Triple) -> Pattern:
        """Windows of `window` voxels, `interval` apart, cut anew `shift` voxels further; keys reach `halo` further."""
        z, y, x = [
            Axis(n, w, w + 2 * h, h, i, -s % (w * i))
            for n, w, s, h, i in zip(grid, window, shift, halo, interval, strict=True)
        ]
        return cls(WINDOW, (z, y, x))

    @classmethod
    def neighbours(cls, grid: Triple, size: Triple, dilation: Triple, *, slide: bool) -> Pattern:
        """The `size` voxels around each, `dilation` apart; an even size has one more before than behind."""
        z, y, x = [Axis(n, 0, k, k // 2, i, 0) for n, k, i in zip(grid, size, dilation, strict=True)]
        return cls(SLIDE if slide else CUT, (z, y, x))

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Pattern:
        """From `numbers()`."""
        z, y, x = (Axis(*numbers[at : at + 6]) for at in (1, 7, 13))
        return cls(numbers[0], (z, y, x))

    def numbers(self) -> list[int]:
        """What an operator of PyTorch can take."""
        parts = [[a.size, a.window, a.span, a.back, a.step, a.origin] for a in self.axes]
        return [self.kind, *parts[0], *parts[1], *parts[2]]

    @property
    def grid(self) -> Triple:
        z, y, x = [axis.size for axis in self.axes]
        return z, y, x

    @property
    def reach(self) -> Triple:
        """The farthest that a query sees along each axis, in steps: the bias has 2 reach + 1 entries an axis."""
        z, y, x = [a.span - 1 if self.kind == SLIDE else max(a.back, a.span - 1 - a.back) for a in self.axes]
        return z, y, x

    @property
    def offsets(self) -> Triple:
        """Entries of the bias along each axis."""
        z, y, x = [2 * r + 1 for r in self.reach]
        return z, y, x

    @property
    def phases(self) -> int:
        return math.prod(axis.step for axis in self.axes)

    def tiles(self, tile: Triple) -> Triple:
        """How many of `tile` steps there are along each axis of a phase."""
        z, y, x = (-(-axis.steps // t) for axis, t in zip(self.axes, tile, strict=True))
        return z, y, x

    def box(self, tile: Triple) -> Triple:
        """The most keys that the queries of a tile see along each axis."""
        z, y, x = (a.span if self.kind == WINDOW else t + a.span - 1 for a, t in zip(self.axes, tile, strict=True))
        return z, y, x


def relative_box(pattern: Pattern, tile: Triple) -> tuple[Triple, Triple]:
    """(steps before a tile, box): keys of all its queries, at the same places relative to it wherever it lies."""
    if pattern.kind != SLIDE:
        z, y, x = (axis.back for axis in pattern.axes)
        return (z, y, x), pattern.box(tile)
    # where neighbourhoods slide at the ends, their keys lie up to span - 1 steps to either side
    z, y, x = (axis.span - 1 for axis in pattern.axes)
    width_z, width_y, width_x = (b + axis.span - 1 for b, axis in zip(pattern.box(tile), pattern.axes, strict=True))
    return (z, y, x), (width_z, width_y, width_x)


def relative_pairs(pattern: Pattern) -> int:
    """Queries of a tile times its `relative_box`: of a window, or of 64 voxels whose neighbourhoods go together.

    These count as a cube, which `query_tile` nearly gives: its search is not for a compiler of graphs to trace.
    """
    z, y, x = (axis.window or 4 for axis in pattern.axes)
    return z * y * x * math.prod(relative_box(pattern, (z, y, x))[1])


@lru_cache(maxsize=256)
def query_tile(pattern: Pattern, rows: int) -> Triple:
    """Steps that are worked on together: the window, or for neighbourhoods about a cube of up to `rows` voxels."""
    if pattern.kind == WINDOW:
        z, y, x = (axis.window for axis in pattern.axes)
        return z, y, x

    def cost(tile: Triple) -> tuple[int, int]:
        reached = (min(axis.steps, n) for axis, n in zip(pattern.axes, pattern.box(tile), strict=True))
        return math.prod(pattern.tiles(tile)) * math.prod(reached), -tile[2]

    return min(_tiles(pattern, rows), key=cost)


@lru_cache(maxsize=256)
def key_tile(pattern: Pattern, cols: int) -> Triple:
    """Steps whose keys are finished together: the window, or as near to a block as can be."""
    if pattern.kind == WINDOW and not any(axis.back for axis in pattern.axes):
        return query_tile(pattern, cols)

    def cost(tile: Triple) -> tuple[int, int]:
        work = cols  # a tile takes a whole block, however few its steps
        for axis, t in zip(pattern.axes, tile, strict=True):
            spans = (axis.queries_of(pattern.kind, first, t) for first in range(0, min(axis.steps, 32 * t), t))
            seen = [min(high, axis.steps) - max(low, 0) for low, high in spans]
            work *= -(-axis.steps // t) * -(-sum(seen) // len(seen))
        return work, -tile[2]

    return min(_tiles(pattern, cols), key=cost)


def _tiles(pattern: Pattern, most: int) -> list[Triple]:
    """Tiles of up to `most` steps, powers of two along each axis and no longer than it needs; not below a quarter."""
    sides = []
    for axis in pattern.axes:
        longest = axis.window or axis.steps
        sides.append([t for t in (1 << n for n in range(11)) if t < 2 * longest and t <= most])
    every: list[Triple] = [(z, y, x) for z, y, x in product(*sides) if z * y * x <= most]
    largest = max(math.prod(tile) for tile in every)
    return [tile for tile in every if 4 * math.prod(tile) >= largest]
