"""A finding of a report becomes a mask on the PET: numbering, match, contour and checks, in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.body import right_of_midline_mm, towards_side_mm
from petground.labeling.confidence import asked_confidence, asked_features, confidence, features
from petground.labeling.contour import Outline, outline
from petground.labeling.errors import InputError
from petground.labeling.finding import Candidate, Excluded, Finding, Label
from petground.labeling.match import CHECK_TOLERANCE, DEEP_IN_ORGAN, Choice, assign, find_candidates, value_excess
from petground.labeling.numbering import site_for_series, slice_number, slice_to_k
from petground.labeling.organ_fit import require_on_patient
from petground.labeling.site import Site
from petground.labeling.stated import most_ml
from petground.labeling.volume import Volume

__all__ = ["label_exam", "label_finding"]

Voxel = tuple[int, int, int]
SIDE_WARNING_MM = 10.0  # nearer to the midline, organs and lesions lie across it
CLOSE_SECOND = 0.5  # another candidate with this part of the chosen one's score is worth a look


def label_finding(
    pet: Volume,
    finding: Finding,
    *,
    site: Site | None = None,
    ct: Volume | None = None,
    organs: Volume | None = None,
    tracer: str | None = None,
) -> Label | Excluded:
    """Finds and outlines the lesion that a finding reports, on an exam where it is the only one.

    pet: SUVbw. ct: HU on its own grid, for the midline and for sites that count CT slices. organs: label map with the
    ids of `organs.class_ids`; tracer: tells which of them take it up normally. Raises as `label_exam`.
    """
    return label_exam(pet, [finding], site=site, ct=ct, organs=organs, tracer=tracer)[0]


def label_exam(
    pet: Volume,
    findings: Sequence[Finding],
    *,
    site: Site | None = None,
    ct: Volume | None = None,
    organs: Volume | None = None,
    tracer: str | None = None,
    case: str | None = None,
) -> list[Label | Excluded]:
    """Labels the findings of one exam together: no maximum serves two findings, no mask grows into another's lesion.

    Returns one Label or Excluded per finding, in order; findings that are not `positive` keep their reason. Raises
    InputError when the PET holds no positive number or is not SUVbw, GeometryError when slices cannot be counted (no
    CT, no instance numbers, not axial) or the organ map does not lie on the patient. case: the exam, for messages.
    """
    site = site or Site()
    pet = _checked(pet)
    if organs is not None:
        require_on_patient(organs, pet, ct, case=case)
    fates: dict[int, Label | Excluded] = {}
    pools: dict[int, list[Candidate]] = {}
    for n, finding in enumerate(findings):
        outcome = _candidates_or_reason(pet, finding, site, ct, organs, tracer)
        if isinstance(outcome, Excluded):
            fates[n] = outcome
        else:
            pools[n] = outcome
    choices = dict(zip(pools, assign(list(pools.values())), strict=True))
    seeds = {n: choice.candidate.voxel_ijk for n, choice in choices.items() if choice.candidate is not None}
    shapes: dict[int, Outline] = {}
    for n, choice in choices.items():
        fate = _matched_or_reason(pet, findings[n], choice, pools[n], site, ct)
        if fate is not None:
            fates[n] = fate
            continue
        others = [voxel for m, voxel in seeds.items() if m != n and voxel != seeds[n]]
        shape = outline(
            pet,
            seeds[n],
            others=others,
            organs=organs,
            tracer=tracer,
            site=findings[n].site,
            rules=site,
            size_mm=findings[n].size_mm,
        )
        if shape is None:
            fates[n] = Excluded("no_contour", candidates=_chosen_first(choice, pools[n]))
        else:
            shapes[n] = shape
    masks = _disjoint(pet, {n: (seeds[n], shape) for n, shape in shapes.items()})
    for n, shape in shapes.items():
        candidates = _chosen_first(choices[n], pools[n])
        fates[n] = _label(pet, findings[n], choices[n], candidates, shape, masks[n], site, ct)
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
    pet: Volume, finding: Finding, site: Site, ct: Volume | None, organs: Volume | None, tracer: str | None
) -> list[Candidate] | Excluded:
    if finding.status != "positive":
        return Excluded(finding.reason or "ambiguous")
    if finding.slice is None:
        return Excluded("no_slice")
    if not site.numbering_known:
        return Excluded("numbering_unclear")
    if finding.suv < site.suv_minimum:
        return Excluded("suv_below_minimum", f"{finding.suv:g} is below {site.suv_minimum:g}")
    counted = _counted(site, finding, pet, ct)
    if counted is None:
        return Excluded("series_unknown", f"series {finding.series}")
    ks = slice_to_k(finding.slice, pet, counted, ct)
    if ks is None:
        return Excluded("slice_outside", f"slice {finding.slice} of {pet.shape[2]}")
    found = find_candidates(pet, finding, ks, site, ct=ct, organs=organs, tracer=tracer)
    if found:
        return found
    near = find_candidates(pet, finding, ks, site, ct=ct, organs=organs, tracer=tracer, widen=1.0)
    if near and value_excess(near[0].suv, finding) <= CHECK_TOLERANCE:
        return Excluded("check_suv", f"nearest maximum {near[0].suv:.2f}", tuple(near))
    return Excluded("no_match", candidates=tuple(near))


def _counted(site: Site, finding: Finding, pet: Volume, ct: Volume | None) -> Site | None:
    """How this finding's slice is counted: as the site does, but from the end that its report names, if any."""
    counted = site_for_series(site, finding.series, pet, ct)
    if counted is None or finding.counted_from is None or counted.slice_by_instance_number:
        return counted
    return replace(counted, slice_origin=finding.counted_from)


