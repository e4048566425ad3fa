"""How a PET scanner sees: blur by its resolution and by breathing, and noise from counting.

Resolution: 5-6.5 mm full width at half maximum, as clinical reconstructions have it. Noise: its variance follows the
uptake and it is correlated over about a filter width, as in OSEM images; the coefficient of variation in the liver is
5-12 %, below the 15 % that the EANM guideline accepts in a uniform phantom (Boellaard et al., Eur J Nucl Med Mol
Imaging 2015;42:328). Scatter, attenuation artefacts and the scanner's geometry are not simulated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from petground.pipeline.phantom.canvas import Array, Canvas

__all__ = ["Scanner", "add_noise", "blur", "make_scanner", "stored", "texture"]

FWHM_PER_SIGMA = 2.3548
REFERENCE_SUV = 2.2  # of the liver, where the noise level is stated
STEPS_PER_SUV = 1024.0  # what is written is rounded: scanners store integers, and rounded floats pack well
PET_SPACINGS_MM = ((4.07, 4.07, 3.0), (4.07, 4.07, 5.0), (4.0, 4.0, 4.0), (3.91, 3.91, 3.27), (4.69, 4.69, 3.27))
CT_SPACINGS_MM = ((2.34, 2.34, 3.27), (2.5, 2.5, 4.0), (2.73, 2.73, 3.27), (2.54, 2.54, 3.0))


@dataclass(frozen=True)
class Scanner:
    """pet and ct: voxel sizes i, j, k [mm]; fwhm_mm of the image; breathing_sigma_mm of organs under the diaphragm;
    noise: coefficient of variation in the liver; ct_noise [HU].
    """

    pet_spacing_ijk_mm: tuple[float, float, float]
    ct_spacing_ijk_mm: tuple[float, float, float]
    fwhm_mm: float
    breathing_sigma_mm: float
    noise: float
    ct_noise_hu: float

    def sigma_kji(self, motion: float = 0.0) -> tuple[float, float, float]:
        """Blur in voxels along k, j, i of something that takes part in breathing by `motion`."""
        i, j, k = self.pet_spacing_ijk_mm
        sigma = self.fwhm_mm / FWHM_PER_SIGMA
        return float(np.hypot(sigma, motion * self.breathing_sigma_mm)) / k, sigma / j, sigma / i


def make_scanner(rng: np.random.Generator, weight_kg: float, tracer: str) -> Scanner:
    heavy = (weight_kg / 75.0) ** 0.6 * (1.25 if tracer == "DOTATATE" else 1.0)  # Ga-68: fewer counts
    return Scanner(
        pet_spacing_ijk_mm=PET_SPACINGS_MM[int(rng.choice(len(PET_SPACINGS_MM), p=(0.2, 0.15, 0.35, 0.2, 0.1)))],
        ct_spacing_ijk_mm=CT_SPACINGS_MM[int(rng.integers(len(CT_SPACINGS_MM)))],
        fwhm_mm=float(rng.uniform(5.0, 6.5)),
        breathing_sigma_mm=float(rng.uniform(1.5, 4.0)),
        noise=float(np.clip(rng.uniform(0.05, 0.095) * heavy, 0.045, 0.125)),
        ct_noise_hu=float(rng.uniform(8.0, 16.0)),
    )


def texture(rng: np.random.Generator, canvas: Canvas) -> None:
    """Slow variation of uptake by some percent: no organ is even. Changes `canvas.value`."""
    for length_mm, height in ((95.0, 0.05), (38.0, 0.06)):
        waves = [
            np.sin(np.float32(2 * np.pi / length_mm) * axis + np.float32(rng.uniform(0, 6.28))).astype(np.float32)
            for axis in (canvas.z, canvas.y, canvas.x)
        ]
        plane = waves[1][:, None] * waves[2][None, :]
        canvas.value[...] *= 1 + np.float32(height) * waves[0][:, None, None] * plane[None]


def blur(canvas: Canvas, scanner: Scanner) -> Array:
    """[K, J, I] as the scanner resolves it: more along z where organs breathe."""
    image: Array = gaussian_filter(canvas.value, scanner.sigma_kji(), truncate=3.0, mode="nearest")
    weight = np.interp(canvas.z, (-680.0, -620.0, -470.0, -420.0), (0.0, 1.0, 1.0, 0.0)).astype(np.float32)
    part = np.flatnonzero(weight)
    if len(part) > 2:
        box = slice(part[0], part[-1] + 1)
        sigma = scanner.breathing_sigma_mm / scanner.pet_spacing_ijk_mm[2]
        moved = gaussian_filter1d(image[box], sigma, axis=0, truncate=3.0, mode="nearest")
        image[box] += weight[box, None, None] * (moved - image[box])
    return image


def make_noise(rng: np.random.Generator, scanner: Scanner, shape_kji: tuple[int, int, int]) -> Array:
    """Noise of unit variance, correlated as far as the reconstruction filter reaches."""
    i, j, k = scanner.pet_spacing_ijk_mm
    sigma = 0.75 * scanner.fwhm_mm / FWHM_PER_SIGMA
    white = rng.standard_normal(shape_kji, dtype=np.float32)
    noise: Array = gaussian_filter(white, (sigma / k, sigma / j, sigma / i), truncate=3.0, mode="wrap")
    noise /= noise[:: max(1, shape_kji[0] // 40)].std()
    return noise


def add_noise(image: Array, noise: Array, scanner: Scanner) -> Array:
    """The image with noise whose standard deviation grows with the square root of the uptake; never negative."""
    spread = np.float32(scanner.noise * np.sqrt(REFERENCE_SUV))
    noisy = np.sqrt(image + np.float32(0.004))
    noisy *= noise
    noisy *= spread
    noisy += image
    return stored(noisy)


def stored(image: Array) -> Array:
    """Rounded as it is written; changes `image`."""
    np.maximum(image, 0.0, out=image)
    image *= np.float32(STEPS_PER_SUV)
    np.rint(image, out=image)
    image *= np.float32(1.0 / STEPS_PER_SUV)
    return image


def ct_image(rng: np.random.Generator, canvas: Canvas, noise_hu: float) -> NDArray[np.int16]:
    """CT numbers as int16 with noise inside the body."""
    image = canvas.value
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= np.float32(noise_hu)
    noise *= canvas.organ > 0
    noise += image
    np.clip(noise, -1024, 3071, out=noise)
    return np.rint(noise).astype(np.int16)
