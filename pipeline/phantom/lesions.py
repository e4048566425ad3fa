"""Lesions as solids in the patient: their form, their share of each voxel, and where there is room for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petground.pipeline.phantom.body import Body
from petground.pipeline.phantom.canvas import Array, Canvas, rotation
from petground.pipeline.phantom.sites import SiteOfDisease, liver_segment, point_of
from petground.pipeline.phantom.trunk import lobe

__all__ = ["Blob", "Box", "coverage", "draw_blob", "find_place"]

Vector = NDArray[np.float64]
Box = tuple[slice, slice, slice]

TRIES_IN_HOST = 60


@dataclass(frozen=True, eq=False)
class Blob:
    """A lesion's form in world millimetres: ellipsoids joined. Each part: centre offset [3], frame [3, 3] to the unit
    sphere, reach [3]. core: share of the diameter that is necrotic.
    """

    diameter_mm: float
    parts: tuple[tuple[Vector, Vector, Vector], ...]
    core: float = 0.0

    @property
    def reach_mm(self) -> Vector:
        reach: Vector = np.max([np.abs(offset) + reach for offset, _, reach in self.parts], axis=0)
        return reach


def draw_blob(rng: np.random.Generator, diameter_mm: float) -> Blob:
    """An ellipsoid of that longest diameter, larger ones often with bulges, some with a dead centre."""
    radius = diameter_mm / 2
    semi = radius * np.array([1.0, rng.uniform(0.72, 1.0), rng.uniform(0.72, 1.0)])
    lobulated = diameter_mm > 14 and rng.random() < 0.45
    if lobulated:
        semi *= 0.88  # the bulges bring the longest diameter back
    parts = [_part(np.zeros(3), rng.permutation(semi), rng)]
    for _ in range(int(rng.integers(1, 4)) if lobulated else 0):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        bulge = radius * rng.uniform(0.4, 0.55)
        parts.append(_part(direction * (radius * 0.94 - bulge), np.full(3, bulge) * rng.uniform(0.85, 1.0, 3), rng))
    dead = rng.uniform(0.35, 0.5) if diameter_mm > 28 and rng.random() < 0.2 else 0.0
    return Blob(float(diameter_mm), tuple(parts), float(dead))


def _part(offset: Vector, semi: Vector, rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    turn = rotation(*rng.uniform(-40, 40, 3))
    return offset, turn.T / semi[:, None], np.sqrt((turn**2) @ semi**2)


def coverage(
    blob: Blob, centre_mm: Vector, axes_mm: tuple[Vector, Vector, Vector], margin_mm: float, fine: int = 3
) -> tuple[Box, Array, Array]:
    """Share of each voxel that the lesion fills, within a box of the grid.

    axes_mm: world coordinates of the voxel centres along x, y, z. Returns the box as slices k, j, i, the share
    [K, J, I] in 0..1, and the same weighted by activity (lower in a dead centre).
    """
    box, points = [], []
    for axis, centre, reach in zip(axes_mm, centre_mm, blob.reach_mm, strict=True):
        near = np.flatnonzero(np.abs(axis - centre) <= reach + margin_mm)
        if not len(near):
            return (slice(0, 0),) * 3, np.zeros((0, 0, 0), np.float32), np.zeros((0, 0, 0), np.float32)
        box.append(slice(int(near[0]), int(near[-1]) + 1))
        step = (axis[1] - axis[0]) / fine
        sub = (np.arange(fine) - (fine - 1) / 2) * step
        points.append((axis[box[-1]][:, None] + sub).ravel() - centre)
    x, y, z = points[0][None, None, :], points[1][None, :, None], points[2][:, None, None]
    inside = np.zeros((len(points[2]), len(points[1]), len(points[0])), dtype=bool)
    for offset, frame, _ in blob.parts:
        inside |= _radius2(frame, x - offset[0], y - offset[1], z - offset[2]) < 1.0
    active = inside.astype(np.float32)
    if blob.core:
        active[_radius2(blob.parts[0][1], x, y, z) < blob.core**2] = 0.35
    return (box[2], box[1], box[0]), _pooled(inside.astype(np.float32), fine), _pooled(active, fine)


def _radius2(frame: Vector, x: Vector, y: Vector, z: Vector) -> Vector:
    u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in frame)
    squared: Vector = u * u + v * v + w * w
    return squared


def _pooled(fine_array: Array, fine: int) -> Array:
    k, j, i = (n // fine for n in fine_array.shape)
    pooled: Array = fine_array.reshape(k, fine, j, fine, i, fine).mean(axis=(1, 3, 5))
    return pooled


def find_place(
    rng: np.random.Generator, site: SiteOfDisease, side: str | None, body: Body, canvas: Canvas, diameter_mm: float
) -> Vector | None:
    """World millimetres of a centre for a lesion of the site, or None where the host organ has no room for it."""
    if site.host is None:
        return body.to_world(point_of(rng, site, side, body))
    voxels = _host_voxels(site, canvas)
    if not len(voxels):
        return None
    reach = 0.38 * diameter_mm
    steps = [np.ceil(reach / abs(axis[1] - axis[0])).astype(int) for axis in (canvas.z, canvas.y, canvas.x)]
    host = canvas.names.index(site.host)
    for index in rng.integers(0, len(voxels), TRIES_IN_HOST):
        place = voxels[index]
        neighbours = [
            place + sign * step * unit
            for unit, step in zip(np.eye(3, dtype=int), steps, strict=True)
            for sign in (1, -1)
        ]
        inside = [canvas.organ[tuple(np.clip(n, 0, np.array(canvas.organ.shape) - 1))] == host for n in neighbours]
        if np.mean(inside) >= (1.0 if diameter_mm < 15 else 0.8):
            k, j, i = place
            point = np.array([canvas.x[i], canvas.y[j], canvas.z[k]], dtype=np.float64)
            return body.to_world(point) + rng.uniform(-1.5, 1.5, 3)
    return None


def _host_voxels(site: SiteOfDisease, canvas: Canvas) -> NDArray[np.intp]:
    """[N, 3] k, j, i of every third voxel or so of the host that belongs to the site's lobe or segment."""
    assert site.host is not None
    coarse: NDArray[np.intp] = np.argwhere(canvas.organ[::2, ::2, ::2] == canvas.names.index(site.host)) * 2
    if site.part is None or not len(coarse):
        return coarse
    x, y, z = canvas.x[coarse[:, 2]], canvas.y[coarse[:, 1]], canvas.z[coarse[:, 0]]
    if site.host == "lung":
        return coarse[lobe(x, y, z) == site.part]
    inside = np.array([liver_segment(*point) == site.part for point in zip(x, y, z, strict=True)], dtype=bool)
    return coarse[inside]
