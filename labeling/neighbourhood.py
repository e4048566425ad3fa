"""The crop around a seed that an outline is worked out in, and its map of connection levels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import reconstruction

from petground.labeling.maxima import Box, box_around
from petground.labeling.valleys import WIDE_FWHM_MM
from petground.labeling.volume import Volume

__all__ = ["Neighbourhood", "connection_levels", "neighbourhood"]

Voxel = tuple[int, int, int]
Mask = NDArray[np.bool_]
Reals = NDArray[np.float32]
SMOOTH_FWHM_MM = 5.0


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """A crop [SUVbw] with its seed, two smoothed copies, the lesion's domain and the levels within it.

    level: for each voxel the highest threshold at which it is connected to the seed (see `connection_levels`).
    domain: voxels that can belong to the lesion: no organ, no other lesion's side of a valley, not above the seed.
    """

    box: Box
    image: Reals
    seed: Voxel
    spacing_mm: tuple[float, float, float]
    smooth: Reals
    wide: Reals
    domain: Mask
    level: Reals

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def top(self) -> float:
        return float(self.image[self.seed])

    def within(self, domain: Mask) -> Neighbourhood:
        """The same crop with a smaller domain."""
        domain = self.domain & domain
        domain[self.seed] = True
        return replace(self, domain=domain, level=connection_levels(self.image, self.seed, domain))

    def component(self, threshold: float) -> Mask:
        """What is connected to the seed at or above the threshold [g/ml]."""
        return np.asarray(self.level >= threshold, dtype=bool)


def neighbourhood(pet: Volume, seed: Voxel, half_mm: float) -> Neighbourhood:
    """The voxels within half_mm of the seed; all that are not hotter than it are its domain so far."""
    box = box_around(seed, half_mm, pet.shape, pet.spacing_ijk_mm)
    image, local, spacing = pet.array[box.slices], box.local(seed), pet.spacing_ijk_mm
    smooth, wide = (
        ndimage.gaussian_filter(image, [fwhm / 2.3548 / s for s in spacing]) for fwhm in (SMOOTH_FWHM_MM, WIDE_FWHM_MM)
    )
    domain = np.asarray(image <= image[local], dtype=bool)
    return Neighbourhood(box, image, local, spacing, smooth, wide, domain, connection_levels(image, local, domain))


def connection_levels(image: Reals, seed: Voxel, domain: Mask) -> Reals:
    """The highest threshold at which each voxel is 6-connected to the seed within the domain.

    The component at any threshold is `level >= threshold`, its volume curve the sorted levels, and the saddle towards
    another maximum the level there (greyscale reconstruction: Vincent, IEEE Trans Image Process 1993;2:176).
    """
    floor = np.float32(min(float(image.min()), 0.0) - 1.0)
    ceiling = np.where(domain, np.minimum(image, image[seed]), floor)
    start = np.full(image.shape, floor, dtype=np.float32)
    start[seed] = ceiling[seed]
    return np.asarray(reconstruction(start, ceiling, footprint=ndimage.generate_binary_structure(3, 1)), np.float32)
