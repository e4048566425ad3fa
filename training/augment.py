"""Mild, laterality-safe augmentation: never a left-right flip, which would make "left" mean right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandAffine,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
)
from numpy.typing import NDArray
from torch import Tensor

from petground.training.patches import turned_margin

__all__ = ["Augment", "AugmentConfig"]


@dataclass(frozen=True)
class AugmentConfig:
    """How far training images are changed; the ranges are those of the published method where it names them.

    Args:
        affine_chance: chance that an exam is turned, scaled and shifted.
        rotate_rad: at most so far about each axis.
        scale: at most this share larger or smaller.
        shift_voxels: at most so far along each axis.
        intensity_chance: chance of each of scaling, contrast, blur and noise. Where the sentences tell SUV, the PET
            gets the noise alone: the others would make what is told wrong.
        intensity_scale: PET and CT values are scaled by at most this share.
        noise: standard deviation, of the 0..1 window.
    """

    affine_chance: float = 0.8
    rotate_rad: float = 0.05
    scale: float = 0.05
    shift_voxels: float = 2.0
    intensity_chance: float = 0.3
    intensity_scale: float = 0.15
    noise: float = 0.01


class Augment:
    """image [2, Z, Y, X] and target [S, Z, Y, X] in, both changed alike out; the same seed gives the same change.

    suv_told: the sentences tell SUV, and the PET (channel 0) keeps its values but for noise.
    """

    def __init__(self, config: AugmentConfig, *, suv_told: bool = False):
        c = self._config = config
        self._suv_told = suv_told
        self._affine = RandAffine(
            prob=c.affine_chance,
            rotate_range=(c.rotate_rad,) * 3,
            scale_range=(c.scale,) * 3,
            translate_range=(c.shift_voxels,) * 3,
            mode="bilinear",
            padding_mode="zeros",
        )
        self._intensity = Compose(
            [
                RandScaleIntensity(factors=c.intensity_scale, prob=c.intensity_chance, channel_wise=True),
                RandAdjustContrast(prob=c.intensity_chance / 2, gamma=(0.8, 1.25)),
                RandGaussianSmooth(
                    sigma_x=(0.2, 0.6), sigma_y=(0.2, 0.6), sigma_z=(0.2, 0.6), prob=c.intensity_chance / 2
                ),
                RandGaussianNoise(prob=c.intensity_chance, std=c.noise),
            ]
        )
        self._noise = RandGaussianNoise(prob=c.intensity_chance, std=c.noise)

    def __call__(self, image: Tensor, target: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        return self.moved(image, target, seed=seed)[:2]

    def moved(self, image: Tensor, target: Tensor, *, seed: int) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
        """As called, and how it was moved: [4, 4], voxels from the middle of what comes out -> of what went in."""
        self._affine.set_random_state(seed=seed % 2**32)
        self._intensity.set_random_state(seed=(seed + 1) % 2**32)
        channels = image.shape[0]
        both = _plain(self._affine(torch.cat([image, target])))
        image, moved = both[:channels], both[channels:].clamp(0.0, 1.0)
        if self._suv_told:
            self._noise.set_random_state(seed=(seed + 2) % 2**32)
            image = torch.cat([_plain(self._noise(image[:1])), _plain(self._intensity(image[1:]))])
        else:
            image = _plain(self._intensity(image))
        return image.clamp(0.0, 1.0), _kept(moved, target), self._matrix()

    def margin(self, patch_zyx: Sequence[int]) -> tuple[int, ...]:
        """Voxels on each side of a patch that may be moved into it."""
        c = self._config
        return turned_margin(patch_zyx, c.rotate_rad, c.scale, c.shift_voxels) if c.affine_chance else (0, 0, 0)

    def _matrix(self) -> NDArray[np.float64]:
        if not self._affine._do_transform:
            return np.eye(4)
        matrix = self._affine.rand_affine_grid.get_transformation_matrix()
        return np.eye(4) if matrix is None else np.asarray(matrix, dtype=np.float64)


def _kept(moved: Tensor, before: Tensor) -> Tensor:
    """Interpolation thins a lesion of one voxel: its maximum is brought back to what it was."""
    peak, peak_before = moved.amax((1, 2, 3), keepdim=True), before.amax((1, 2, 3), keepdim=True)
    scaled = moved * (peak_before / peak.clamp(min=1e-6)).clamp(max=8.0)
    return torch.where(peak > 0, scaled, moved).clamp(0.0, 1.0)


def _plain(tensor: Tensor | np.ndarray) -> Tensor:
    """MONAI returns its own tensor class; the rest of the code wants the ordinary one."""
    return torch.as_tensor(np.asarray(tensor)) if isinstance(tensor, np.ndarray) else tensor.as_subclass(Tensor)
