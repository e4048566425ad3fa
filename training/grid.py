"""The model's grid: placed by the patient's body, of one size for every exam, or of the exam's own size with patches.

A `template` is a Volume whose array is [x, y, z] and whose axes increase along RAS (to the right, to the front, to
the head); tensors are its transpose [z, y, x]. So axis 2 of a tensor counts towards the patient's right, axis 0
towards the head. Nothing else in `training` turns axes.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from petground.labeling.errors import ConfigError, GeometryError
from petground.labeling.volume import Volume, require_same_grid
from petground.pipeline.geometry import resample

__all__ = ["GridSpec", "mask_to_model_grid", "model_template", "to_model_grid", "to_pet_grid"]

_log = logging.getLogger(__name__)

BODY_SUV = 0.15  # of the smoothed PET: air around the patient stays below, lung and fat above
BODY_STEP_MM = 8.0  # the body is looked for at about this resolution
MAY_LOSE = 0.1  # share of the body's width that may lie outside the grid before a warning is due: arms, skin
HEAD_MARGIN_MM = 8.0  # free space above the body's top
LIMB = 0.01  # a piece of at least this share of the body belongs to it: a hand or foot cut off by the field of view
MOST_VOXELS = 2**29  # of an exam on a grid of its own: 4 GiB with both channels; a whole body at 1.5 mm has 10**8
SLAB_VOXELS = 2**25  # samples held at once while a finer image is averaged
FINER = 3  # at most so many samples per axis are averaged into one voxel of the model's grid
AIR_HU = -1000.0


@dataclass(frozen=True)
class GridSpec:
    """Size, spacing and windows of the model's input.

    Args:
        spacing_xyz_mm: voxel size.
        shape_zyx: voxels along z, y, x of a tensor; not used with a patch.
        suv_window: SUVbw [g/ml] that become 0 and 1.
        hu_window: CT values [HU] that become 0 and 1.
        fit_height: z spacing follows the body, so that it fills the grid from head to feet: a place has the same z
            coordinate in tall and short patients. For exams of one field of view (base of skull to thigh, say).
        pet_value: what a voxel takes of a finer PET: its "mean", or its "max", so that a lesion smaller than a voxel
            keeps the height (SUVmax) that the report speaks of.
        patch_zyx: the network sees patches of so many voxels, and each exam has a grid of its own size that holds its
            whole body; inference slides over it. null: the network sees the whole exam, in `shape_zyx` voxels.
        patch_step: of a patch, from one window of inference to the next; nnU-Net's is 0.5.
    """

    spacing_xyz_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)
    shape_zyx: tuple[int, int, int] = (352, 192, 192)
    suv_window: tuple[float, float] = (0.0, 10.0)
    hu_window: tuple[float, float] = (-150.0, 250.0)
    fit_height: bool = False
    pet_value: Literal["mean", "max"] = "mean"
    patch_zyx: tuple[int, int, int] | None = None
    patch_step: float = 0.5

    def __post_init__(self) -> None:
        if len(self.spacing_xyz_mm) != 3 or min(self.spacing_xyz_mm) <= 0:
            raise ConfigError(f"spacing_xyz_mm {self.spacing_xyz_mm}", fix="three positive numbers, in mm")
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
            raise ConfigError(f"shape_zyx {self.shape_zyx}", fix="three positive numbers of voxels")
        for name in ("suv_window", "hu_window"):
            low, high = getattr(self, name)
            if not low < high:
                raise ConfigError(f"{name} {low, high}", fix="the first number must be the smaller")
        if self.patch_zyx is not None and (len(self.patch_zyx) != 3 or min(self.patch_zyx) < 1):
            raise ConfigError(f"patch_zyx {self.patch_zyx}", fix="three positive numbers of voxels, or null")
        if not 0 < self.patch_step <= 1:
            raise ConfigError(f"patch_step {self.patch_step}", fix="above 0 and at most 1, so that no gap is left")
        if self.patch_zyx is not None and self.fit_height:
            raise ConfigError("fit_height and patch_zyx", fix="a grid of the exam's own size fits its height already")

    @property
    def input_zyx(self) -> tuple[int, int, int]:
        """Voxels that the network sees at once."""
        return self.shape_zyx if self.patch_zyx is None else self.patch_zyx


def to_model_grid(pet: Volume, ct: Volume | None, spec: GridSpec) -> tuple[NDArray[np.float32], Volume]:
    """PET [SUVbw] and CT [HU], each on its own grid -> image [2, Z, Y, X] in 0..1 and the template it lies on.

    Channel 0 is PET, channel 1 CT (0 without one). The grid is centred on the body in x and y; in z its top lies
    just above the body's. A body longer than the grid is cut off at the feet, with a warning in the log; with
    `spec.patch_zyx` the grid is as large as the body, and nowhere smaller than a patch. Where the grid is coarser than
    the image, CT is averaged and PET is averaged or keeps its maximum (`spec.pet_value`).

    Raises GeometryError when the PET is not axial or a unit is not what it should be.
    """
    if pet.unit != "SUVbw" or (ct is not None and ct.unit != "HU"):
        raise GeometryError(f"PET counts in {pet.unit}, CT in {ct.unit if ct else 'nothing'}", fix="SUVbw and HU")
    template = model_template(pet, spec)
    put = _highest if spec.pet_value == "max" else _averaged
    channels = [_window(put(pet, template, 0.0), spec.suv_window)]
    if ct is None:
        channels.append(np.zeros(template.shape[::-1], dtype=np.float32))
    else:
        channels.append(_window(_averaged(ct, template, fill=AIR_HU), spec.hu_window))
    return np.stack(channels).astype(np.float32), template


def mask_to_model_grid(mask: Volume, template: Volume) -> NDArray[np.float32]:
    """A mask on the PET grid -> [Z, Y, X] in 0..1: the share of each voxel that it covers.

    Scaled so that its maximum is 1: a lesion smaller than a voxel keeps a voxel of its own and is never lost to a
    threshold. All zero when the mask is empty or lies outside the grid.
    """
    out = np.zeros(template.shape[::-1], dtype=np.float32)
    index = template.to_index(mask.to_world_mm(np.argwhere(mask.array > 0)))
    if not len(index):
        return out
    around = 2 + int(np.ceil(max(mask.spacing_ijk_mm) / min(template.spacing_ijk_mm)))
    low = np.clip(np.floor(index.min(axis=0)).astype(int) - around, 0, template.shape)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + around + 1, 0, template.shape)
    if (low >= high).any():
        return out
    part = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
    solid = mask.like((mask.array > 0).astype(np.float32), "probability")
    share = _averaged(solid, _part(template, low, high), fill=0.0)
    peak = float(share.max())
    if peak > 1e-3:
        out[part] = share / peak
    else:  # between the samples: look voxel by voxel
        near = np.rint(index).astype(int)
        inside = near[((near >= 0) & (near < template.shape)).all(axis=1)]
        out[inside[:, 2], inside[:, 1], inside[:, 0]] = 1.0
    return out


def to_pet_grid(prob_zyx: NDArray[np.float32], template: Volume, pet: Volume) -> Volume:
    """Probabilities [Z, Y, X] on the template -> Volume "probability" on the PET's grid, 0 outside the template."""
    if prob_zyx.shape != template.shape[::-1]:
        raise GeometryError(f"probabilities {prob_zyx.shape} do not lie on the template {template.shape[::-1]}")
    on_template = template.like(np.ascontiguousarray(prob_zyx.transpose(2, 1, 0), dtype=np.float32), "probability")
    out = resample(on_template, like=pet, order="linear", fill=0.0)
    probability = pet.like(np.asarray(out.array, dtype=np.float32), "probability")
    require_same_grid(probability, pet, case=None)
    return probability


