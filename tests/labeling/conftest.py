"""A small body with round lesions as a scanner sees them, on a grid of any orientation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from petground.labeling.volume import Volume

Ball = tuple[tuple[float, float, float], float, float]  # centre RAS [mm], diameter [mm], SUV
SPACING_MM = np.array([4.0, 4.0, 3.0])
SHAPE = (64, 44, 60)
FIRST_MM = np.array([-120.0, -70.0, -1000.0])  # off centre: the body's midline is at x = +6


def paint(
    balls: Sequence[Ball], *, flip: str = "", noise: float = 0.04, seed: int = 0, uneven: float = 0.0
) -> tuple[Volume, list[NDArray]]:
    """PET [SUVbw] and the balls' true masks. flip: axes stored in the other direction, e.g. "xz".

    uneven: spread of the uptake within the balls, as the standard deviation of its logarithm.
    """
    fine = 2
    axes = [FIRST_MM[a] + SPACING_MM[a] * ((np.arange(SHAPE[a] * fine) + 0.5) / fine - 0.5) for a in range(3)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    activity = np.where(((x - 6) / 100) ** 2 + (y / 60) ** 2 < 1, 0.8, 0.0)
    masks = []
    rng = np.random.default_rng(seed)
    patches = gaussian_filter(rng.standard_normal(activity.shape), 10.0 * fine / SPACING_MM)
    patches = np.exp(uneven * patches / patches.std())
    for (cx, cy, cz), diameter, suv in balls:
        ball = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= (diameter / 2) ** 2
        activity[ball] = suv * patches[ball]
        masks.append(_pooled(ball.astype(float), fine) >= 0.5)
    grain = gaussian_filter(rng.standard_normal(activity.shape), 4.0 / 2.355 * fine / SPACING_MM)
    blurred = gaussian_filter(activity, 6.0 / 2.355 * fine / SPACING_MM)
    array = _pooled(blurred * (1 + noise * grain / grain.std()), fine).astype(np.float32)
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = FIRST_MM
    for axis, name in enumerate("xyz"):
        if name in flip:
            array = np.flip(array, axis)
            masks = [np.flip(mask, axis) for mask in masks]
            affine[axis, 3] += affine[axis, axis] * (SHAPE[axis] - 1)
            affine[axis, axis] *= -1
    return Volume(np.ascontiguousarray(array), affine, "SUVbw"), masks


def _pooled(array: NDArray, fine: int) -> NDArray:
    i, j, k = (n // fine for n in array.shape)
    return array.reshape(i, fine, j, fine, k, fine).mean(axis=(1, 3, 5))


@pytest.fixture(scope="session")
def scan() -> Callable[..., tuple[Volume, list[NDArray]]]:
    return paint