def _matched_or_reason(
    pet: Volume, finding: Finding, choice: Choice, pool: list[Candidate], site: Site, ct: Volume | None
) -> Excluded | None:
    """None when the finding has one clear candidate on a side that the text allows."""
    if choice.candidate is None:
        return Excluded("ambiguous_match", "its maximum fits another finding as well", tuple(pool))
    candidates = _chosen_first(choice, pool)
    if choice.ambiguous:
        return Excluded("ambiguous_match", f"{len(pool)} maxima", candidates)
    if choice.candidate.evidence.get("organ") == DEEP_IN_ORGAN:
        return Excluded("physiologic_organ", candidates=candidates)
    side_mm = _side_mm(pet, finding, choice.candidate, ct)
    if side_mm is not None and side_mm < -site.midline_margin_mm:
        return Excluded("check_laterality", f"{-side_mm:.0f} mm on the other side", candidates)
    return None


def _chosen_first(choice: Choice, pool: list[Candidate]) -> tuple[Candidate, ...]:
    assert choice.candidate is not None
    return (choice.candidate, *(c for c in pool if c is not choice.candidate))


def _side_mm(pet: Volume, finding: Finding, candidate: Candidate, ct: Volume | None) -> float | None:
    if finding.laterality not in ("left", "right"):
        return None
    return towards_side_mm(right_of_midline_mm(candidate.voxel_ijk, pet, ct), finding.laterality)


def _disjoint(pet: Volume, shapes: dict[int, tuple[Voxel, Outline]]) -> dict[int, NDArray[np.bool_]]:
    """Whole-image masks; a voxel that two outlines claim goes to the one whose hottest voxel is nearer."""
    masks: dict[int, NDArray[np.bool_]] = {}
    for n, (seed, shape) in shapes.items():
        mask = np.zeros(pet.shape, dtype=bool)
        mask[shape.box.slices] = shape.mask
        for m, other in masks.items():
            part = other[shape.box.slices] & shape.mask
            if not part.any():
                continue
            shared = np.argwhere(part) + np.array(shape.box.origin)
            points = pet.to_world_mm(shared)
            here, there = (np.linalg.norm(points - pet.to_world_mm(voxel), axis=1) for voxel in (seed, shapes[m][0]))
            mine = here < there
            other[tuple(shared[mine].T)] = False
            mask[tuple(shared[~mine].T)] = False
        mask[seed] = True
        masks[n] = mask
    return masks


