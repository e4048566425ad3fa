"""On which side of the body a mask lies, held against the side that its sentence says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from petground.labeling.body import right_of_midline_mm, towards_side_mm
from petground.labeling.finding import Laterality
from petground.labeling.volume import Volume

__all__ = ["CLEAR_SIDE_MM", "MeasuredSide", "heading", "measure_side"]

CLEAR_SIDE_MM = 10.0  # nearer to the midline a side is not told
_CAPITALS = re.compile(r"\b(?:[ctls] ?\d{1,2}|(?<=segment )[iv]{1,4}[ab]?)\b")  # vertebrae and liver segments
_ONE_SIDED = (
    (re.compile(r"\b(?:left|right)(?:-sided)?\b *", re.I), ""),
    (re.compile(r"\b(?:middle lobe|lingula\w*)", re.I), "lung"),  # one lung has them
)


@dataclass(frozen=True)
class MeasuredSide:
    """said: the sentence's side. right_mm: how far right of the midline the hottest voxel lies, negative: left; None
    where that cannot be told."""

    said: Laterality | None
    right_mm: float | None

    @property
    def words(self) -> str | None:
        """left, right or midline; None where it cannot be told."""
        if self.right_mm is None:
            return None
        return "midline" if abs(self.right_mm) < CLEAR_SIDE_MM else "right" if self.right_mm > 0 else "left"

    @property
    def contradiction(self) -> str | None:
        """What is wrong in words, where the voxel lies CLEAR_SIDE_MM or more on the other side than said."""
        into = towards_side_mm(self.right_mm, self.said)
        if into is None or into > -CLEAR_SIDE_MM:
            return None
        return f"the sentence says {self.said}; the hottest voxel lies {-into:.0f} mm {self.words} of the midline"

    def place(self, site: str | None) -> tuple[Laterality | None, str | None, str]:
        """Side and site that may be coded of the mask, and a heading: without what the image contradicts.

        ("left", "axillary node") -> "Left axillary node"; contradicted: (None, "axillary node", "Axillary node, not
        left as said").
        """
        side = self.said
        if self.contradiction is not None:
            side = None
            for pattern, instead in _ONE_SIDED:
                site = pattern.sub(instead, site or "").strip() or None
        told = heading(side, site) or "Lesion"
        return side, site, told if side == self.said else f"{told}, not {self.said} as said"


def heading(side: str | None, site: str | None) -> str:
    """Side and place as a heading, empty without either; a site that begins with its side is not told it twice."""
    named = side and site and re.match(rf"{re.escape(side)}\b", site, re.I)
    where = " ".join(word for word in (None if named else side, site) if word)
    where = _CAPITALS.sub(lambda m: m.group().upper().replace(" ", ""), where)
    return where[:1].upper() + where[1:]


def measure_side(
    voxel_ijk: tuple[int, int, int] | None, pet: Volume, ct: Volume | None, said: Laterality | None
) -> MeasuredSide:
    """voxel_ijk: the mask's hottest voxel on the PET grid, None of an empty mask."""
    return MeasuredSide(said, None if voxel_ijk is None else right_of_midline_mm(voxel_ijk, pet, ct))
