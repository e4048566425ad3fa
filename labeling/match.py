"""From a reported SUVmax and slice to the voxel that is meant: candidates, their scores, and the joint choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from petground.labeling.body import right_of_midline_mm, towards_side_mm
from petground.labeling.finding import Candidate, Finding
from petground.labeling.maxima import box_around, component_at, dominance, local_maxima
from petground.labeling.organs import named_organs, organ_at
from petground.labeling.site import Site
from petground.labeling.structures import distance_mm, structures
from petground.labeling.volume import Volume

__all__ = [
    "CHECK_TOLERANCE",
    "DEEP_IN_ORGAN",
    "Choice",
    "assign",
    "find_candidates",
    "rounding_interval",
    "told_interval",
    "value_excess",
]

CHECK_TOLERANCE = 0.2  # label maximum against text [g/ml]; arXiv 2502.00528
CLEARLY_BETTER = 0.9  # another candidate that reaches this part of the chosen one's score leaves the match ambiguous
PROMINENT = 0.5  # a maximum that stands out by half of its value is a lesion as good as any
SAME_LESION = 0.85  # two maxima joined at this part of the lower one are one lesion
REACH_MM = 60.0  # how far from the slice a lesion's maximum may lie when its body covers the slice
MOST_CANDIDATES = 12
BLUR_MM = 7.0  # what the scanner adds to a lesion's width, in quadrature
SIZE_FACTOR = 2.0  # CT sizes are longest diameters of what is seen there: this much off tells nothing
DEEP_IN_ORGAN, ON_ORGAN = 0.1, 0.4  # normal uptake that the text does not name; at its border it may be a lesion
PLACE_MM = 15.0  # nearer than this to the structure that the site names is as good as in it: breathing, blur, border


@dataclass(frozen=True)
class Choice:
    """What the joint choice gave one finding: its candidate, and whether another was about as good."""

    candidate: Candidate | None
    runner_up: float  # best other score for this finding as part of the chosen one's, in [0, 1]
    ambiguous: bool = False
    taken: bool = False  # it had candidates, but other findings fit them better


def rounding_interval(suv: float, decimals: int) -> tuple[float, float]:
    """The values that print as `suv`: 5.2 with one decimal -> [5.15, 5.25), 3.14 with two -> [3.135, 3.145)."""
    half = 0.5 * 10.0**-decimals
    return suv - half, suv + half


def told_interval(finding: Finding) -> tuple[float, float]:
    """The values that a finding can mean: its rounding interval, open to one side where the report gives a bound.

    "SUVmax < 3" is matched down to half of it: fainter uptake could be anything.
    """
    low, high = rounding_interval(finding.suv, finding.suv_decimals)
    if "at_least" in finding.warnings:
        return low, np.inf
    return (0.5 * finding.suv, high) if "at_most" in finding.warnings else (low, high)


def value_excess(value: float, finding: Finding) -> float:
    """How far a measured maximum lies outside of what the printed number can mean [g/ml]; 0 inside."""
    low, high = told_interval(finding)
    return max(low - value, value - high, 0.0)


def find_candidates(
    pet: Volume,
    finding: Finding,
    ks: range,
    site: Site,
    *,
    ct: Volume | None = None,
    organs: Volume | None = None,
    tracer: str | None = None,
    widen: float | None = None,
) -> list[Candidate]:
    """Maxima that the finding can mean, best first.

    A local maximum of the printed value on the slice (within the site's tolerance of slices) or, scored lower, one
    whose lesion at half its value covers the slice. `widen` replaces `site.suv_tolerance`. organs: see `organs`; with
    `tracer` it tells which uptake is normal.
    """
    body = _Body(pet, ct, organs, tracer)
    tolerance = site.suv_tolerance if widen is None else widen
    low, high = told_interval(finding)
    # float32 voxels: 5.15 is stored as 5.1500001
    low, high = low - tolerance - 1e-5, high + tolerance + 1e-5
    near = range(max(ks.start - site.slice_tolerance, 0), min(ks.stop + site.slice_tolerance, pet.shape[2]))
    voxels = local_maxima(pet.array, near, low, high)
    covering = [v for v in _covering(pet, ks, low, high) if v not in voxels]
    scored = [_scored(body, finding, v, ks, covers=False) for v in voxels[: 4 * MOST_CANDIDATES]]
    scored += [_scored(body, finding, v, ks, covers=True) for v in covering]
    return _one_per_lesion(pet, sorted(scored, key=lambda c: -c.score))[:MOST_CANDIDATES]


def assign(candidates: Sequence[Sequence[Candidate]]) -> list[Choice]:
    """One maximum per finding, no maximum twice, with the highest sum of scores over the exam.

    A finding is ambiguous when forcing it to another of its candidates costs the exam less than a tenth of its score.
    """
    voxels = sorted({c.voxel_ijk for row in candidates for c in row})
    column = {v: n for n, v in enumerate(voxels)}
    gain = np.zeros((len(candidates), len(voxels) + len(candidates)))  # the last columns: no label
    for row, found in enumerate(candidates):
        for c in found:
            gain[row, column[c.voxel_ijk]] = c.score
    total, chosen = _best(gain)
    choices = []
    for row, found in enumerate(candidates):
        own = next((c for c in found if column[c.voxel_ijk] == chosen[row] and c.score > 0), None)
        if own is None:
            choices.append(Choice(None, 0.0, taken=bool(found)))
            continue
        loss = min((total - _best_with(gain, row, column[c.voxel_ijk]) for c in found if c is not own), default=np.inf)
        runner_up = float(np.clip(1.0 - loss / own.score, 0.0, 1.0))
        choices.append(Choice(own, runner_up, ambiguous=runner_up > CLEARLY_BETTER))
    return choices


def _best(gain: np.ndarray) -> tuple[float, np.ndarray]:
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return float(gain[rows, columns].sum()), columns


def _best_with(gain: np.ndarray, row: int, column: int) -> float:
    rest = np.delete(np.delete(gain, row, axis=0), column, axis=1)
    return float(gain[row, column]) + (_best(rest)[0] if len(rest) else 0.0)


def _covering(pet: Volume, ks: range, low: float, high: float) -> list[tuple[int, int, int]]:
    """Maxima of the wanted value off the slice, whose component at half the value reaches the slice."""
    reach = int(REACH_MM / pet.spacing_ijk_mm[2])
    first, last = max(ks.start - reach, 0), min(ks.stop + reach, pet.shape[2])
    maxima = local_maxima(pet.array, range(first, last), low, high)
    if not maxima:
        return []
    slab = pet.array[:, :, first:last]
    labels = cc3d.connected_components(slab >= (low + high) / 4, connectivity=6)
    covers = set(np.unique(labels[:, :, ks.start - first : ks.stop - first]).tolist()) - {0}
    covers -= set(np.unique(labels[slab >= high]).tolist())  # its maximum is another
    hottest: dict[int, tuple[int, int, int]] = {}
    for i, j, k in maxima:  # hottest first
        label = int(labels[i, j, k - first])
        if label in covers:
            hottest.setdefault(label, (i, j, k))
    return list(hottest.values())


@dataclass(frozen=True, eq=False)
class _Body:
    """What a candidate is seen in."""

    pet: Volume
    ct: Volume | None
    organs: Volume | None
    tracer: str | None


def _scored(body: _Body, finding: Finding, voxel: tuple[int, int, int], ks: range, *, covers: bool) -> Candidate:
    pet = body.pet
    value = float(pet.array[voxel])
    excess = value_excess(value, finding)
    distance = max(ks.start - voxel[2], voxel[2] - (ks.stop - 1), 0)
    box = box_around(voxel, 30.0, pet.shape, pet.spacing_ijk_mm)
    height = 1.0 - dominance(pet.array[box.slices], box.local(voxel))
    evidence = {
        "value": 1.0 if excess <= 1e-5 else 0.7 - 0.2 * min(excess / CHECK_TOLERANCE, 1.0),
        "slice": 0.5 * 0.98**distance if covers and distance else 0.85**distance,
        "prominence": float(np.clip(height / PROMINENT, 0.05, 1.0) ** 0.5),
    }
    side_mm = towards_side_mm(right_of_midline_mm(voxel, pet, body.ct), finding.laterality)
    if side_mm is not None:
        evidence["side_mm"] = side_mm
        evidence["laterality"] = 0.05 + 0.95 / (1.0 + float(np.exp(-(side_mm + 10.0) / 10.0)))
    if finding.size_mm:
        width = _width_mm(pet.array[box.slices], box.local(voxel), pet.voxel_ml)
        off = abs(float(np.log(width / np.hypot(finding.size_mm, BLUR_MM))))
        evidence["size"] = float(np.clip(np.exp(-((max(off - np.log(SIZE_FACTOR), 0.0) / 0.5) ** 2)), 0.3, 1.0))
    if body.organs is not None:
        evidence |= _in_the_body(body, body.organs, finding, voxel)
    score = float(np.prod([part for name, part in evidence.items() if not name.endswith("_mm")]))
    return Candidate(voxel, value, score, distance, evidence)


def _width_mm(crop: NDArray[np.float32], seed: tuple[int, int, int], voxel_ml: float) -> float:
    """Diameter of a ball as large as the component at half the candidate's value."""
    volume_ml = float(component_at(crop, seed, 0.5 * float(crop[seed])).sum()) * voxel_ml
    return float((6000.0 * volume_ml / np.pi) ** (1 / 3))


def _in_the_body(body: _Body, organs: Volume, finding: Finding, voxel: tuple[int, int, int]) -> dict[str, float]:
    """Whether the place is normal uptake that the text does not name, and how far it is from what the text names."""
    evidence = {}
    found = organ_at(organs, body.pet, voxel, body.tracer)
    unnamed = found is not None and found[0] not in named_organs(finding.site)
    evidence["organ"] = (DEEP_IN_ORGAN if found[1] else ON_ORGAN) if found is not None and unnamed else 1.0
    wanted = structures(finding.site, finding.laterality)
    away_mm = distance_mm(organs, body.pet.to_world_mm(voxel), wanted)
    if away_mm is not None:
        evidence["place_mm"] = away_mm
        evidence["place"] = float(np.clip(1.0 - (away_mm - PLACE_MM) / 40.0, 0.3, 1.0))
    return evidence


def _one_per_lesion(pet: Volume, candidates: list[Candidate]) -> list[Candidate]:
    """Drops maxima that are the same lesion as a better candidate; the hottest of a lesion stands for it."""
    kept: list[Candidate] = []
    for candidate in candidates:
        twin = next((n for n, other in enumerate(kept) if _joined(pet, candidate, other)), None)
        if twin is None:
            kept.append(candidate)
        elif candidate.suv > kept[twin].suv and candidate.evidence["value"] >= kept[twin].evidence["value"]:
            kept[twin] = replace(candidate, score=max(candidate.score, kept[twin].score))
    return kept


def _joined(pet: Volume, a: Candidate, b: Candidate) -> bool:
    lower, upper = sorted((a, b), key=lambda c: c.suv)
    box = box_around(lower.voxel_ijk, 30.0, pet.shape, pet.spacing_ijk_mm)
    there = box.local(upper.voxel_ijk)
    crop = pet.array[box.slices]
    if any(not 0 <= t < n for t, n in zip(there, crop.shape, strict=True)):
        return False
    return bool(component_at(crop, box.local(lower.voxel_ijk), SAME_LESION * lower.suv)[there])
