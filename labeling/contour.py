"""From a lesion's hottest voxel to its outline.

Everything is read off one map: `level[x]`, the highest threshold at which voxel x is still connected to the seed. The
component at any threshold is `level >= threshold`, its volume curve the sorted levels, and the saddle towards another
maximum the level at that maximum.

The rule starts from the iterative threshold (Jentzen et al., as used in arXiv 2502.00528) and mends what breaks it:
the component and the background around it are measured anew at each step instead of only growing; the threshold lies
between background and the lesion's mean rather than its single hottest voxel once the lesion is larger than the
scanner's blur, so that large uneven lesions are outlined whole; lesions of the blur's size get the threshold at which
a blurred sphere has its true volume; a lesion stops at the valley towards a hotter or a separate neighbour, and before
the plateau of an organ it lies in or on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import reconstruction

from petground.labeling.maxima import Box, box_around
from petground.labeling.organs import physiologic_in
from petground.labeling.threshold import Fixpoint, settle_even, settle_uneven
from petground.labeling.valleys import (
    WIDE_FWHM_MM,
    hotter_foreign,
    keep_to_basin,
    noise_of,
    off_the_plateau,
    organ_plateau,
    separate_peaks,
)
from petground.labeling.volume import Volume
from petground.labeling.whole import is_part_of_larger

__all__ = ["Outline", "outline"]

Voxel = tuple[int, int, int]
FIRST_BOX_MM, LARGEST_BOX_MM = 45.0, 180.0
SMOOTH_FWHM_MM = 5.0


@dataclass(frozen=True, eq=False)
class Outline:
    """A contoured lesion: mask of the crop `box`, SUV at its edge, background SUV, and what was met on the way.

    stability: volume at a 10 % higher threshold over that at a 10 % lower one, in (0, 1].
    """

    box: Box
    mask: NDArray[np.bool_]
    threshold: float
    background: float
    method: str
    stability: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Crop:
    """The neighbourhood that an outline is worked out in."""

    image: NDArray[np.float32]
    seed: Voxel
    spacing_mm: tuple[float, float, float]
    voxel_ml: float


def outline(
    pet: Volume,
    seed: Voxel,
    *,
    others: Sequence[Voxel] = (),
    organs: Volume | None = None,
    site: str | None = None,
) -> Outline | None:
    """Outlines the lesion whose hottest voxel is `seed`; None when it cannot be told from its surroundings.

    others: hottest voxels of other lesions, which the outline stops short of. organs: label map of organs with normal
    uptake that it keeps out of, unless `site` names them.
    """
    half_mm = FIRST_BOX_MM
    while True:
        box = box_around(seed, half_mm, pet.shape, pet.spacing_ijk_mm)
        crop = _Crop(pet.array[box.slices], box.local(seed), pet.spacing_ijk_mm, pet.voxel_ml)
        blocked = np.zeros(crop.image.shape, dtype=bool)
        if organs is not None:
            blocked = physiologic_in(organs, pet, box.slices, site)
        found = _outline_in(crop, box, [box.local(o) for o in others], blocked)
        if found is None or half_mm >= LARGEST_BOX_MM or not _reaches_inner_face(found.mask, box, pet.shape):
            break
        half_mm *= 2
    if found is not None and _reaches_image_edge(found.mask, box, pet.shape):
        return Outline(**{**found.__dict__, "notes": (*found.notes, "at_image_edge")})
    return found


def _outline_in(crop: _Crop, box: Box, others: list[Voxel], blocked: NDArray[np.bool_]) -> Outline | None:
    image, seed = crop.image, crop.seed
    noise = noise_of(image)
    smooth, wide = (
        ndimage.gaussian_filter(image, [fwhm / 2.355 / s for s in crop.spacing_mm])
        for fwhm in (SMOOTH_FWHM_MM, WIDE_FWHM_MM)
    )
    notes = []
    domain = ~blocked & (image <= image[seed])
    domain[seed] = True
    foreign = hotter_foreign(image, wide, seed, noise)
    for other in others:
        if all(0 <= o < n for o, n in zip(other, image.shape, strict=True)):
            foreign[other] = True
    basin = keep_to_basin(image, smooth, seed, foreign) if foreign.any() else np.ones(image.shape, dtype=bool)
    domain &= basin
    level = _levels(image, seed, domain)
    method, fixed, plateau = _fitting(crop, level, wide, domain)
    if plateau is not None:
        notes.append("on_organ")
        domain &= off_the_plateau(smooth, level, plateau, crop.spacing_mm)
        level = _levels(image, seed, domain)
        method, fixed, _ = _fitting(crop, level, wide, domain)
    peaks = separate_peaks(image, wide, level, fixed.threshold, fixed.background)
    if peaks.any():
        notes.append("touches_other")
        domain &= keep_to_basin(image, smooth, seed, peaks | foreign)
        level = _levels(image, seed, domain)
        method, fixed, _ = _fitting(crop, level, wide, domain)
    mask = level >= fixed.threshold
    if not mask.any() or fixed.threshold >= image[seed]:
        return None
    tight, loose = ((level >= fixed.threshold * f).sum() for f in (1.1, 0.9))
    mask = np.asarray(ndimage.binary_fill_holes(mask) & domain, dtype=bool)
    if (ndimage.binary_dilation(mask) & ~basin & (image >= fixed.threshold)).any():
        notes.insert(0, "touches_hotter")
    stability = float(max(tight, 1) / max(loose, 1))
    return Outline(box, mask, fixed.threshold, fixed.background, method, stability, tuple(notes))


def _fitting(
    crop: _Crop, level: NDArray[np.float32], wide: NDArray[np.float32], domain: NDArray[np.bool_]
) -> tuple[str, Fixpoint, tuple[float, float] | None]:
    """Method and threshold that suit the lesion, and the plateau of an organ that it runs into, if it does."""
    image = crop.image
    even = settle_even(image, level, domain, crop.spacing_mm)
    plateau = organ_plateau(image, wide, level, even.threshold, crop.voxel_ml)
    if plateau is None:
        uneven = settle_uneven(image, level, domain, crop.spacing_mm)
        if is_part_of_larger(image, wide, level, even, uneven, crop.spacing_mm):
            return "uneven", uneven, None
    return "even", even, plateau


def _levels(image: NDArray[np.float32], seed: Voxel, domain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The highest threshold at which each voxel is 6-connected to the seed within the domain."""
    floor = np.float32(min(float(image.min()), 0.0) - 1.0)
    ceiling = np.where(domain, np.minimum(image, image[seed]), floor)
    start = np.full(image.shape, floor, dtype=np.float32)
    start[seed] = ceiling[seed]
    return np.asarray(reconstruction(start, ceiling, footprint=ndimage.generate_binary_structure(3, 1)), np.float32)


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
