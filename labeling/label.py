"""A finding of a report becomes a mask on the PET: numbering, match, contour and checks, in that order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from petground.labeling.body import right_of_midline_mm, towards_side_mm
from petground.labeling.confidence import confidence, features
from petground.labeling.contour import Outline, outline
from petground.labeling.errors import InputError
from petground.labeling.finding import Candidate, Excluded, Finding, Label
from petground.labeling.match import CHECK_TOLERANCE, Choice, assign, find_candidates, value_excess
from petground.labeling.numbering import slice_number, slice_to_k
from petground.labeling.site import Site
from petground.labeling.volume import Volume

__all__ = ["label_exam", "label_finding"]


def label_finding(
    pet: Volume,
    finding: Finding,
    *,
    site: Site | None = None,
    ct: Volume | None = None,
    organs: Volume | None = None,
) -> Label | Excluded:
    """Finds and outlines the lesion that a finding reports, on an exam where it is the only one.

    pet: SUVbw. ct: HU on its own grid, for the midline and for sites that count CT slices. organs: label map with the
    ids of `organs.PHYSIOLOGIC`. Raises as `label_exam`.
    """
    return label_exam(pet, [finding], site=site, ct=ct, organs=organs)[0]


def label_exam(
    pet: Volume,
    findings: Sequence[Finding],
    *,
    site: Site | None = None,
    ct: Volume | None = None,
    organs: Volume | None = None,
) -> list[Label | Excluded]:
    """Labels the findings of one exam together: no maximum serves two findings, no mask grows into another's lesion.

    Returns one Label or Excluded per finding, in order; findings that are not `positive` keep their reason. Raises
    InputError when the PET holds no positive number or is not SUVbw, GeometryError when slices cannot be counted (no
    CT, no instance numbers, not axial).
    """
    site = site or Site()
    pet = _checked(pet)
    fates: dict[int, Label | Excluded] = {}
    pools: dict[int, list[Candidate]] = {}
    for n, finding in enumerate(findings):
        outcome = _candidates_or_reason(pet, finding, site, ct, organs)
        if isinstance(outcome, Excluded):
            fates[n] = outcome
        else:
            pools[n] = outcome
    choices = dict(zip(pools, assign(list(pools.values())), strict=True))
    seeds = {n: choice.candidate.voxel_ijk for n, choice in choices.items() if choice.candidate is not None}
    for n, choice in choices.items():
        others = [voxel for m, voxel in seeds.items() if m != n]
        fates[n] = _fate(pet, findings[n], choice, pools[n], others, site, ct, organs)
    return [fates[n] for n in range(len(findings))]


def _checked(pet: Volume) -> Volume:
    if pet.unit != "SUVbw":
        raise InputError(f"the PET counts in {pet.unit}", fix="convert it to SUVbw first")
    array = np.asarray(pet.array, dtype=np.float32)
    if not np.isfinite(array).all():
        array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    if not (array > 0).any():
        raise InputError("the PET holds no positive value", fix="check the series that was read and its SUV factor")
    return pet.like(array, "SUVbw")


def _candidates_or_reason(
    pet: Volume, finding: Finding, site: Site, ct: Volume | None, organs: Volume | None
) -> list[Candidate] | Excluded:
    if finding.status != "positive":
        return Excluded(finding.reason or "ambiguous")
    if finding.slice is None:
        return Excluded("no_slice")
    if finding.suv < site.suv_minimum:
        return Excluded("suv_below_minimum", f"{finding.suv:g} is below {site.suv_minimum:g}")
    ks = slice_to_k(finding.slice, pet, site, ct)
    if ks is None:
        return Excluded("slice_outside", f"slice {finding.slice} of {pet.shape[2]}")
    found = find_candidates(pet, finding, ks, site, ct=ct, organs=organs)
    if found:
        return found
    near = find_candidates(pet, finding, ks, site, ct=ct, organs=organs, widen=1.0)
    if near and value_excess(near[0].suv, finding) <= CHECK_TOLERANCE:
        return Excluded("check_suv", f"nearest maximum {near[0].suv:.2f}", tuple(near))
    return Excluded("no_match", candidates=tuple(near))


def _fate(
    pet: Volume,
    finding: Finding,
    choice: Choice,
    pool: list[Candidate],
    others: list[tuple[int, int, int]],
    site: Site,
    ct: Volume | None,
    organs: Volume | None,
) -> Label | Excluded:
    if choice.candidate is None:
        return Excluded("ambiguous_match", "its maximum fits another finding as well", tuple(pool))
    chosen = choice.candidate
    candidates = (chosen, *(c for c in pool if c is not chosen))
    if choice.ambiguous:
        return Excluded("ambiguous_match", f"{len(pool)} maxima", candidates)
    warnings = []
    side_mm = towards_side_mm(right_of_midline_mm(chosen.voxel_ijk, pet, ct), finding.laterality)
    if side_mm is not None and side_mm < -site.midline_margin_mm:
        return Excluded("check_laterality", f"{-side_mm:.0f} mm on the other side", candidates)
    if side_mm is not None and side_mm < -10.0:
        warnings.append("laterality_contradicts")
    shape = outline(pet, chosen.voxel_ijk, others=others, organs=organs, site=finding.site)
    if shape is None:
        return Excluded("no_contour", candidates=candidates)
    return _label(pet, finding, choice, candidates, shape, warnings, site, ct)


def _label(
    pet: Volume,
    finding: Finding,
    choice: Choice,
    candidates: tuple[Candidate, ...],
    shape: Outline,
    warnings: list[str],
    site: Site,
    ct: Volume | None,
) -> Label | Excluded:
    crop = pet.array[shape.box.slices]
    measured = float(crop[shape.mask].max())
    volume_ml = float(shape.mask.sum()) * pet.voxel_ml
    excess = value_excess(measured, finding)
    if excess > CHECK_TOLERANCE:
        return Excluded("check_suv", f"maximum {measured:.2f}", candidates)
    if volume_ml > site.max_volume_ml:
        return Excluded("check_volume", f"{volume_ml:.0f} ml", candidates)
    mask = np.zeros(pet.shape, dtype=bool)
    mask[shape.box.slices] = shape.mask
    measures = features(
        value_excess=excess,
        match_score=candidates[0].score,
        runner_up=choice.runner_up,
        contrast=(measured - shape.background) / measured,
        stability=shape.stability,
        volume_ml=volume_ml,
    )
    return Label(
        mask=mask,
        suv_measured=measured,
        slice_measured=slice_number(candidates[0].voxel_ijk[2], pet, site, ct),
        voxel_ijk=candidates[0].voxel_ijk,
        volume_ml=volume_ml,
        confidence=confidence(measures),
        method=shape.method,
        threshold=shape.threshold,
        candidates=candidates,
        warnings=(*warnings, *shape.notes),
    )
