"""From a lesion's hottest voxel to its outline.

Everything is read off one map: `level[x]`, the highest threshold at which voxel x is still connected to the seed. The
component at any threshold is `level >= threshold`, its volume curve the sorted levels, and the saddle towards another
maximum the level at that maximum.

Three rules share the lesions, and each label says which made it and why. `even`: the iterative threshold (Jentzen et
al., as used in arXiv 2502.00528) with what breaks it mended: component and background are measured anew at each step,
and the threshold is where the edge of a blurred sphere of that volume lies. `small`: lesions of the blur's size, whose
volume is estimated instead (see `small`). `uneven`: large lesions with parts of unlike uptake, cut between background
and their mean instead of their hottest voxel. All of them stop at the valley towards a hotter, a reported or a
separate neighbour, and before the plateau of an organ that they lie in or on. A site can ask for one rule of `rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from petground.labeling.maxima import Box
from petground.labeling.necks import necked_peaks
from petground.labeling.neighbourhood import Neighbourhood, neighbourhood
from petground.labeling.organs import physiologic_in
from petground.labeling.rules import RULES
from petground.labeling.site import Site
from petground.labeling.small import LARGEST_ML, outline_small
from petground.labeling.stated import around_seed, by_size, most_ml
from petground.labeling.threshold import Fixpoint, settle_even, settle_uneven
from petground.labeling.valleys import (
    hotter_foreign,
    keep_to_basin,
    noise_of,
    off_the_plateau,
    organ_plateau,
    separate_peaks,
)
from petground.labeling.volume import Volume
from petground.labeling.whole import probability_whole, signs

__all__ = ["Outline", "outline"]

Voxel = tuple[int, int, int]
FIRST_BOX_MM, LARGEST_BOX_MM = 45.0, 180.0
UNEVEN_FROM = 0.45  # not a half: the hottest part of a mass for the mass costs more Dice than a rim too wide
# Simulated lesions whose uneven component shares more of its surface were better outlined as even ones, 83 of 83; the
# five drawn sarcomas were in view.
MOST_SHARED_BORDER = 0.04
CLEARLY_EVEN = 0.3  # probability of an uneven mass below which a narrow neck parts two lesions


@dataclass(frozen=True, eq=False)
class Outline:
    """A contoured lesion: mask of the crop `box`, SUV at its edge, background SUV, and what was met on the way.

    stability: volume at a 10 % higher threshold over that at a 10 % lower one, in (0, 1]. whole: probability that the
    uneven outline fits better than the even one. why: the reason for the method, in words. noise: standard deviation
    around the lesion [g/ml]. auto: the outline that `auto` would have made, where the site asks for another rule.
    """

    box: Box
    mask: NDArray[np.bool_]
    threshold: float
    background: float
    method: str
    stability: float
    notes: tuple[str, ...] = ()
    why: str = ""
    whole: float = 0.0
    noise: float = 0.0
    auto: Outline | None = None

    @property
    def asked(self) -> bool:
        """Whether the site asked for the rule that made it."""
        return self.method in RULES


def outline(
    pet: Volume,
    seed: Voxel,
    *,
    others: Sequence[Voxel] = (),
    organs: Volume | None = None,
    site: str | None = None,
    tracer: str | None = None,
    rules: Site | None = None,
    size_mm: float | None = None,
) -> Outline | None:
    """Outlines the lesion whose hottest voxel is `seed`; None when it cannot be told from its surroundings.

    others: hottest voxels of other lesions, which the outline stops short of. organs: label map of organs with normal
    uptake of the `tracer` that it keeps out of, unless `site` names them. rules: the site's choice of rule and numbers.
    size_mm: the lesion's longest diameter as reported; an outline grossly larger is made anew near the seed.
    """
    rules = rules or Site()
    half_mm = FIRST_BOX_MM
    while True:
        near = neighbourhood(pet, seed, half_mm)
        if organs is not None:
            near = near.within(~physiologic_in(organs, pet, near.box.slices, site, tracer))
        found = _outline_in(near, [near.box.local(o) for o in others], rules, size_mm)
        if found is None or half_mm >= LARGEST_BOX_MM or not _reaches_inner_face(found.mask, near.box, pet.shape):
            break
        half_mm *= 2
    if found is not None and _reaches_image_edge(found.mask, near.box, pet.shape):
        return replace(found, notes=(*found.notes, "at_image_edge"))
    return found


def _outline_in(near: Neighbourhood, others: list[Voxel], rules: Site, size_mm: float | None) -> Outline | None:
    noise = noise_of(near.image)
    foreign = hotter_foreign(near.image, near.wide, near.seed, noise)
    for other in others:
        if all(0 <= o < n for o, n in zip(other, near.image.shape, strict=True)):
            foreign[other] = True
    basin = np.ones(near.image.shape, dtype=bool)
    if foreign.any():
        basin = keep_to_basin(near.image, near.smooth, near.seed, foreign)
        near = near.within(basin)
    bounds = _Bounds(foreign, basin, size_mm)
    found = _ruled(near, bounds, rules)
    if found is not None and size_mm and _volume_ml(near, found) > most_ml(size_mm):
        near = near.within(around_seed(near, size_mm))
        found = _ruled(near, bounds, rules) or found
        found = replace(found, notes=("larger_than_stated", *found.notes))
    if found is None:
        return None
    mask = np.asarray(ndimage.binary_fill_holes(found.mask) & (near.domain | found.mask), dtype=bool)
    if (ndimage.binary_dilation(mask) & ~basin & (near.image >= found.threshold)).any():
        return replace(found, mask=mask, noise=noise, notes=("touches_hotter", *found.notes))
    return replace(found, mask=mask, noise=noise)


@dataclass(frozen=True, eq=False)
class _Bounds:
    """What keeps an outline in: foreign voxels, the seed's side of the valley towards them, the stated size."""

    foreign: NDArray[np.bool_]
    basin: NDArray[np.bool_]
    size_mm: float | None


