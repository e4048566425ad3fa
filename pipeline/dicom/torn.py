"""One series whose headers differ in what a series has once: read as several, each would have gaps or be cut short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petground.labeling.errors import GeometryError, SuvError
from petground.labeling.suv_header import named
from petground.pipeline.dicom.header import Slice

__all__ = ["GRID", "UNIFORM", "Torn", "torn_parts"]

UNIFORM = ("FrameOfReferenceUID", "Units", "SUVType", "DecayCorrection", "PatientWeight")
"""What all slices of a series must agree on; where they do not they are taken for several series."""
GRID = ("PixelSpacing", "PixelSpacing", "Rows", "Columns")
GEOMETRIC = frozenset((*GRID, "FrameOfReferenceUID"))
Key = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Torn:
    """By which attributes a series fell apart, which of them a part lacks, its parts' planes, largest first."""

    differ: tuple[str, ...]
    lacking: tuple[str, ...]
    parts: tuple[tuple[Slice, ...], ...]

    @property
    def planes(self) -> tuple[Slice, ...]:
        return tuple(plane for part in self.parts for plane in part)

    def error(self, name: str) -> GeometryError | SuvError:
        """What to tell of the series of this name."""
        kind = GeometryError if GEOMETRIC.issuperset(self.differ) else SuvError
        sizes = [len(part) for part in self.parts]
        told = ", ".join(f"{named(k)}{', empty in a part of them' if k in self.lacking else ''}" for k in self.differ)
        shown = " + ".join(map(str, sizes[:4])) + (" + ..." if len(sizes) > 4 else "")
        fewest = self.parts[-1][0].file.name
        return kind(
            f"the {sum(sizes)} slices of {name} differ in {told} ({shown}, the fewest in {fewest})",
            fix="slices of one series have one value: correct the headers, or export the series from the scanner anew",
        )


def torn_parts(parts: Sequence[tuple[Key, Sequence[Slice]]]) -> list[Torn | None]:
    """For each part of one series and orientation, what tore it; None for a part that has all places of the series.

    parts: values of GRID and UNIFORM in this order, and the planes. A series may hold two whole stacks, e.g. in two
    units; one that has its slices from head to feet in all parts together only is torn.
    """
    places = [_places(planes) for _, planes in parts]
    every = set().union(*places)
    names = (*GRID, *UNIFORM)
    differ = [n for n in range(len(names)) if len({key[n] for key, _ in parts}) > 1]
    ranked = sorted((tuple(planes) for _, planes in parts), key=len, reverse=True)
    torn = Torn(
        tuple(dict.fromkeys(names[n] for n in differ)),
        tuple(names[n] for n in differ if any(key[n] is None for key, _ in parts)),
        tuple(ranked),
    )
    return [None if own == every else torn for own in places]


def _places(planes: Sequence[Slice]) -> set[float]:
    """Places along the normal, to a tenth of a millimetre."""
    normal = np.cross(planes[0].orientation_lps[:3], planes[0].orientation_lps[3:])
    return {round(float(plane.position_lps_mm @ normal), 1) + 0.0 for plane in planes}
