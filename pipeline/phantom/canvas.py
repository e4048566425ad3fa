"""Painting shapes onto a grid: ellipsoids, tubes and plates with soft edges, each within its own bounding box.

The phantom's anatomy is told once, in the millimetres of a standard person 175 cm tall ("standard space": x to the
right, y to the front, z to the head with the vertex at 0). A canvas knows where each of its voxel centres lies in
standard space, so one list of shapes fits every patient and every grid, and no transform is applied to the shapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Canvas", "Shape", "capsule", "ellipsoid", "paint", "slab", "tube", "worm"]

Array = NDArray[np.float32]
Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Canvas:
    """A grid under the brush; arrays are [K, J, I] so that their transposes are stored as NIfTI stores them.

    x, y, z: standard-space millimetres of the voxel centres along I, J, K (any direction). value: what is imaged
    (HU or SUV). organ: index into `names` of what lies in each voxel. table: organ -> value. moved: how far the organs
    that ride on the diaphragm lie below their painted place in this image [mm].
    """

    x: Array
    y: Array
    z: Array
    value: Array
    organ: NDArray[np.uint8]
    names: tuple[str, ...]
    table: Mapping[str, float]
    moved: float = 0.0

    @property
    def voxel_mm(self) -> float:
        return float(np.mean([abs(axis[1] - axis[0]) for axis in (self.x, self.y, self.z)]))

    def is_in(self, organs: Iterable[str]) -> NDArray[np.bool_]:
        """[K, J, I]: which voxels belong to one of `organs`."""
        lookup = np.zeros(256, dtype=bool)
        lookup[[self.names.index(organ) for organ in organs]] = True
        return lookup[self.organ]


@dataclass(frozen=True)
class Shape:
    """One organ or a part of it, in standard space.

    kind: "ellipsoid" (rows of `frame` scale and turn to the unit sphere), "slab" (the same with flat ends along its
    third axis) or "capsule" (`centre` to `end` with `radius`). over: organs it may cover, None for all. motion: share
    of the diaphragm's breathing shift it takes part in. lumps: relative height of the bumps on its surface.
    """

    organ: str
    kind: str
    centre: Point
    frame: tuple[Point, Point, Point] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    end: Point = (0.0, 0.0, 0.0)
    radius: float = 0.0
    reach: Point = (0.0, 0.0, 0.0)
    over: frozenset[str] | None = None
    motion: float = 0.0
    lumps: float = 0.0
    phase: float = 0.0


def rotation(about_x: float, about_y: float, about_z: float) -> NDArray[np.float64]:
    """Turns in degrees, applied in the order x, y, z (right-handed)."""
    a, b, c = np.deg2rad([about_x, about_y, about_z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def ellipsoid(
    organ: str,
    centre: Point,
    semi_xyz_mm: Point,
    turn_deg: Point = (0, 0, 0),
    *,
    over: Iterable[str] | None = None,
    motion: float = 0.0,
    lumps: float = 0.0,
    phase: float = 0.0,
    kind: str = "ellipsoid",
) -> Shape:
    """An ellipsoid with half-axes `semi_xyz_mm`, turned about its centre."""
    turn = rotation(*turn_deg)
    frame = turn.T / np.asarray(semi_xyz_mm)[:, None]
    reach = np.sqrt((turn**2) @ (np.asarray(semi_xyz_mm, dtype=float) ** 2)) * (1 + lumps)
    if kind == "slab":
        reach = np.abs(turn) @ np.asarray(semi_xyz_mm, dtype=float)
    return Shape(
        organ,
        kind,
        _point(centre),
        frame=(_point(frame[0]), _point(frame[1]), _point(frame[2])),
        radius=float(np.prod(semi_xyz_mm) ** (1 / 3)),
        reach=_point(reach),
        over=None if over is None else frozenset(over),
        motion=motion,
        lumps=lumps,
        phase=phase,
    )


def slab(organ: str, centre: Point, semi_xyz_mm: Point, turn_deg: Point = (0, 0, 0), **options: object) -> Shape:
    """An elliptic cylinder: round in its first two axes, flat at both ends of the third."""
    return ellipsoid(organ, centre, semi_xyz_mm, turn_deg, kind="slab", **options)  # type: ignore[arg-type]


def capsule(
    organ: str,
    start: Point,
    end: Point,
    radius_mm: float,
    *,
    over: Iterable[str] | None = None,
    motion: float = 0.0,
) -> Shape:
    """A straight tube with round ends."""
    return Shape(
        organ,
        "capsule",
        _point(start),
        end=_point(end),
        radius=radius_mm,
        over=None if over is None else frozenset(over),
        motion=motion,
    )


def tube(organ: str, points: Iterable[Point], radius_mm: float, **options: object) -> list[Shape]:
    """Capsules from point to point."""
    path = [_point(p) for p in points]
    return [capsule(organ, a, b, radius_mm, **options) for a, b in itertools.pairwise(path)]  # type: ignore[arg-type]


def worm(rng: np.random.Generator, points: Iterable[Point], wobble_mm: float) -> list[Point]:
    """The path with a point put between each two and every inner point pushed about: nothing in a body is straight."""
    path = np.asarray(list(points), dtype=float)
    fine = np.empty((2 * len(path) - 1, 3))
    fine[::2] = path
    fine[1::2] = (path[:-1] + path[1:]) / 2
    fine[1:-1] += rng.normal(0.0, wobble_mm, (len(fine) - 2, 3))
    return [_point(p) for p in fine]


def mirrored(shape: Shape, organ: str | None = None) -> Shape:
    """The same shape on the other side of the midline plane x = 0."""
    flip = np.array([-1.0, 1.0, 1.0])
    return replace(
        shape,
        organ=organ or shape.organ,
        centre=_point(np.asarray(shape.centre) * flip),
        end=_point(np.asarray(shape.end) * flip),
        frame=tuple(_point(np.asarray(row) * flip) for row in shape.frame),  # type: ignore[arg-type]
    )


def paint(canvas: Canvas, shapes: Iterable[Shape]) -> None:
    """Paints in order, later shapes over earlier ones; edges are as soft as a voxel is wide."""
    width = canvas.voxel_mm
    for shape in shapes:
        _paint_one(canvas, shape, width)


def _paint_one(canvas: Canvas, shape: Shape, width: float) -> None:
    down = shape.motion * canvas.moved
    if shape.kind == "capsule":
        ends = np.array([shape.centre, shape.end])
        low, high = ends.min(axis=0) - shape.radius - width, ends.max(axis=0) + shape.radius + width
    else:
        low = np.asarray(shape.centre) - shape.reach - width
        high = np.asarray(shape.centre) + shape.reach + width
    box = tuple(
        _range(axis, lo, hi)
        for axis, lo, hi in zip((canvas.z + down, canvas.y, canvas.x), low[::-1], high[::-1], strict=True)
    )
    if any(part.stop <= part.start for part in box):
        return
    z = (canvas.z[box[0]] + np.float32(down))[:, None, None]
    y = canvas.y[box[1]][None, :, None]
    x = canvas.x[box[2]][None, None, :]
    inside = _depth(shape, x, y, z)
    np.multiply(inside, np.float32(1.0 / width), out=inside)
    inside += np.float32(0.5)
    np.clip(inside, 0.0, 1.0, out=inside)
    organ = canvas.organ[box]
    if shape.over is not None:
        allowed = np.zeros(256, dtype=bool)
        allowed[[canvas.names.index(name) for name in shape.over]] = True
        allowed[canvas.names.index(shape.organ)] = True
        inside *= allowed[organ]
    value = canvas.value[box]
    value += inside * (np.float32(canvas.table[shape.organ]) - value)
    organ[inside > 0.5] = canvas.names.index(shape.organ)


def _depth(shape: Shape, x: Array, y: Array, z: Array) -> Array:
    """How far each point lies inside the surface [mm], negative outside; exact for capsules, near it for the others."""
    if shape.kind == "capsule":
        return np.float32(shape.radius) - _distance_to_segment(shape, x, y, z)
    dx, dy, dz = (axis - np.float32(c) for axis, c in zip((x, y, z), shape.centre, strict=True))
    u, v, w = (np.float32(row[0]) * dx + np.float32(row[1]) * dy + np.float32(row[2]) * dz for row in shape.frame)
    if shape.kind == "slab":
        size = 1.0 / np.linalg.norm(np.asarray(shape.frame), axis=1)
        sides = (1 - np.sqrt(u * u + v * v)) * np.float32(np.sqrt(size[0] * size[1]))
        depth: Array = np.minimum(sides, (1 - np.abs(w)) * np.float32(size[2]))
        return depth
    radius = np.sqrt(u * u + v * v + w * w)
    if shape.lumps:
        k = np.float32(2 * np.pi / (1.3 * shape.radius))
        bump = np.sin(k * dx + np.float32(shape.phase)) * np.sin(k * dy + np.float32(2 * shape.phase))
        radius = radius + np.float32(shape.lumps) * bump * np.sin(k * dz + np.float32(3 * shape.phase))
    depth = (1 - radius) * np.float32(shape.radius)
    return depth


def _distance_to_segment(shape: Shape, x: Array, y: Array, z: Array) -> Array:
    start, end = np.asarray(shape.centre), np.asarray(shape.end)
    along = (end - start).astype(np.float32)
    length2 = float(along @ along) or 1.0
    dx, dy, dz = x - np.float32(start[0]), y - np.float32(start[1]), z - np.float32(start[2])
    t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / np.float32(length2), 0, 1)
    distance: Array = np.sqrt((dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2)
    return distance


def _range(axis: Array, low: float, high: float) -> slice:
    """Indices of a monotone axis between two values."""
    if axis[-1] < axis[0]:
        n = len(axis)
        turned = _range(axis[::-1], low, high)
        return slice(n - turned.stop, n - turned.start)
    return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high)))


def _point(values: object) -> Point:
    x, y, z = np.asarray(values, dtype=float)
    return float(x), float(y), float(z)
