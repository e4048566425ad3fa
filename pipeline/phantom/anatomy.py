"""The whole body on a grid: its layers, then its shapes in order, as CT and PET see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from petground.pipeline.phantom.body import Body
from petground.pipeline.phantom.canvas import Canvas, Shape, capsule, paint
from petground.pipeline.phantom.skeleton import skeleton, skull
from petground.pipeline.phantom.tissue import NAMES
from petground.pipeline.phantom.trunk import paint_layers
from petground.pipeline.phantom.viscera import abdomen, brown_fat, chest, head_and_neck, pelvis

__all__ = ["make_canvas", "make_shapes", "paint_body"]

BROWN_FAT = 0.07  # share of FDG exams; a few to 14 % by season: Cohade et al., J Nucl Med 2003;44:1267
SPILL = 0.2  # share of exams with some tracer left where it was injected


def make_shapes(rng: np.random.Generator, body: Body) -> list[Shape]:
    """All organs of one patient, in painting order; the same list serves CT and PET."""
    bones = skeleton(rng, body)
    shapes = [*bones, *skull(), *head_and_neck(rng), *chest(rng), *abdomen(rng), *pelvis(rng, body.patient.sex)]
    warm = brown_fat(rng) if rng.random() < BROWN_FAT else []
    spill = _injection(rng, body) if rng.random() < SPILL and body.arms != "none" else []
    return shapes + (warm if body.patient.tracer == "FDG" else []) + spill


def _injection(rng: np.random.Generator, body: Body) -> list[Shape]:
    """Tracer left at the injection site in one elbow: no lesion, though as hot as one."""
    x, y, z = {"up": (193.0, 24.0, -62.0), "down": (222.0, 6.0, -640.0)}[body.arms]
    side = -1.0 if rng.random() < 0.5 else 1.0
    return [capsule("injection", (side * x, y, z), (side * (x + 2), y - 4, z + rng.uniform(8, 40)), 3.5)]


def make_canvas(
    body: Body, shape_kji: tuple[int, int, int], affine: NDArray[np.float64], table: Mapping[str, float], moved: float
) -> Canvas:
    """An empty canvas for a grid whose axes run along the body's (diagonal affine, ijk -> RAS mm)."""
    world = [affine[a, 3] + affine[a, a] * np.arange(n) for a, n in enumerate(shape_kji[::-1])]
    x, y, z = (body.to_standard(a, axis) for a, axis in enumerate(world))
    value = np.full(shape_kji, table["outside"], dtype=np.float32)
    return Canvas(x, y, z, value, np.zeros(shape_kji, dtype=np.uint8), NAMES, table, moved)


def paint_body(canvas: Canvas, body: Body, shapes: Sequence[Shape]) -> None:
    paint_layers(canvas, body)
    paint(canvas, shapes)