def _volume_ml(near: Neighbourhood, found: Outline) -> float:
    return float(found.mask.sum()) * near.voxel_ml


def _ruled(near: Neighbourhood, bounds: _Bounds, rules: Site) -> Outline | None:
    """The outline by the rule that the site asks for."""
    chosen = _chosen(near, bounds)
    if rules.contour == "auto":
        return chosen
    asked = _asked(near, rules)
    return None if asked is None else replace(asked, auto=chosen)


def _asked(near: Neighbourhood, rules: Site) -> Outline | None:
    """The outline by the rule that the site asks for."""
    ruled = RULES[rules.contour](near, rules)
    if not ruled.mask[near.seed]:
        return None
    stability = _stability(near, ruled.threshold)
    return Outline(near.box, ruled.mask, ruled.threshold, ruled.background, rules.contour, stability, (), ruled.why)


def _chosen(near: Neighbourhood, bounds: _Bounds) -> Outline | None:
    """The outline by the rule that suits the lesion."""
    notes = []
    fit = _fitting(near, bounds)
    if fit.plateau is not None:
        notes.append("on_organ")
        near = near.within(off_the_plateau(near.smooth, near.level, fit.plateau, near.spacing_mm))
        fit = _fitting(near, bounds)
    peaks = separate_peaks(near.image, near.wide, near.level, fit.found.threshold, fit.found.background)
    if fit.whole < CLEARLY_EVEN:  # a mass of several nodules has necks of its own
        peaks |= necked_peaks(near, fit.found.threshold)
    if peaks.any():
        notes.append("touches_other")
        near = near.within(keep_to_basin(near.image, near.smooth, near.seed, peaks | bounds.foreign))
        fit = _fitting(near, bounds)
    threshold, background = fit.found.threshold, fit.found.background
    if threshold >= near.top:
        return None
    mask, method, why = near.component(threshold), fit.method, fit.why
    if method == "even" and fit.found.volume_ml < LARGEST_ML:
        mask, threshold = outline_small(near, background)
        method, why = "small", f"{fit.found.volume_ml:.2f} ml at half height: of the blur's size, volume estimated"
    if not mask.any():
        return None
    stability = _stability(near, threshold)
    return Outline(near.box, mask, threshold, background, method, stability, tuple(notes), why, fit.whole)


@dataclass(frozen=True)
class _Fit:
    """A method with its threshold and reason, and the plateau of an organ that it runs into, if it does."""

    method: str
    found: Fixpoint
    why: str
    whole: float
    plateau: tuple[float, float] | None = None


def _fitting(near: Neighbourhood, bounds: _Bounds) -> _Fit:
    """Even or uneven. The hottest spot of a mass has nothing hotter beside it: an uneven component that borders on what
    is hotter is the flank or the rest of that, an organ mostly.
    """
    even = settle_even(near.image, near.level, near.domain, near.spacing_mm)
    uneven = settle_uneven(near.image, near.level, near.domain, near.spacing_mm)
    whole = probability_whole(signs(near.wide, near.level, even, uneven, near.spacing_mm))
    even_why = "one even lesion"
    if whole > 0 and bounds.foreign.any() and _shared_border(near, uneven.threshold, bounds.basin) > MOST_SHARED_BORDER:
        whole, even_why = 0.0, "what is around it belongs to something hotter"
    if whole > 0 and bounds.size_mm:
        even_ml = float(near.component(even.threshold).sum()) * near.voxel_ml
        whole = by_size(whole, even_ml, uneven.volume_ml, bounds.size_mm)
    if whole > UNEVEN_FROM:
        why = f"hottest part of a larger lesion of {uneven.volume_ml:.0f} ml (p {whole:.2f})"
        return _Fit("uneven", uneven, why, whole)
    plateau = organ_plateau(near.image, near.wide, near.level, even.threshold, near.voxel_ml)
    return _Fit("even", even, f"{even_why} (p {1 - whole:.2f})", whole, plateau)


def _shared_border(near: Neighbourhood, threshold: float, basin: NDArray[np.bool_]) -> float:
    """Share of a component's surface across which uptake goes on, at or above the threshold, outside of the basin."""
    mask = near.component(threshold)
    shell = ndimage.binary_dilation(mask) & ~mask
    beyond = shell & ~basin & (near.image >= threshold)
    return float(beyond.sum()) / max(int(shell.sum()), 1)


def _stability(near: Neighbourhood, threshold: float) -> float:
    tight, loose = (int((near.level >= threshold * f).sum()) for f in (1.1, 0.9))
    return max(tight, 1) / max(loose, 1)


def _reaches_inner_face(mask: NDArray[np.bool_], box: Box, shape: Voxel) -> bool:
    for axis, (part, size) in enumerate(zip(box.slices, shape, strict=True)):
        edge = np.moveaxis(mask, axis, 0)
        if (part.start > 0 and edge[0].any()) or (part.stop < size and edge[-1].any()):
            return True
    return False


def _reaches_image_edge(mask: NDArray[np.bool_], box: Box, shape: Voxel) -> bool:
    for axis, (part, size) in enumerate(zip(box.slices, shape, strict=True)):
        edge = np.moveaxis(mask, axis, 0)
        if (part.start == 0 and edge[0].any()) or (part.stop == size and edge[-1].any()):
            return True
    return False
