"""Pictures of grounded sentences: one per finding, and one overview of the exam."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from petground.labeling.volume import Volume
from petground.pipeline.cropped import CroppedMask
from petground.pipeline.pictures import OUTLINES, axial, mip, side_by_side, stacked

__all__ = ["Shown", "finding_picture", "overview_picture"]

Rgb = NDArray[np.uint8]
NOTE = "Research use only, not for diagnosis. PET: SUV 0 to 10, CT: -160 to 240 HU. Patient's right is on the left."


@dataclass(frozen=True, eq=False)
class Shown:
    """One answer as it is drawn: mask on the PET grid, k the slice shown (None: none is), lines of text."""

    name: str
    mask: CroppedMask
    k: int | None
    headline: str
    sentence: str


def finding_picture(pet: Volume, ct: Volume | None, shown: Shown) -> Rgb:
    """Projections with the mask outlined, beside PET, CT and fused at the slice; headline and sentence above."""
    columns = _projections(pet, [shown], shown.k)
    if shown.k is not None:
        panels = axial(pet, ct, shown.mask.array, shown.k, pixel_mm=1.25, crop=True)
        columns.append(stacked([p for p in panels if p is not None]))
    picture = side_by_side(columns)
    head = _text([(shown.headline, (0, 0, 0)), (shown.sentence, (70, 70, 70))], picture.shape[1])
    return stacked([head, picture, _text([(NOTE, (120, 120, 120))], picture.shape[1], size=11)])


def overview_picture(pet: Volume, shown: Sequence[Shown]) -> Rgb:
    """Projections of the exam with every mask in its colour, and what each is."""
    projections = side_by_side(_projections(pet, shown, None))
    lines = []
    for number, one in enumerate(shown):
        tint = OUTLINES[number % len(OUTLINES)] if not one.mask.empty else (120, 120, 120)
        lines += [(one.headline, tint), (one.sentence, (70, 70, 70)), ("", (0, 0, 0))]
    legend = _text(lines, 520)
    both = side_by_side([projections, legend], gap=14)
    return stacked([both, _text([(NOTE, (120, 120, 120))], both.shape[1], size=11)])


def _projections(pet: Volume, shown: Sequence[Shown], k: int | None) -> list[Rgb]:
    """Coronal and sagittal, about as tall as three axial pictures, be it a head or a whole body."""
    pixel_mm = float(np.clip(pet.shape[2] * pet.spacing_ijk_mm[2] / 900, 0.6, 2.2))
    return [
        mip(pet, view, (one.mask.array for one in shown), k=k, pixel_mm=pixel_mm, crop=True)
        for view in ("coronal", "sagittal")
    ]


def _text(lines: Sequence[tuple[str, tuple[int, int, int]]], width: int, *, size: int = 14) -> Rgb:
    """Lines of text, wrapped to `width` pixels, on white."""
    font = ImageFont.load_default(size=size)
    per_line = max(20, int(width / (0.52 * size)))  # the font's mean advance, measured
    wrapped = [(part, tint) for text, tint in lines for part in (textwrap.wrap(text, per_line) or [""])]
    step = round(1.35 * size)
    image = Image.new("RGB", (width, step * len(wrapped) + 6), "white")
    draw = ImageDraw.Draw(image)
    for row, (part, tint) in enumerate(wrapped):
        draw.text((4, 3 + row * step), part, font=font, fill=tint)
    return np.array(image, dtype=np.uint8)
