"""The threshold at which a lesion's own volume, height and background agree with each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

__all__ = ["Fixpoint", "around_component", "edge_fraction", "settle_even", "settle_uneven"]

FWHM_MM = 6.0  # blur of today's scanners and reconstructions in the patient: 5 to 7 mm
FWHM_PER_SIGMA = 2.3548
HIGHEST_FRACTION = 0.8  # one voxel is no measure of volume
MEAN_FRACTION = 0.4  # of the mean's height above background; 0.5 is Ridler and Calvard's, and cuts rims off
# The hottest voxel of a small lesion misses its peak, that of a large one is a peak of the noise.
MAXIMUM_BIAS = ((2.0, 10.0), (1.05, 0.85))  # volumes [ml], factors on the edge fraction


@dataclass(frozen=True)
class Fixpoint:
    """A threshold that reproduces itself, with the background it was found with.

    volume_ml: of the component; for an even lesion at half height, where blur changes it least.
    """

    threshold: float
    volume_ml: float
    background: float


def settle_even(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    domain: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    steps: int = 20,
) -> Fixpoint:
    """Threshold at the true edge of the evenly filled sphere that, blurred, has the volume met at half height.

    Comes from above, so that it stops at the smallest blob that explains itself.
    """
    top = float(level.max())
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    half, background = 0.8 * top, 0.0
    for _ in range(steps):
        background = around_component(image, level >= half, domain)
        new = float(np.clip((background + top) / 2, 0.05 * top, 0.95 * top))
        if abs(new - half) < 0.01 * half:
            break
        half = (half + new) / 2
    half_volume_ml = float((level >= half).sum()) * voxel_ml
    voxel_mm = float(np.prod(spacing_mm)) ** (1 / 3)
    fraction = edge_fraction(half_volume_ml, voxel_mm) * float(np.interp(half_volume_ml, *MAXIMUM_BIAS))
    fraction = min(fraction, HIGHEST_FRACTION)
    threshold = float(np.clip(background + fraction * (top - background), 0.05 * top, 0.95 * top))
    return Fixpoint(threshold, half_volume_ml, background)


def settle_uneven(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    domain: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    steps: int = 25,
) -> Fixpoint:
    """Iterates threshold -> component -> its mean and background -> threshold until it reproduces itself.

    From 0.41 of the maximum (EANM guideline, Boellaard et al., Eur J Nucl Med Mol Imaging 2015;42:328) on, so that it
    takes in what the hottest spot lies in (isodata: Ridler and Calvard, IEEE Trans Syst Man Cybern 1978;8:630).
    """
    top = float(level.max())
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    threshold, background, volume = 0.41 * top, 0.0, 0.0
    for _ in range(steps):
        mask = level >= threshold
        volume = float(mask.sum()) * voxel_ml
        background = around_component(image, mask, domain)
        new = background + MEAN_FRACTION * (float(image[mask].mean()) - background)
        new = float(np.clip(new, 0.05 * top, 0.95 * top))
        if abs(new - threshold) < 0.01 * threshold:
            break
        threshold = (threshold + new) / 2
    return Fixpoint(threshold, volume, background)


def edge_fraction(half_volume_ml: float, voxel_mm: float) -> float:
    """Where a blurred sphere's true edge lies, as part of its height, given its volume at half height.

    0.4 to 0.5 for lesions well above the blur, rising for those of its size and below: half height is then far outside
    of the lesion. The voxel's own width adds to the scanner's blur.
    """
    scale_mm = np.hypot(FWHM_MM, voxel_mm) / FWHM_PER_SIGMA * np.sqrt(2.0)
    volumes, edges = _blurred_spheres()
    return float(np.interp(half_volume_ml * 1000 / scale_mm**3, volumes, edges))


@lru_cache(maxsize=1)
def _blurred_spheres() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Volume at half height and relative height of the edge, for radii in units of sqrt(2) sigma of a Gaussian blur.

    The profile of a sphere under a Gaussian has a closed form: differences of error functions and of Gaussians.
    """
    radii, distances = np.linspace(0.2, 6.0, 240), np.linspace(0.01, 8.0, 1600)
    volumes, edges = [], []
    for a in radii:
        centre = special.erf(a) - 2 / np.sqrt(np.pi) * a * np.exp(-(a**2))
        profile = _profile(a, distances) / centre
        volumes.append(4 / 3 * np.pi * distances[int(np.argmax(profile < 0.5))] ** 3)
        edges.append(float(_profile(a, np.array([a]))[0] / centre))
    return np.array(volumes), np.array(edges)


def _profile(radius: float, distance: NDArray[np.float64]) -> NDArray[np.float64]:
    inner, outer = radius - distance, radius + distance
    spread = (np.exp(-(inner**2)) - np.exp(-(outer**2))) / (2 * np.sqrt(np.pi) * distance)
    profile: NDArray[np.float64] = 0.5 * (special.erf(inner) + special.erf(outer)) - spread
    return profile


def around_component(image: NDArray[np.float32], mask: NDArray[np.bool_], domain: NDArray[np.bool_]) -> float:
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