def _body(pet: Volume) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Coarse masks [i, j, k] of the body and of all its pieces, and the RAS millimetres of the voxels [i, j, k, 3]."""
    step = [max(1, round(BODY_STEP_MM / mm)) for mm in pet.spacing_ijk_mm]
    smooth = ndimage.uniform_filter(np.asarray(pet.array, dtype=np.float32), size=step, mode="constant")
    starts = [n // 2 for n in step]
    coarse = smooth[starts[0] :: step[0], starts[1] :: step[1], starts[2] :: step[2]]
    if coarse.size == 0:
        coarse, starts, step = smooth, [0, 0, 0], [1, 1, 1]
    regions, count = ndimage.label(coarse > BODY_SUV)
    body = pieces = np.zeros(coarse.shape, dtype=bool)
    if count:
        sizes = np.bincount(regions.ravel())
        sizes[0] = 0
        body, pieces = regions == int(np.argmax(sizes)), (sizes >= LIMB * sizes.max())[regions]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in coarse.shape), indexing="ij"), axis=-1)
    return body, pieces & (regions > 0), pet.to_world_mm(index * step + starts)


def model_template(pet: Volume, spec: GridSpec) -> Volume:
    """The model's grid as it is laid over this PET: its array is empty, its affine tells the place in RAS mm."""
    _ = pet.head_is_last  # raises when the stack is not axial
    body, pieces, places = _body(pet)
    edge = places[body] if body.any() else places.reshape(-1, 3)
    # the median is the midline even when one arm is up, the box's middle is not
    middle = np.median(edge, axis=0)
    if spec.patch_zyx is not None:
        return _own_template(pet, spec, middle, places[pieces] if body.any() else edge)
    low, high = np.percentile(edge, (2, 98), axis=0)  # arms at the sides may be cut off without a word
    low[2], high[2] = edge[:, 2].min(), edge[:, 2].max()
    spacing = np.asarray(spec.spacing_xyz_mm)
    if spec.fit_height:
        spacing[2] = (high[2] - low[2] + BODY_STEP_MM + 2 * HEAD_MARGIN_MM) / spec.shape_zyx[0]
    extent = spacing * np.asarray(spec.shape_zyx[::-1])
    for axis, name in ((0, "left-right"), (1, "front-back"), (2, "head-foot")):
        above = BODY_STEP_MM / 2 + HEAD_MARGIN_MM if axis == 2 else 0.0
        lost = float(high[axis] - low[axis] + above - extent[axis])
        # along the body every slice may hold a lesion: there any loss is told
        if lost > (0.0 if axis == 2 else MAY_LOSE * (high[axis] - low[axis])):
            _log.warning("the body is %.0f mm too long %s for the model's grid and is cut off", lost, name)
    origin = middle - extent / 2
    origin[2] = high[2] + BODY_STEP_MM / 2 + HEAD_MARGIN_MM - extent[2]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin + spacing / 2
    empty = np.zeros(spec.shape_zyx[::-1], dtype=np.uint8)
    return Volume(empty, affine, "label", frame_of_reference=pet.frame_of_reference)


