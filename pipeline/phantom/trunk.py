"""The layers everything else lies in: skin, fat, muscle, cavity, lungs above the diaphragm, limbs, the couch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petground.pipeline.phantom.body import CAVITY, FAT_MM, FAT_Z, TRUNK, Body, contour
from petground.pipeline.phantom.canvas import Array, Canvas, Shape, capsule, ellipsoid, mirrored, paint

__all__ = ["couch", "dome_z", "lobe", "paint_layers"]

SQUARENESS = 0.35  # 0: elliptic cross-section; trunks are a little squarer
APEX_Z, BASE_Z = -288.0, -640.0  # between them there may be lung

# Half width of the mediastinum along z, before heart and vessels are painted.
MEDIASTINUM = np.array([(-640.0, 26), (-520, 26), (-440, 28), (-400, 34), (-370, 32), (-330, 28), (-288, 22)])

# Domes of the diaphragm: x, y, z of the top; fall [mm] at 70 mm sideways and at 90 mm to front or back.
DOMES = ((66.0, 18.0, -496.0, 52.0, 82.0), (-70.0, 14.0, -511.0, 52.0, 82.0), (-8.0, 32.0, -521.0, 48.0, 70.0))


def paint_layers(canvas: Canvas, body: Body) -> None:
    """Fills an empty canvas from the skin inwards, down to the lungs."""
    skin = contour(TRUNK, canvas.z, body)
    fat = np.interp(canvas.z, FAT_Z, FAT_MM) * np.where(canvas.z > -230, 1.0, body.fat)
    with_fat = skin.copy()
    with_fat[:2] += np.where(skin[0] > 0, fat / np.mean(body.scale_xy), 0.0).astype(np.float32)
    _fill(canvas, "fat", _within(canvas, with_fat))
    paint(canvas, _limbs(body))
    _fill(canvas, "muscle", _within(canvas, skin))
    if body.patient.sex == "F":
        paint(canvas, _breasts(body))
    cavity = contour(CAVITY, canvas.z, body)
    inside = _within(canvas, cavity)
    _fill(canvas, "visceral_fat", inside)
    _lungs(canvas, body, inside)


def dome_z(x: Array, y: Array) -> Array:
    """Height of the diaphragm at standard x and y (PET position)."""
    falls = [
        z
        - np.float32(side / 70.0**2) * (x - np.float32(cx)) ** 2
        - np.float32(back / 90.0**2) * (y - np.float32(cy)) ** 2
        for cx, cy, z, side, back in DOMES
    ]
    highest: Array = np.maximum.reduce([np.asarray(fall, dtype=np.float32) for fall in falls])
    return highest


def lobe(x: NDArray[np.float32], y: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.str_]:
    """Lung lobe at standard points: RUL, RML, RLL, LUL or LLL, told by planes for the fissures.

    The oblique fissure runs from the T4 level at the back to the diaphragm in front, the horizontal one forward from it
    at the level of the fourth rib (Gray's Anatomy, 41st ed., chapter 54).
    """
    oblique = -392.0 - 1.0 * (y + 60.0)  # the fissure's height at y
    behind = z < oblique
    right = np.where(behind, "RLL", np.where(z < -432.0, "RML", "RUL"))
    return np.where(x > 0, right, np.where(behind, "LLL", "LUL"))


def _lungs(canvas: Canvas, body: Body, cavity: NDArray[np.bool_]) -> None:
    part = np.flatnonzero((canvas.z < APEX_Z) & (canvas.z > BASE_Z))
    if not len(part):
        return
    box = slice(part[0], part[-1] + 1)
    z, y, x = canvas.z[box][:, None, None], canvas.y[None, :, None], canvas.x[None, None, :]
    top = dome_z(x, y) - np.float32(canvas.moved)
    air = cavity[box] & (z > top)
    half = np.interp(canvas.z[box], MEDIASTINUM[:, 0], MEDIASTINUM[:, 1]).astype(np.float32)[:, None, None]
    narrow = 1 - np.float32(0.65) * np.clip((y - 40) / 45, 0, 1) - np.float32(0.2) * np.clip((-y - 30) / 40, 0, 1)
    middle = air & (np.abs(x) < half * narrow)
    view = Canvas(canvas.x, canvas.y, canvas.z[box], canvas.value[box], canvas.organ[box], canvas.names, canvas.table)
    _fill(view, "lung", air)
    _fill(view, "mediastinum", middle)


def _limbs(body: Body) -> list[Shape]:
    """Thighs, and arms where they are seen; fat before muscle before bone."""
    fat = 12.0 * body.fat
    legs = [capsule("fat", (93, -6, -955), (90, -4, -1400), 74 + fat, over=("outside",))]
    legs.append(capsule("muscle", (93, -6, -955), (90, -4, -1400), 76, over=("outside", "fat")))
    if body.patient.sex == "M":
        legs.append(capsule("fat", (12, 62, -930), (12, 78, -955), 22, over=("outside",)))
    arms: list[Shape] = []
    if body.arms != "none":
        joints = {
            "up": [(158, -18, -342), (186, -12, -190), (198, 12, -40), (120, 30, 30)],
            "down": [(165, -15, -345), (216, -12, -620), (232, 30, -830), (226, 55, -930)],
        }[body.arms]
        shift = 14.0 * (body.fat - 1.0) if body.arms == "down" else 4.0 * (body.fat - 1.0)
        path = [joints[0], *((x + shift, y, z) for x, y, z in joints[1:])]
        for a, b, r in zip(path, path[1:], (44.0, 35.0, 24.0), strict=False):
            arms.append(capsule("fat", a, b, r + 4 * body.fat, over=("outside",)))
            arms.append(capsule("muscle", a, b, r, over=("outside", "fat")))
            arms.append(capsule("cortical", a, b, 11.0, over=("muscle",)))
            arms.append(capsule("yellow_marrow", a, b, 5.5, over=("cortical",)))
    right = legs + arms
    return right + [mirrored(shape) for shape in right]


def _breasts(body: Body) -> list[Shape]:
    size = 0.8 + 0.25 * body.fat
    front = 106.0 + 6.0 * body.fat
    right = [
        ellipsoid("fat", (80, front, -432), (52 * size, 34 * size, 52 * size), over=("outside",)),
        ellipsoid("breast", (82, front + 10, -436), (30 * size, 20 * size, 30 * size), over=("fat",), lumps=0.12),
    ]
    return right + [mirrored(shape) for shape in right]


def couch(canvas: Canvas) -> None:
    """The scanner's table under the back: seen by CT only."""
    deepest = canvas.y[np.flatnonzero((canvas.organ != 0).any(axis=(0, 2)))].min()
    y, x = canvas.y[:, None], canvas.x[None, :]
    sag = deepest - 6 + (x / 200.0) ** 2 * 22
    board = (y < sag) & (y > sag - 14) & (np.abs(x) < 215)
    free = canvas.organ == 0
    canvas.value[free & board[None]] = canvas.table["couch"]


def _within(canvas: Canvas, outline: Array) -> NDArray[np.bool_]:
    """[K, J, I]: inside the squarish ellipse given per slice (half width, half depth, y centre)."""
    a, b, cy = (row[:, None] for row in np.maximum(outline, np.array([[1e-3], [1e-3], [-1e9]], dtype=np.float32)))
    u = (canvas.x[None, :] / a) ** 2
    v = ((canvas.y[None, :] - cy) / b) ** 2
    q = v[:, :, None] + u[:, None, :]
    q -= (np.float32(SQUARENESS) * np.minimum(v, 1))[:, :, None] * np.minimum(u, 1)[:, None, :]
    inside: NDArray[np.bool_] = q < 1
    inside[outline[0] <= 0] = False
    return inside


def _fill(canvas: Canvas, organ: str, where: NDArray[np.bool_]) -> None:
    np.putmask(canvas.organ, where, canvas.names.index(organ))
    np.putmask(canvas.value, where, np.float32(canvas.table[organ]))
