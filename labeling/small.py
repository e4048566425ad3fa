"""Lesions of the scanner's blur and below: how large they are when nothing of their outline is left to see.

A lesion under 10 mm spreads over the volume of the blur, so that any fixed fraction of its maximum outlines the blur.
Its own volume is estimated instead from what still depends on it, the blob's volume at half height and how steep its
flanks are, read between the voxels (cubic splines), and the hottest part of that volume is taken. The estimate is
a regression fitted on simulated lesions under resolutions of 4 to 8 mm (`python benchmarks/fit_outlines.py` writes
small.json); it is uncertain by a factor of about 1.6.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from petground.labeling.neighbourhood import Neighbourhood, connection_levels
from petground.labeling.threshold import edge_fraction

__all__ = ["LARGEST_ML", "TERMS", "Fine", "fine_levels", "outline_small"]

Reals = NDArray[np.float32]
LARGEST_ML = 0.8  # at half height; above, thresholds outline the lesion
SURE_SMALL_ML = 0.3  # from here to LARGEST_ML the estimate gives way to the edge of a blurred sphere
FINE_MM, REACH_MM = 1.25, 16.0
FLANK = (0.35, 0.7)
EDGE_FACTOR = 1.05
TERMS = ("one", "half", "half_squared", "voxel", "flank")


@dataclass(frozen=True, eq=False)
class Fine:
    """A lesion's surroundings between the voxels: connection levels to its peak, `factor` fine voxels per voxel."""

    level: Reals
    top: float
    factor: tuple[int, int, int]
    first: tuple[int, int, int]
    voxel_ml: float

    def volume_ml(self, threshold: float) -> float:
        return float((self.level >= threshold).sum()) * self.voxel_ml

    def terms(self, background: float, coarse_ml: float) -> dict[str, float]:
        """Logarithms that the estimate is linear in, by name (see TERMS)."""
        height = self.top - background
        half, low, high = (max(self.volume_ml(background + f * height), self.voxel_ml) for f in (0.5, *FLANK))
        values = (1.0, np.log(half), np.log(half) ** 2, np.log(coarse_ml), np.log(low / high))
        return {name: float(value) for name, value in zip(TERMS, values, strict=True)}


def fine_levels(near: Neighbourhood) -> Fine:
    """Interpolates around the seed and climbs to the peak that lies between the voxels."""
    spacing = np.array(near.spacing_mm)
    reach = np.maximum(2, np.ceil(REACH_MM / spacing)).astype(int)
    first = np.maximum(np.array(near.seed) - reach, 0)
    last = np.minimum(np.array(near.seed) + reach + 1, near.image.shape)
    part = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    factor = np.maximum(1, np.ceil(spacing / FINE_MM)).astype(int)
    fine = ndimage.zoom(near.image[part], factor, order=3, grid_mode=True, mode="nearest")
    domain = near.domain[part]
    for axis, times in enumerate(factor):
        domain = np.repeat(domain, times, axis=axis)
    inside = tuple(
        slice(int(s * f), int((s + 1) * f)) for s, f in zip(np.array(near.seed) - first, factor, strict=True)
    )
    found = np.unravel_index(int(fine[inside].argmax()), fine[inside].shape)
    i, j, k = (int(n) + p.start for n, p in zip(found, inside, strict=True))
    level = connection_levels(np.asarray(fine, np.float32), (i, j, k), domain)
    a, b, c = (int(f) for f in factor)
    x, y, z = (int(f) for f in first)
    return Fine(level, float(fine[i, j, k]), (a, b, c), (x, y, z), near.voxel_ml / float(np.prod(factor)))


def outline_small(near: Neighbourhood, background: float) -> tuple[NDArray[np.bool_], float]:
    """Mask of the crop and SUV at its edge, for a lesion on a background [g/ml]."""
    fine = fine_levels(near)
    height = fine.top - background
    terms = fine.terms(background, near.voxel_ml)
    estimate = sum(c * terms[name] for name, c in _coefficients().items())
    half_ml = float(np.exp(terms["half"]))
    fraction = min(EDGE_FACTOR * edge_fraction(half_ml, 0.0), 0.8)
    edge = np.log(max(fine.volume_ml(background + fraction * height), fine.voxel_ml))
    share = float(np.interp(half_ml, (SURE_SMALL_ML, LARGEST_ML), (0.0, 1.0)))
    volume_ml = float(np.exp((1 - share) * estimate + share * edge))
    wanted = int(np.clip(round(volume_ml / fine.voxel_ml), 1, fine.level.size))
    floor = background + 0.2 * height
    threshold = max(float(np.partition(fine.level.ravel(), -wanted)[-wanted]), floor)
    return _on_voxels(near, fine, threshold), threshold


def _on_voxels(near: Neighbourhood, fine: Fine, threshold: float) -> NDArray[np.bool_]:
    """Voxels of which at least half lies inside, and the seed; connected to it."""
    (a, b, c), (i, j, k) = fine.factor, (n // f for n, f in zip(fine.level.shape, fine.factor, strict=True))
    part = (fine.level >= threshold).reshape(i, a, j, b, k, c).mean(axis=(1, 3, 5))
    mask = np.zeros(near.image.shape, dtype=bool)
    x, y, z = fine.first
    mask[x : x + i, y : y + j, z : z + k] = part >= 0.5
    mask[near.seed] = True
    parts = ndimage.label(mask)[0]
    return np.asarray(parts == parts[near.seed], dtype=bool)


@lru_cache(maxsize=1)
def _coefficients() -> dict[str, float]:
    values = json.loads(files("petground.labeling").joinpath("small.json").read_text(encoding="utf-8"))
    return {name: float(values["coefficients"][name]) for name in TERMS}