def _own_template(pet: Volume, spec: GridSpec, middle: NDArray[np.float64], body: NDArray[np.float64]) -> Volume:
    """A grid of the exam's own size that holds all of the body [N, 3] mm and at least a patch.

    In x and y it reaches as far to the one side of the midline as to the other: the middle of the grid is the middle
    of the patient. Raises GeometryError when it would be larger than any patient.
    """
    spacing = np.asarray(spec.spacing_xyz_mm)
    low, high = body.min(axis=0) - BODY_STEP_MM / 2, body.max(axis=0) + BODY_STEP_MM / 2
    half = np.maximum(high - middle, middle - low) + HEAD_MARGIN_MM
    middle[2], half[2] = (low[2] + high[2]) / 2, (high[2] - low[2]) / 2 + HEAD_MARGIN_MM
    shape = np.maximum(np.ceil(2 * half / spacing - 1e-6).astype(int), (spec.patch_zyx or (1, 1, 1))[::-1])
    if np.prod(shape, dtype=float) > MOST_VOXELS:
        raise GeometryError(
            f"at {tuple(spec.spacing_xyz_mm)} mm this exam has {tuple(int(n) for n in shape[::-1])} voxels (z, y, x)",
            fix="give a larger spacing_xyz_mm, or check the image's affine",
        )
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = middle - spacing * (shape - 1) / 2
    affine[2, 3] = middle[2] + half[2] - spacing[2] * (shape[2] - 0.5)  # hangs from the head: what is added is below
    empty = np.broadcast_to(np.uint8(0), [int(n) for n in shape])
    return Volume(empty, affine, "label", frame_of_reference=pet.frame_of_reference)


