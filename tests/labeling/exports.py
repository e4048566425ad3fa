"""Made-up evidence: small PETs with spots, and findings whose slices are printed in a given convention."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from petground.labeling.evidence import sightings
from petground.labeling.finding import Finding
from petground.labeling.infer_numbering import ExamEvidence
from petground.labeling.numbering import slice_number
from petground.labeling.site import Site
from petground.labeling.volume import Volume

Voxel = tuple[int, int, int]


def told(suv: float, number: int, **options: object) -> Finding:
    values: dict[str, object] = {"laterality": None, "site": None, "status": "positive", "reason": None}
    return Finding(suv=round(suv, 1), slice=number, span=(0, 1), **(values | options))  # type: ignore[arg-type]


def scan(
    rng: np.random.Generator, *, ct: str = "other", upside_down: bool = False
) -> tuple[Volume, Volume, list[Voxel]]:
    """PET with about six spots in noisy tissue of SUV 1.2, its CT on the "same" slices or on "other" ones."""
    slices, width = int(rng.integers(90, 140)), 24
    array = gaussian_filter(rng.standard_normal((width, width, slices)), 1.2)
    array = (1.2 + 0.5 * array / array.std()).clip(0).astype(np.float32)
    grid, spots = np.indices(array.shape), []
    for _ in range(6):
        spot = (int(rng.integers(4, 20)), int(rng.integers(4, 20)), int(rng.integers(8, slices - 8)))
        if any(max(abs(a - b) for a, b in zip(spot, other, strict=True)) < 8 for other in spots):
            continue
        peak = float(rng.uniform(2.8, 12.0))
        distance = sum((g - c) ** 2 for g, c in zip(grid, spot, strict=True))
        array = np.maximum(array, peak * np.exp(-distance / 6.0).astype(np.float32))
        spots.append(spot)
    affine = np.diag([-4.0, -4.0, 3.0, 1.0])
    affine[2, 3] = -500.0
    pet = Volume(array, affine, "SUVbw", instance_numbers=tuple(range(slices, 0, -1)))
    if ct == "same":
        other = Volume(np.zeros((2, 2, slices), np.int16), affine, "HU")
    else:
        fine = affine.copy()
        fine[2, 2:4] = 2.0, -520.0
        other = Volume(np.zeros((2, 2, (slices * 3 + 40) // 2), np.int16), fine, "HU")
    if upside_down:  # the same image, stored from the head
        flipped = affine.copy()
        flipped[2, 3] += 3.0 * (slices - 1)
        flipped[2, 2] = -3.0
        pet = Volume(
            np.ascontiguousarray(array[:, :, ::-1]), flipped, "SUVbw", instance_numbers=tuple(range(1, slices + 1))
        )
        spots = [(i, j, slices - 1 - k) for i, j, k in spots]
    return pet, other, spots


def exam(
    rng: np.random.Generator,
    name: str,
    site: Site,
    *,
    scanner: str | None = None,
    date: str | None = None,
    slips: float = 0.15,
    slip_slices: int = 0,
    random: bool = False,
    ct: str = "other",
) -> ExamEvidence:
    """Evidence of one exam. slips: part of the slices that are any; slip_slices: how far half of the others may be off;

    random: neither values nor slices have to do with the image.
    """
    pet, other, spots = scan(rng, ct=ct, upside_down=bool(rng.random() < 0.3))
    findings = []
    for spot in spots[: int(rng.integers(2, 6))]:
        k = int(rng.integers(pet.shape[2])) if random or rng.random() < slips else spot[2]
        if rng.random() < 0.5:
            k = int(np.clip(k + rng.integers(-slip_slices, slip_slices + 1), 0, pet.shape[2] - 1))
        suv = float(rng.uniform(2.5, 12.0)) if random else float(pet.array[spot])
        findings.append(told(suv, slice_number(k, pet, site, other)))
    return ExamEvidence(name, tuple(sightings(pet, findings, Site(), ct=other)), scanner, date)
