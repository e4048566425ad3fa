"""What one exam says about how its report counts slices: where the reported values are found, and where numbers point.

Kept small (a few integers per finding), so that an archive's evidence fits in memory and into a stage's record; what it
amounts to over all exams is told by `infer_numbering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from petground.labeling.errors import GeometryError
from petground.labeling.finding import Finding
from petground.labeling.match import rounding_interval
from petground.labeling.maxima import peaks
from petground.labeling.numbering import slice_to_k
from petground.labeling.site import Site
from petground.labeling.volume import Volume

__all__ = ["CONVENTIONS", "Convention", "Sighting", "sighting_from_json", "sightings"]

PEAK_RADIUS_MM = 7.0  # about a scanner's resolution: a nearer, hotter voxel belongs to the same uptake


@dataclass(frozen=True)
class Convention:
    """One way of counting slices; the words are those of `Site`."""

    origin: Literal["head", "feet"] = "head"
    first: int = 1
    grid: Literal["pet", "ct"] = "pet"
    by_instance_number: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """As keys of a site file, every one of the four, so that they override whatever a base says."""
        return {
            "slice_origin": self.origin,
            "slice_first": self.first,
            "slice_grid": self.grid,
            "slice_by_instance_number": self.by_instance_number,
        }

    def __str__(self) -> str:
        if self.by_instance_number:
            return f"InstanceNumber of the {self.grid.upper()}"
        return f"from the {self.origin}, from {self.first}, {self.grid.upper()} slices"


CONVENTIONS: tuple[Convention, ...] = (
    *(Convention(o, f, g) for g in ("pet", "ct") for o in ("head", "feet") for f in (1, 0)),
    Convention(by_instance_number=True),
    Convention(grid="ct", by_instance_number=True),
)
"""All that are tried, the plainest first: of two that mean the same slices the first is named."""


@dataclass(frozen=True)
class Sighting:
    """One finding's part of the evidence.

    slices: K of the PET. up: 1 when k counts towards the head, -1 towards the feet.
    met: PET indices k on which a local maximum prints as the reported value.
    places: per entry of CONVENTIONS the PET indices [start, stop) that the printed number means; () when it lies
        outside of the image, None when the exam cannot be counted that way (no CT, no instance numbers).
    """

    slices: int
    up: int
    met: tuple[int, ...]
    places: tuple[tuple[int, ...] | None, ...]


def sightings(pet: Volume, findings: Sequence[Finding], site: Site, *, ct: Volume | None = None) -> list[Sighting]:
    """Evidence of the findings that are positive, have a slice and reach the site's minimum; in order.

    Reports that say themselves from which end they count say nothing of the site's habit.

    pet: SUVbw. Raises GeometryError when the third axis is not the body's.
    """
    up = 1 if pet.head_is_last else -1
    told = [
        f
        for f in findings
        if f.status == "positive"
        and f.slice is not None
        and f.suv >= site.suv_minimum
        and f.counted_from is None
        and not {"at_least", "at_most"}.intersection(f.warnings)  # a bound fits too much to tell of the numbering
    ]
    if not told:
        return []
    spread = [rounding_interval(f.suv, f.suv_decimals) for f in told]
    lowest = min(low for low, _ in spread) - site.suv_tolerance
    index, values = peaks(pet.array, pet.spacing_ijk_mm, lowest, PEAK_RADIUS_MM)
    found = []
    for finding, (low, high) in zip(told, spread, strict=True):
        # float32 voxels: 5.15 is stored as 5.1500001
        fits = (values >= low - site.suv_tolerance - 1e-5) & (values < high + site.suv_tolerance + 1e-5)
        met = tuple(sorted({int(k) for k in index[fits, 2]}))
        places = tuple(_place(finding, pet, ct, convention) for convention in CONVENTIONS)
        found.append(Sighting(pet.shape[2], up, met, places))
    return found


def sighting_from_json(row: Mapping[str, Any]) -> Sighting:
    """The Sighting that `dataclasses.asdict` and JSON made a mapping of lists of."""
    places = tuple(None if place is None else tuple(place) for place in row["places"])
    return Sighting(int(row["slices"]), int(row["up"]), tuple(row["met"]), places)


def _place(finding: Finding, pet: Volume, ct: Volume | None, convention: Convention) -> tuple[int, ...] | None:
    assert finding.slice is not None
    if convention.grid == "ct" and ct is None:
        return None
    try:
        ks = slice_to_k(finding.slice, pet, Site(**convention.settings), ct)
    except GeometryError:
        return None
    return () if ks is None else (ks.start, ks.stop)