def _part(template: Volume, low_xyz: Any, high_xyz: Any) -> Volume:
    """The template's voxels from `low_xyz` to below `high_xyz`, as a template of its own."""
    affine = template.affine.copy()
    affine[:3, 3] = template.to_world_mm(low_xyz)
    shape = [int(b) - int(a) for a, b in zip(low_xyz, high_xyz, strict=True)]
    return Volume(np.broadcast_to(np.uint8(0), shape), affine, "label")


def _highest(volume: Volume, template: Volume, fill: float) -> NDArray[np.float32]:
    """The volume on the template, [Z, Y, X]: the maximum of the source voxels whose centres lie in each of its voxels.

    So every source voxel counts in one place. Where no centre lies, the nearest source voxel.
    """
    source = np.asarray(volume.array, dtype=np.float32)
    out = np.array(resample(volume.like(source, volume.unit), like=template, order="nearest", fill=fill).array)
    onto = np.linalg.inv(template.affine) @ volume.affine
    i, j = np.meshgrid(*map(np.arange, source.shape[:2]), indexing="ij")
    for k in range(source.shape[2]):
        at = np.stack([i, j, np.full_like(i, k)], axis=-1) @ onto[:3, :3].T + onto[:3, 3]
        place = np.floor(at + 0.5).astype(np.int64)
        inside = ((place >= 0) & (place < out.shape)).all(axis=-1)
        np.maximum.at(out, tuple(place[inside].T), source[:, :, k][inside])
    return np.ascontiguousarray(np.asarray(out, dtype=np.float32).transpose(2, 1, 0))


def _averaged(volume: Volume, template: Volume, fill: float) -> NDArray[np.float32]:
    """The volume on the template, [Z, Y, X]: the mean over each of its voxels, by linear samples inside them."""
    world_mm = np.abs(volume.affine[:3, :3]).max(axis=1)  # about the source's spacing along x, y, z
    spacing = np.asarray(template.spacing_ijk_mm)
    fine = [int(np.clip(np.ceil(t / s - 0.25), 1, FINER)) for t, s in zip(spacing, world_mm, strict=True)]
    i, j, k = template.shape
    deep = max(1, SLAB_VOXELS // (i * j * math.prod(fine)))
    if deep < k:  # a slab after the other, from the feet to the head
        slabs = (_part(template, (0, 0, at), (i, j, min(k, at + deep))) for at in range(0, k, deep))
        return np.concatenate([_averaged(volume, slab, fill) for slab in slabs])
    shape = [n * f for n, f in zip(template.shape, fine, strict=True)]
    affine = template.affine.copy()
    affine[:3, :3] = template.affine[:3, :3] / np.asarray(fine)
    affine[:3, 3] = template.to_world_mm([-0.5 + 0.5 / f for f in fine])
    finer = Volume(np.broadcast_to(np.uint8(0), shape), affine, "label")
    source = volume.like(np.asarray(volume.array, dtype=np.float32), volume.unit)
    out = resample(source, like=finer, order="linear", fill=fill).array
    blocks = out.reshape(*(v for n, f in zip(template.shape, fine, strict=True) for v in (n, f)))
    averaged: NDArray[np.float32] = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    return np.ascontiguousarray(averaged.transpose(2, 1, 0))


def _window(values: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float32]:
    low, high = window
    return np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)
