"""The outlining rules that a site can ask for by name; `auto` (see `contour`) chooses by lesion instead.

Each works inside the lesion's domain: its own side of the valleys towards other reported and hotter lesions, outside
of organs that are given. `level` is the connection level to the seed as `contour` explains it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import random_walker, watershed

from petground.labeling.neighbourhood import Neighbourhood
from petground.labeling.site import Site
from petground.labeling.threshold import Fixpoint, around_component, settle_even

__all__ = ["RULES", "Ruled", "iterative_threshold"]

Mask = NDArray[np.bool_]
Reals = NDArray[np.float32]
SURE, SURELY_NOT = 0.7, 0.2  # of the height above background: where gradient and random walker start from
CLEAR_MM = 6.0  # a blur's width beyond the foot of the lesion begins what is surely not lesion
GRADIENT_FRACTIONS, GRADIENT_BAND = np.arange(0.25, 0.76, 0.025), 0.1  # of the height above background
WALKER_BETA = 90.0  # how strongly a step in uptake stops the walk; scikit-image's default of 130 is for noisier data
MOST_WALKED = 150_000  # voxels to decide; above, the gradient decides: the walk would take minutes


@dataclass(frozen=True, eq=False)
class Ruled:
    """A rule's mask, SUV at its edge, the background it was measured against, and the rule in words."""

    mask: Mask
    threshold: float
    background: float
    why: str


def iterative_threshold(
    image: Reals, level: Reals, domain: Mask, spacing_mm: tuple[float, float, float], steps: int = 30
) -> Fixpoint:
    """Jentzen's threshold, T / SUVmax = 0.078 / V [ml] + 0.617 B / SUVmax + 0.316, solved instead of grown.

    Mends of the published use (arXiv 2502.00528): the component is taken anew at each threshold, so it can shrink as
    well; B is the median outside of the present component and on its own side of the valleys, not a shell that may
    lie inside of a large lesion; steps are halved, so that it does not swing; the volume term is bounded, because a
    voxel is no measure of volume. From Jentzen et al., J Nucl Med 2007;48:108.
    """
    top = float(level.max())
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    threshold, volume, background = 0.5 * top, 0.0, 0.0
    for _ in range(steps):
        mask = level >= threshold
        volume = float(mask.sum()) * voxel_ml
        background = around_component(image, mask, domain)
        new = top * (min(0.078 / max(volume, 1e-6), 0.3) + 0.316) + 0.617 * background
        new = float(np.clip(new, 0.05 * top, 0.9 * top))
        if abs(new - threshold) < 0.01 * threshold:
            break
        threshold = (threshold + new) / 2
    return Fixpoint(threshold, volume, background)


def _iterative(near: Neighbourhood, site: Site) -> Ruled:
    found = iterative_threshold(near.image, near.level, near.domain, near.spacing_mm)
    return Ruled(near.level >= found.threshold, found.threshold, found.background, "iterative threshold of volume")


def _fraction(near: Neighbourhood, site: Site) -> Ruled:
    threshold = site.contour_fraction * near.top
    mask = near.level >= threshold
    return Ruled(mask, threshold, _background(near, mask), f"{site.contour_fraction:.0%} of the maximum")


def _absolute(near: Neighbourhood, site: Site) -> Ruled:
    mask = near.level >= site.contour_suv
    return Ruled(mask, site.contour_suv, _background(near, mask), f"SUV {site.contour_suv:g} and above")


def _gradient(near: Neighbourhood, site: Site) -> Ruled:
    """The threshold on whose surface uptake falls most steeply: half height for an even lesion well above the blur."""
    even = settle_even(near.image, near.level, near.domain, near.spacing_mm)
    wide_enough = [n > 1 for n in near.image.shape]
    slopes = [
        np.gradient(near.image, step, axis=axis) for axis, step in enumerate(near.spacing_mm) if wide_enough[axis]
    ]
    steepness = np.sqrt(np.sum(np.square(slopes), axis=0)) if slopes else np.zeros(near.image.shape)
    height = near.top - even.background
    best, steepest = even.threshold, 0.0
    for fraction in GRADIENT_FRACTIONS:
        threshold = even.background + fraction * height
        surface = (near.level >= threshold) & (near.level < threshold + GRADIENT_BAND * height)
        mean = float(steepness[surface].mean()) if surface.any() else 0.0
        if mean > steepest:
            best, steepest = threshold, mean
    return Ruled(near.component(best), best, even.background, "threshold at the steepest fall of uptake")


