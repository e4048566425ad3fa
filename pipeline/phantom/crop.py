"""Lesions in small crops, drawn over what outlining finds hard, with their true masks: made in a fraction of a second.

Shares no code and no anatomy with the whole-body phantom (`exam`), so that rules tuned on the one are tested on the
other. Uptake is painted on a grid of about a millimetre, blurred by a Gaussian, summed into voxels and given correlated
noise. Ranges: resolution 4 to 8 mm FWHM and voxels of 2 to 5.5 mm (EANM guideline, Boellaard et al., Eur J Nucl Med Mol
Imaging 2015;42:328: harmonised recovery, 3 to 4 mm voxels), noise 3 to 15 % in the background (QIBA FDG-PET/CT
profile: liver below 15 %), lesion to background 2:1 to 40:1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from petground.labeling.finding import Finding
from petground.labeling.volume import Volume

__all__ = ["SCENES", "Crop", "CropLesion", "Scanner", "make_crop", "told"]

Mask = NDArray[np.bool_]
Reals = NDArray[np.float32]
Point = NDArray[np.float64]

SCENES = (
    "alone",  # one lesion in an even background
    "gradient",  # on a slope or at the border of a warmer tissue
    "in_organ",  # in a large warm organ, 2:1 to 4:1
    "near_organ",  # beside a hot bladder, heart or kidney
    "heterogeneous",  # a large mass of uneven uptake, lobulated or necrotic
    "touching",  # two or three lesions that touch, all of them reported
    "unreported",  # two or three that touch, one of them reported
)
MILD_NOISE, MOST_NOISE = 0.03, 0.15
OWN_PEAK = 1.03  # a lesion that a physician measures has a maximum of its own; its height over the saddle


@dataclass(frozen=True)
class Scanner:
    """Resolution [mm FWHM], voxel size [mm] and noise (standard deviation over mean in the background)."""

    fwhm_mm: float
    spacing_xyz_mm: tuple[float, float, float]
    noise: float


@dataclass(frozen=True, eq=False)
class CropLesion:
    """A lesion's true mask on the PET grid, its hottest voxel, and what it was drawn as.

    diameter_mm: of the sphere of its volume. contrast: true mean uptake over the background's.
    """

    mask: Mask
    voxel_ijk: tuple[int, int, int]
    suv_max: float
    diameter_mm: float
    contrast: float
    shape: str
    reported: bool


@dataclass(frozen=True, eq=False)
class Crop:
    """A PET crop [SUVbw] with its lesions."""

    pet: Volume
    lesions: tuple[CropLesion, ...]
    scene: str
    scanner: Scanner
    drawn_again: int = 0  # scenes before this one in which a reported lesion had no maximum of its own

    @property
    def reported(self) -> tuple[CropLesion, ...]:
        return tuple(lesion for lesion in self.lesions if lesion.reported)


def told(crop: Crop, lesion: CropLesion, decimals: int = 1) -> Finding:
    """What a report says of the lesion under the default site: SUVmax, and its slice from the head, from 1."""
    number = crop.pet.shape[2] - lesion.voxel_ijk[2]
    suv = round(lesion.suv_max, decimals)
    return Finding(suv, number, None, None, "positive", None, (0, 0), suv_decimals=decimals)


def make_crop(seed: int, index: int, scene: str | None = None) -> Crop:
    """The crop `index` of a series; scenes take turns unless one is named."""
    rng = np.random.default_rng((seed, index))
    scene = scene or SCENES[index % len(SCENES)]
    for again in range(50):
        crop = _Painter(rng, scene).paint(again)
        if crop is not None:
            return crop
    raise RuntimeError(f"no lesion with a maximum of its own in 50 drawings of {scene}, {seed}, {index}")


class _Painter:
    """One scene on its fine grid. `uptake` is painted upon, `owner` counts which lesion each fine voxel belongs to."""

    def __init__(self, rng: np.random.Generator, scene: str) -> None:
        self.rng, self.scene = rng, scene
        spacing = np.array([rng.uniform(2.0, 5.5)] * 2 + [rng.uniform(2.0, 5.0)])
        noise = float(np.exp(rng.uniform(np.log(MILD_NOISE), np.log(MOST_NOISE))))
        x, y, z = (float(s) for s in spacing)
        self.scanner = Scanner(float(rng.uniform(4.0, 8.0)), (x, y, z), noise)
        low, high = (25.0, 80.0) if scene == "heterogeneous" else (5.0, 45.0)
        self.diameter = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        half_mm = max(55.0, 1.1 * self.diameter + 25.0) + (15.0 if scene in ("near_organ", "in_organ") else 0.0)
        self.shape = np.ceil(2 * half_mm / spacing).astype(int)
        fine_mm = 1.2 if self.diameter < 30 else 2.0
        self.factor = np.maximum(1, np.ceil(spacing / fine_mm)).astype(int)
        self.fine_mm = spacing / self.factor
        size = self.shape * self.factor
        self.axes = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(size, self.fine_mm, strict=True)]
        self.background = float(rng.uniform(0.3, 2.2))
        self.uptake: Reals = np.full(size, self.background, np.float32)
        self.owner = np.zeros(size, np.int8)
        self.drawn: list[tuple[str, float, bool]] = []

    def paint(self, again: int) -> Crop | None:
        rng = self.rng
        at = rng.uniform(-6.0, 6.0, 3)
        contrast = self._contrast()
        if self.scene == "gradient":
            self._slope()
        elif self.scene == "in_organ":
            self.background *= 2.0
            self._warm(at + rng.normal(0, 8, 3), rng.uniform(55, 75, 3), self.background)
            self.uptake *= np.exp(rng.uniform(0.0, 0.12) * self._texture(rng.uniform(15.0, 30.0)))  # livers are uneven
            contrast = float(rng.uniform(2.0, 4.5))
        if self.scene == "heterogeneous":
            self._lesion(at, self.diameter, contrast, rng.choice(["lobulated", "uneven", "necrotic", "nodular"]))
        elif self.scene in ("touching", "unreported"):
            self._group(at, contrast)
        else:
            self._lesion(at, self.diameter, contrast, rng.choice(["sphere", "ellipsoid", "lobulated"]))
        if self.scene == "near_organ":
            self._organ(at, contrast)
        return self._scan(again)

    def _contrast(self) -> float:
        """2 to 40, and at least SUV 3 at the true peak; a blurred small lesion must still be seen."""
        least = max(2.0, 3.0 / self.background) * (1.0 + 1.5 * np.exp(-self.diameter / 8.0))
        return float(np.exp(self.rng.uniform(np.log(least), np.log(max(40.0, 1.5 * least)))))

    def _lesion(self, at: Point, diameter: float, contrast: float, shape: str, reported: bool = True) -> None:
        rng = self.rng
        radii = np.full(3, diameter / 2)
        if shape != "sphere":
            stretch = np.exp(rng.normal(0, 0.22, 3))
            radii = radii * stretch / np.prod(stretch) ** (1 / 3)
        distance = self._distance(at, radii)
        if shape not in ("sphere", "ellipsoid") and diameter > 12:
            distance = distance * (1 + 0.18 * self._texture(max(6.0, diameter / 4)))
        inside = distance <= 1
        level: float | Reals = contrast * self.background
        if shape in ("uneven", "necrotic"):
            level = level * np.exp(rng.uniform(0.2, 0.6) * self._texture(rng.uniform(8.0, 25.0)))
        if shape == "nodular":
            level = level * (0.7 + self._nodules(at, radii))
        if shape == "necrotic":
            level = np.where(distance < rng.uniform(0.4, 0.7), rng.uniform(0.05, 0.4) * level, level)
        inside &= self.owner == 0
        self.uptake[inside] = level if np.isscalar(level) else np.asarray(level)[inside]
        self.owner[inside] = len(self.drawn) + 1
        self.drawn.append((shape, contrast, reported))

    def _nodules(self, at: Point, radii: Point) -> Reals:
        """One to four hot nodules of 8 to 20 mm in a mass, 1 to 4 times as hot as it."""
        total: Reals = np.zeros(self.uptake.shape, np.float32)
        for _ in range(int(self.rng.integers(1, 5))):
            centre = at + self.rng.uniform(-0.6, 0.6, 3) * radii
            far = self._distance(centre, np.full(3, self.rng.uniform(4.0, 10.0)))
            total += self.rng.uniform(1.0, 4.0) * np.exp(-np.log(2) * far**2)
        return total

    def _group(self, at: Point, contrast: float) -> None:
        """Two or three lesions, surfaces up to 3 mm apart or overlapping a little, of like or unlike uptake."""
        rng = self.rng
        count = 2 if rng.random() < 0.7 else 3
        spoken = int(rng.integers(count)) if self.scene == "unreported" else -1
        places: list[tuple[Point, float]] = []
        for n in range(count):
            size = max(5.0, self.diameter * float(np.exp(rng.normal(0, 0.3)))) if n else self.diameter
            place = at
            if places:
                towards = rng.standard_normal(3)
                towards /= np.linalg.norm(towards)
                last, other = places[-1]
                place = last + towards * ((size + other) / 2 * rng.uniform(0.92, 1.0) + rng.uniform(0.0, 3.0))
            places.append((place, size))
            own = contrast * float(np.exp(rng.normal(0, 0.35)))
            self._lesion(place, size, own, rng.choice(["sphere", "ellipsoid"]), spoken in (-1, n))

    def _organ(self, at: Point, contrast: float) -> None:
        """Bladder, left ventricle or kidney, up to 10 mm beside the lesion."""
        rng = self.rng
        towards = rng.standard_normal(3)
        towards /= np.linalg.norm(towards)
        kind = rng.choice(["bladder", "heart", "kidney"])
        usual = {"bladder": (30, 30, 25), "heart": (35, 30, 30), "kidney": (22, 22, 45)}[str(kind)]
        radii = np.array(usual) * rng.uniform(0.7, 1.1)
        reach = 1 / np.linalg.norm(towards / radii)
        centre = at + towards * (reach + self.diameter / 2 + rng.uniform(1.0, 10.0))
        distance = self._distance(centre, radii)
        heat = contrast * float(np.exp(rng.normal(0.3, 0.5)))
        heat = max(heat, {"bladder": 10.0, "heart": 4.0, "kidney": 6.0}[str(kind)] / self.background)
        organ = (distance <= 1) & (self.owner == 0)
        if kind == "heart":
            organ &= distance > 0.6
        self.uptake[organ] = heat * self.background
        self.owner[organ] = -1

    def _warm(self, at: Point, radii: Point, level: float) -> None:
        self.uptake[self._distance(at, radii) <= 1] = level

    def _slope(self) -> None:
        towards = self.rng.standard_normal(3)
        towards /= np.linalg.norm(towards)
        along = sum(t * np.meshgrid(*self.axes, indexing="ij", sparse=True)[n] for n, t in enumerate(towards))
        along = np.asarray(along, np.float32)
        if self.rng.random() < 0.5:
            self.uptake *= np.exp(along / 60.0 * self.rng.uniform(0.3, 0.9)).clip(0.3, 3.0)
        else:
            self.uptake[along > self.rng.uniform(-10.0, 10.0)] *= self.rng.uniform(0.2, 0.5)

    def _distance(self, at: Point, radii: Point) -> Reals:
        """1 on the surface of an ellipsoid turned at random about the z axis."""
        x, y, z = np.meshgrid(*[a - c for a, c in zip(self.axes, at, strict=True)], indexing="ij", sparse=True)
        turn = self.rng.uniform(0, np.pi)
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        return np.asarray(np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (z / radii[2]) ** 2), np.float32)

    def _texture(self, fwhm_mm: float) -> Reals:
        return _grain(self.rng, self.uptake.shape, fwhm_mm, self.fine_mm)

    def _scan(self, again: int) -> Crop | None:
        sigma = self.scanner.fwhm_mm / 2.3548 / self.fine_mm
        seen = _summed(ndimage.gaussian_filter(self.uptake, sigma, mode="nearest", truncate=3.0), self.factor)
        spacing = np.array(self.scanner.spacing_xyz_mm)
        grain = _grain(self.rng, seen.shape, float(self.rng.uniform(4.0, 6.0)), spacing)
        power = self.rng.uniform(0.5, 1.0)  # of the mean in the standard deviation: Poisson to late OSEM
        sd = self.scanner.noise * self.background * (seen / self.background) ** power
        pet = np.maximum(seen + sd * grain, 0.0).astype(np.float32)
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = [-40.0, 25.0, -700.0]
        lesions = []
        for n, (shape, contrast, reported) in enumerate(self.drawn, start=1):
            mask = self._mask(n)
            if not mask.any():
                return None
            i, j, k = np.unravel_index(int(np.where(mask, pet, -1).argmax()), pet.shape)
            voxel = (int(i), int(j), int(k))
            if reported and not _own_peak(pet, voxel, mask):
                return None
            volume_mm3 = float((self.owner == n).sum() * np.prod(self.fine_mm))
            diameter = (6 * volume_mm3 / np.pi) ** (1 / 3)
            lesions.append(CropLesion(mask, voxel, float(pet[voxel]), diameter, contrast, shape, reported))
        return Crop(Volume(pet, affine, "SUVbw"), tuple(lesions), self.scene, self.scanner, again)

    def _mask(self, n: int) -> Mask:
        """Voxels of which at least half is the lesion; the fullest one for a lesion that fills none so far."""
        part = _summed((self.owner == n).astype(np.float32), self.factor)
        return np.asarray(part >= min(0.5, max(float(part.max()), 1e-3)), dtype=bool)


def _own_peak(pet: Reals, voxel: tuple[int, int, int], mask: Mask) -> bool:
    """The voxel is a local maximum of at least SUV 2.5 that stands out of what surrounds its lesion."""
    around = tuple(slice(max(0, v - 1), v + 2) for v in voxel)
    shell = ndimage.binary_dilation(mask, iterations=2) & ~mask
    floor = float(np.percentile(pet[shell], 20))
    return bool(pet[voxel] >= pet[around].max() and pet[voxel] >= 2.5 and pet[voxel] > 1.4 * floor)


def _grain(rng: np.random.Generator, shape: Sequence[int], fwhm_mm: float, spacing_mm: Point) -> Reals:
    """Gaussian noise of mean 0 and variance 1 with a correlation length; coarse grain is made on a coarse grid."""
    step = np.maximum(1, np.floor(fwhm_mm / 4 / spacing_mm)).astype(int)
    small = [int(np.ceil(n / s)) + 2 for n, s in zip(shape, step, strict=True)]
    grain = ndimage.gaussian_filter(
        rng.standard_normal(small).astype(np.float32), fwhm_mm / 2.3548 / (spacing_mm * step), mode="wrap"
    )
    if (step > 1).any():
        grain = ndimage.zoom(grain, step, order=1)
    grain = grain[tuple(slice(0, n) for n in shape)]
    return np.asarray((grain - grain.mean()) / grain.std(), np.float32)


def _summed(fine: Reals, factor: NDArray[np.int64]) -> Reals:
    i, j, k = (n // f for n, f in zip(fine.shape, factor, strict=True))
    a, b, c = factor
    return np.asarray(fine.reshape(i, a, j, b, k, c).mean(axis=(1, 3, 5)), np.float32)
