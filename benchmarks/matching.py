"""How often value and slice single one maximum out on real PETs, and how often the wrong one is taken.

Run by `python benchmarks/run.py matching`. Every maximum of two public PETs that is a peak of its own is told
in turn, as a report would: rounded SUVmax, slice, side, and for some its width. Most of them are normal uptake, so this
is harder than reports, which tell lesions: it shows what happens when like uptake is near. No label is better than a
wrong one: ambiguous findings stay candidates for review.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from petground.labeling.body import right_of_midline_mm
from petground.labeling.finding import Finding
from petground.labeling.match import assign, find_candidates
from petground.labeling.maxima import box_around, component_at, dominance, peaks
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.read import read_exam

SHARED = Path(os.environ.get("PETGROUND_SHARED", Path(__file__).resolve().parents[2] / "shared"))
EXAMS = ("acrin_042", "sts_001_whole_body")
OWN_PEAK = 0.6  # a maximum of its component down to this part of its value
NEAR_MIDLINE_MM = 15.0  # no report calls that left or right
Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Telling:
    """What a report says, and how exactly."""

    decimals: int = 1
    off: int = 0
    side: bool = True
    size: bool = False


TELLINGS = {
    "one decimal": Telling(),
    "one decimal, no side": Telling(side=False),
    "one decimal, size": Telling(size=True),
    "one decimal, slice up to 2 off": Telling(off=2),
    "no decimal": Telling(decimals=0),
    "no decimal, size": Telling(decimals=0, size=True),
    "no decimal, slice up to 2 off": Telling(decimals=0, off=2),
}


def measure() -> dict[str, Any] | None:
    if not all((SHARED / "data" / f"{name}.zip").is_file() for name in EXAMS):
        return None
    told: list[tuple[Volume, Volume | None, list[tuple[Voxel, float]]]] = []
    for name in EXAMS:
        with TemporaryDirectory() as folder, zipfile.ZipFile(SHARED / "data" / f"{name}.zip") as archive:
            archive.extractall(folder)
            exam = read_exam(Path(folder) / name, case=name)
        told.append((exam.pet, exam.ct, _own_peaks(exam.pet)))
    return {
        "maxima": {name: len(found) for name, (_, _, found) in zip(EXAMS, told, strict=True)},
        **{
            f"SUVmax {low} and more": {name: _shares(told, telling, low) for name, telling in TELLINGS.items()}
            for low in (2.5, 5.0)
        },
    }


def _own_peaks(pet: Volume) -> list[tuple[Voxel, float]]:
    """Peaks of SUV 2.5 and more, with the diameter of a ball as large as they are at half height [mm]."""
    found = []
    for i, j, k in peaks(pet.array, pet.spacing_ijk_mm, 2.5, 7.0)[0].tolist():
        box = box_around((i, j, k), 30.0, pet.shape, pet.spacing_ijk_mm)
        crop, seed = pet.array[box.slices], box.local((i, j, k))
        if dominance(crop, seed) <= OWN_PEAK:
            volume_ml = float(component_at(crop, seed, 0.5 * float(crop[seed])).sum()) * pet.voxel_ml
            found.append(((i, j, k), float((6000 * volume_ml / np.pi) ** (1 / 3))))
    return found


def _shares(
    told: list[tuple[Volume, Volume | None, list[tuple[Voxel, float]]]], telling: Telling, low: float
) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    fates = []
    for pet, ct, found in told:
        for voxel, width_mm in found:
            suv = float(pet.array[voxel])
            if suv >= low:
                k = int(np.clip(voxel[2] + rng.integers(-telling.off, telling.off + 1), 0, pet.shape[2] - 1))
                fates.append(_fate(pet, ct, voxel, _said(pet, ct, voxel, suv, width_mm, telling), k, telling.off))
    shares = {fate: round(fates.count(fate) / len(fates), 3) for fate in ("right", "ambiguous", "wrong", "none")}
    return {"told": len(fates), **shares}


def _said(pet: Volume, ct: Volume | None, voxel: Voxel, suv: float, width_mm: float, telling: Telling) -> Finding:
    right_mm = right_of_midline_mm(voxel, pet, ct) if telling.side else None
    sided = right_mm is not None and abs(right_mm) > NEAR_MIDLINE_MM
    return Finding(
        suv=round(suv, telling.decimals),
        slice=1,
        laterality=("right" if (right_mm or 0) > 0 else "left") if sided else None,
        site=None,
        status="positive",
        reason=None,
        span=(0, 0),
        suv_decimals=telling.decimals,
        size_mm=width_mm if telling.size else None,
    )


def _fate(pet: Volume, ct: Volume | None, voxel: Voxel, finding: Finding, k: int, off: int) -> str:
    candidates = find_candidates(pet, finding, range(k, k + 1), Site(slice_tolerance=off), ct=ct)
    if not candidates:
        return "none"
    choice = assign([candidates])[0]
    if choice.ambiguous or choice.candidate is None:
        return "ambiguous"
    return "right" if choice.candidate.voxel_ijk == voxel else "wrong"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=1) + "\n")