def _label(
    pet: Volume,
    finding: Finding,
    choice: Choice,
    candidates: tuple[Candidate, ...],
    shape: Outline,
    mask: NDArray[np.bool_],
    site: Site,
    ct: Volume | None,
) -> Label | Excluded:
    inside = mask[shape.box.slices]
    measured = float(pet.array[shape.box.slices][inside].max())
    volume_ml = float(inside.sum()) * pet.voxel_ml
    excess = value_excess(measured, finding)
    if excess > CHECK_TOLERANCE:
        return Excluded("check_suv", f"maximum {measured:.2f}", candidates)
    if not site.min_volume_ml <= volume_ml <= site.max_volume_ml:
        return Excluded("check_volume", f"{volume_ml:.3g} ml", candidates)
    if finding.size_mm and volume_ml > most_ml(finding.size_mm):
        return Excluded("check_volume", f"{volume_ml:.3g} ml for a stated {finding.size_mm:g} mm", candidates)
    warnings = list(shape.notes)
    side_mm = _side_mm(pet, finding, candidates[0], ct)
    if side_mm is not None and side_mm < -SIDE_WARNING_MM:
        warnings.insert(0, "laterality_contradicts")
    if choice.runner_up > CLOSE_SECOND:
        warnings.insert(0, "ambiguous")
    chosen = candidates[0]
    counted = _counted(site, finding, pet, ct) or site
    if counted.slice_origin != site.slice_origin:
        warnings.append("counted_as_the_report_says")
    warnings += finding.warnings
    about = {
        "value_excess": excess,
        "slice_distance": chosen.slice_distance,
        "match_score": chosen.score,
        "prominence": chosen.evidence.get("prominence", 1.0),
        "runner_up": choice.runner_up,
        "side_mm": side_mm,
        "size_mm": finding.size_mm,
    }
    trust, measures = _trust(shape, measured, volume_ml, pet.voxel_ml, about)
    return Label(
        mask=mask,
        suv_measured=measured,
        slice_measured=slice_number(candidates[0].voxel_ijk[2], pet, counted, ct),
        voxel_ijk=candidates[0].voxel_ijk,
        volume_ml=volume_ml,
        confidence=trust,
        method=shape.method,
        threshold=shape.threshold,
        candidates=candidates,
        warnings=tuple(warnings),
        why=shape.why,
        measures=measures,
    )


def _trust(
    shape: Outline, measured: float, volume_ml: float, voxel_ml: float, about: Mapping[str, Any]
) -> tuple[float, dict[str, float]]:
    """Confidence and the measures it is made of: those of `features`, or of `asked_features` for a rule asked for.

    measured: the label's maximum [g/ml]. about: what is known apart from the outline.
    """

    def evidence(outlined: Outline, ml: float, notes: tuple[str, ...]) -> dict[str, float]:
        return features(
            **about,
            contrast=(measured - outlined.background) / measured,
            signal_to_noise=(measured - outlined.background) / max(shape.noise, 1e-6),
            stability=outlined.stability,
            volume_ml=ml,
            whole=outlined.whole,
            notes=notes,
        )

    if not shape.asked:
        measures = evidence(shape, volume_ml, shape.notes)
        return confidence(measures), measures
    auto = shape.auto
    if auto is None:  # it told nothing from the surroundings
        measures = asked_features(confidence(evidence(shape, volume_ml, shape.notes)), 0.0, 1.0, shape.stability)
    else:
        auto_ml = float(auto.mask.sum()) * voxel_ml
        shared = 2.0 * float((shape.mask & auto.mask).sum()) / float(shape.mask.sum() + auto.mask.sum())
        trust = confidence(evidence(auto, auto_ml, tuple({*shape.notes, *auto.notes})))
        measures = asked_features(trust, shared, volume_ml / auto_ml, shape.stability)
    return asked_confidence(shape.method, measures), measures
