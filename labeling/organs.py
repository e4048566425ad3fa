"""Organs with normal uptake: where a lesion is not to be looked for unless the report names the organ.

Inside the project a label map counts in the class ids of TotalSegmentator's task "total", version 2; `canonical` brings
others there. Which organs take up a tracer normally stands in organs.json, after the EANM and SNMMI procedure
guidelines for FDG (2015), PSMA ligands (2023), somatostatin receptor ligands (2017) and fluciclovine (2020).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume

__all__ = [
    "Ids",
    "canonical",
    "class_ids",
    "named_organs",
    "organ_at",
    "physiologic",
    "physiologic_in",
    "require_upright",
    "sample",
]

Ids = dict[int, str]
Voxel = tuple[int, int, int]
DEEP_MM = 5.0  # what lies this far inside an organ's outline is not beside it: about the PET's resolution
HEART_PARTS = re.compile(r"heart(_(myocardium|atrium|ventricle)(_left|_right)?)?")


@cache
def _table() -> dict[str, Any]:
    text = resources.files("petground.labeling").joinpath("organs.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def class_ids(version: int = 2) -> Ids:
    """Id -> class name of TotalSegmentator's task "total", version 1 or 2."""
    return dict(enumerate(_table()[f"total_v{version}"], start=1))


def canonical(labels: Volume, names: Mapping[int, str]) -> Volume:
    """The label map with the ids of version 2. names: id -> class name as its maker calls it; others become 0.

    Raises InputError when no name is one of the classes known.
    """
    ours = {name: number for number, name in class_ids().items()}
    if labels.array.min() < 0:
        raise InputError("the label map holds negative labels", reason="organ_map")
    lookup = np.zeros(int(max(labels.array.max(), max(names, default=0))) + 1, dtype=np.uint8)
    for number, name in names.items():
        plain = "heart" if HEART_PARTS.fullmatch(name) else name
        lookup[number] = ours.get(plain, 0)
    if not lookup.any():
        raise InputError("no name in the label map is a class of TotalSegmentator's task total", reason="organ_map")
    organs = lookup[np.asarray(labels.array, dtype=np.int64)]
    if not organs.any():
        raise InputError("the label map holds no organ", reason="organ_map")
    return labels.like(organs, "label")


def require_upright(organs: Volume) -> None:
    """Raises GeometryError when organs lie the wrong way round: flipped axes, or ids of another version.

    Right kidney and lung lie right of the left ones, the brain above the heart, the heart above kidneys and bladder.
    """
    centre = {name: _centre_mm(organs, names) for name, names in _LANDMARKS.items()}
    for axis, lower, upper, what in _ORDER:
        a, b = centre[lower], centre[upper]
        if a is not None and b is not None and a[axis] >= b[axis]:
            raise GeometryError(
                f"in the organ map the {what}",
                fix="its axes are flipped, or its ids are of another version: see --organs-version",
                reason="organ_map",
            )


_LANDMARKS = {
    "left kidney": ("kidney_left",),
    "right kidney": ("kidney_right",),
    "left lung": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "right lung": ("lung_upper_lobe_right", "lung_lower_lobe_right"),
    "brain": ("brain",),
    "heart": ("heart",),
    "bladder": ("urinary_bladder",),
}
_ORDER = (
    (0, "left kidney", "right kidney", "right kidney lies left of the left one"),
    (0, "left lung", "right lung", "right lung lies left of the left one"),
    (2, "heart", "brain", "brain lies below the heart"),
    (2, "bladder", "heart", "heart lies below the bladder"),
    (2, "bladder", "left kidney", "kidney lies below the bladder"),
    (2, "right kidney", "heart", "heart lies below the kidney"),
)


def _centre_mm(organs: Volume, names: tuple[str, ...]) -> NDArray[np.float64] | None:
    ids = [number for number, name in class_ids().items() if name in names]
    found = np.argwhere(np.isin(organs.array[::2, ::2, ::2], ids)) * 2
    return organs.to_world_mm(np.median(found, axis=0)) if len(found) > 20 else None


@cache
def physiologic(tracer: str | None = None) -> Ids:
    """Class id -> organ, for the organs that take up the tracer normally; by excretion and FDG when it is not known."""
    table = _table()
    kind = next((k for k, words in table["tracers"].items() if re.search(words, tracer or "", re.I)), "")
    of_class = {name: organ for organ in table["uptake"][kind] for name in table["organs"][organ]["classes"]}
    return {number: of_class[name] for number, name in class_ids().items() if name in of_class}


@cache
def named_organs(site: str | None) -> frozenset[str]:
    """Organs with normal uptake for some tracer that the words of a report's site name."""
    organs = _table()["organs"].items()
    return frozenset(organ for organ, one in organs if site and re.search(rf"\b(?:{one['words']})\b", site, re.I))


def physiologic_in(
    organs: Volume, pet: Volume, slices: tuple[slice, slice, slice], site: str | None, tracer: str | None = None
) -> NDArray[np.bool_]:
    """PET voxels of a crop that lie in a physiologic organ which the report does not name itself.

    The label map may lie on its own grid: the nearest voxel counts, in millimetres.
    """
    named = named_organs(site)
    unwanted = [number for number, organ in physiologic(tracer).items() if organ not in named]
    grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in slices], indexing="ij"), axis=-1)
    return np.isin(sample(organs, pet.to_world_mm(grid)), unwanted)


def organ_at(organs: Volume, pet: Volume, voxel: Voxel, tracer: str | None = None) -> tuple[str, bool] | None:
    """The physiologic organ that a PET voxel lies in, and whether deep in it (5 mm from its outline); or None."""
    known = physiologic(tracer)
    middle = pet.to_world_mm(voxel)
    organ = known.get(int(sample(organs, middle)))
    if organ is None:
        return None
    around = sample(organs, middle + DEEP_MM * _DIRECTIONS)
    return organ, all(known.get(int(number)) == organ for number in around)


def sample(organs: Volume, xyz_mm: NDArray[np.float64]) -> NDArray[np.int64]:
    """Class ids at points [..., 3] in RAS+ millimetres; 0 outside of the map."""
    index = np.rint(organs.to_index(xyz_mm)).astype(np.int64)
    inside = ((index >= 0) & (index < organs.shape)).all(axis=-1)
    index = np.clip(index, 0, np.array(organs.shape) - 1)
    found: NDArray[np.int64] = np.where(inside, organs.array[tuple(np.moveaxis(index, -1, 0))].astype(np.int64), 0)
    return found


_DIRECTIONS = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)], dtype=np.float64) - 1
_DIRECTIONS /= np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)