def _random_walker(near: Neighbourhood, site: Site) -> Ruled:
    """Grady, IEEE Trans Pattern Anal Mach Intell 2006;28:1768."""
    markers, even = _sure_and_not(near)
    undecided = np.where(near.domain | (markers > 0), markers, -1)
    if int((undecided == 0).sum()) > MOST_WALKED:
        return _gradient(near, site)
    if not (undecided == 0).any():
        return Ruled(markers == 1, even.threshold, even.background, "core only: nothing lies between it and its foot")
    scaled = (near.image - even.background) / max(near.top - even.background, 1e-6)
    walked = random_walker(scaled, undecided, beta=WALKER_BETA, mode="cg_j", prob_tol=1.0, spacing=near.spacing_mm)
    mask = _with_seed(np.asarray((walked == 1) & near.domain, dtype=bool), near.seed)
    return Ruled(mask, _edge_suv(near.image, mask), even.background, "random walker from core and surroundings")


def _watershed(near: Neighbourhood, site: Site) -> Ruled:
    """The seed's own catchment basin among all smoothed maxima, cut at the even lesion's threshold within it."""
    peaks = (near.smooth == ndimage.maximum_filter(near.smooth, 3)) & (near.smooth > 0.3 * near.top)
    markers = np.asarray(ndimage.label(peaks)[0], np.int32) + 1
    markers[~peaks] = 0
    beside = tuple(slice(max(0, s - 2), s + 3) for s in near.seed)
    own = markers[beside]
    markers[beside] = np.where(own > 0, 1, own)  # the smoothed maximum lies a voxel or two beside the hottest one
    markers[near.seed] = 1
    basin = np.asarray(watershed(-near.smooth, markers, connectivity=1) == 1, dtype=bool) & near.domain
    level = np.where(basin, near.level, near.level.min())
    even = settle_even(near.image, level, basin, near.spacing_mm)
    mask = _with_seed(level >= even.threshold, near.seed)
    return Ruled(mask, even.threshold, even.background, "own catchment basin, cut at the lesion's edge")


def _sure_and_not(near: Neighbourhood) -> tuple[NDArray[np.int32], Fixpoint]:
    """Markers 1 for the lesion's core and 2 for what is beyond its foot; 0 in between."""
    even = settle_even(near.image, near.level, near.domain, near.spacing_mm)
    height = near.top - even.background
    foot = near.level >= min(even.background + SURELY_NOT * height, even.threshold)
    outside = ndimage.distance_transform_edt(~foot, sampling=near.spacing_mm) > CLEAR_MM
    markers = np.where(outside | ~near.domain, 2, 0).astype(np.int32)
    markers[near.level >= max(even.background + SURE * height, even.threshold)] = 1
    markers[near.seed] = 1
    return markers, even


def _with_seed(mask: Mask, seed: tuple[int, int, int]) -> Mask:
    """The connected part that holds the seed."""
    mask[seed] = True
    parts = ndimage.label(mask)[0]
    return np.asarray(parts == parts[seed], dtype=bool)


def _edge_suv(image: Reals, mask: Mask) -> float:
    surface = mask & ~ndimage.binary_erosion(mask)
    return float(np.median(image[surface]))


def _background(near: Neighbourhood, mask: Mask) -> float:
    return around_component(near.image, mask, near.domain)


RULES: dict[str, Callable[[Neighbourhood, Site], Ruled]] = {
    "iterative": _iterative,
    "fraction": _fraction,
    "absolute": _absolute,
    "gradient": _gradient,
    "random_walker": _random_walker,
    "watershed": _watershed,
}
