"""The threshold at which a lesion's own volume, mean and background agree with each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

__all__ = ["Fixpoint", "blob", "settle"]


FWHM_MM = 6.0  # blur of today's scanners and reconstructions: NEMA NU 2, 4 to 7 mm in the patient
MAXIMUM_BIAS = 0.96  # noise makes the hottest voxel hotter than the lesion's plateau
MEAN_FRACTION = 0.4


def _blurred_sphere(radius_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and edge value of a unit sphere after Gaussian blur of FWHM_MM (closed form)."""
    s = FWHM_MM / 2.355 * np.sqrt(2.0)
    x = radius_mm / s
    centre = special.erf(x) - 2 / np.sqrt(np.pi) * x * np.exp(-(x**2))
    edge = 0.5 * special.erf(2 * x) - (1 - np.exp(-4 * x**2)) / (2 * np.sqrt(np.pi) * x)
    return centre, edge


_RADII_MM = np.linspace(2.0, 15.0, 200)
_VOLUMES_ML = 4 / 3 * np.pi * _RADII_MM**3 / 1000
_CENTRES, _EDGES_ABSOLUTE = _blurred_sphere(_RADII_MM)
_EDGES = _EDGES_ABSOLUTE / _CENTRES  # where the true edge lies, as part of the maximum


@dataclass(frozen=True)
class Fixpoint:
    """A threshold that reproduces itself, with the volume and background it was found with."""

    threshold: float
    volume_ml: float
    background: float


def settle(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    domain: NDArray[np.bool_],
    voxel_ml: float,
    *,
    even: bool,
    steps: int = 25,
) -> Fixpoint:
    """Iterates threshold -> component -> background, volume, mean -> threshold until it reproduces itself.

    even: takes the lesion for an evenly filled sphere, whose true edge lies at a known part of its maximum, and comes
    from above, so that it stops at the smallest blob that explains itself. Otherwise the threshold lies between the
    background and the component's mean (Ridler and Calvard 1978), from 0.41 of the maximum (EANM guideline, Boellaard
    et al. 2015) on, and takes in what the hottest spot lies in.
    """
    top = float(level.max())
    threshold, background, volume = (0.8 if even else 0.41) * top, 0.0, 0.0
    for _ in range(steps):
        mask = level >= threshold
        volume = float(mask.sum()) * voxel_ml
        background = _background(image, mask, domain)
        if even:
            new = background + MAXIMUM_BIAS * float(np.interp(volume, _VOLUMES_ML, _EDGES)) * (top - background)
        else:
            new = background + MEAN_FRACTION * (float(image[mask].mean()) - background)
        new = float(np.clip(new, 0.05 * top, 0.95 * top))
        if abs(new - threshold) < 0.01 * threshold:
            break
        threshold = (threshold + new) / 2
    return Fixpoint(threshold, volume, background)


def blob(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    domain: NDArray[np.bool_],
    voxel_ml: float,
    rough: Fixpoint,
) -> Fixpoint:
    """Threshold for a lesion of the blur's size: a sphere of what volume has this total uptake and this maximum?

    Total over maximum is volume over recovery, which grows with the radius whatever the true uptake is; counting
    voxels above a threshold says little when there are three of them.
    """
    top = float(level.max())
    height = max(top - rough.background, 1e-6)
    core = level >= rough.background + 0.4 * height
    reach = ndimage.binary_dilation(core, iterations=2) & domain
    ratio_ml = float((image[reach] - rough.background).sum()) * voxel_ml / height
    volume = float(np.interp(ratio_ml, _VOLUMES_ML / _CENTRES, _VOLUMES_ML))
    edge = float(np.interp(volume, _VOLUMES_ML, _EDGES))
    return Fixpoint(rough.background + edge * height, volume, rough.background)


def _background(image: NDArray[np.float32], mask: NDArray[np.bool_], domain: NDArray[np.bool_]) -> float:
    """Median SUV two to four voxels outside of the component, on its own side of the valleys."""
    where = ndimage.find_objects(mask.view(np.uint8))[0] if mask.any() else None
    if where is None:
        return 0.0
    wide = tuple(slice(max(0, s.start - 5), s.stop + 5) for s in where)
    part = mask[wide]
    near = ndimage.binary_dilation(part, iterations=2)
    around = ndimage.binary_dilation(near, iterations=2) & ~near
    shell = around & domain[wide]
    if shell.sum() < 0.15 * around.sum():  # closed in on all sides: the neighbours are the background
        shell = around
    return float(np.median(image[wide][shell])) if shell.any() else 0.0
