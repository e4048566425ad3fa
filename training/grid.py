"""The model's grid: one size and spacing for every exam, placed by the patient's body.

A `template` is a Volume whose array is [x, y, z] and whose axes increase along RAS (to the right, to the front, to
the head); tensors are its transpose [z, y, x]. So axis 2 of a tensor counts towards the patient's right, axis 0
towards the head. Nothing else in `training` turns axes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

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
FINER = 3  # at most so many samples per axis are averaged into one voxel of the model's grid
AIR_HU = -1000.0


@dataclass(frozen=True)
class GridSpec:
    """Size, spacing and windows of the model's input.

    Args:
        spacing_xyz_mm: voxel size.
        shape_zyx: voxels along z, y, x of a tensor.
        suv_window: SUVbw [g/ml] that become 0 and 1.
        hu_window: CT values [HU] that become 0 and 1.
        fit_height: z spacing follows the body, so that it fills the grid from head to feet: a place has the same z
            coordinate in tall and short patients. For exams of one field of view (base of skull to thigh, say).
        pet_value: what a voxel takes of a finer PET: its "mean", or its "max", so that a lesion smaller than a voxel
            keeps the height (SUVmax) that the report speaks of.
    """

    spacing_xyz_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)
    shape_zyx: tuple[int, int, int] = (352, 192, 192)
    suv_window: tuple[float, float] = (0.0, 10.0)
    hu_window: tuple[float, float] = (-150.0, 250.0)
    fit_height: bool = False
    pet_value: Literal["mean", "max"] = "mean"

    def __post_init__(self) -> None:
        if len(self.spacing_xyz_mm) != 3 or min(self.spacing_xyz_mm) <= 0:
            raise ConfigError(f"spacing_xyz_mm {self.spacing_xyz_mm}", fix="three positive numbers, in mm")
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
            raise ConfigError(f"shape_zyx {self.shape_zyx}", fix="three positive numbers of voxels")
        for name in ("suv_window", "hu_window"):
            low, high = getattr(self, name)
            if not low < high:
                raise ConfigError(f"{name} {low, high}", fix="the first number must be the smaller")


def to_model_grid(pet: Volume, ct: Volume | None, spec: GridSpec) -> tuple[NDArray[np.float32], Volume]:
    """PET [SUVbw] and CT [HU], each on its own grid -> image [2, Z, Y, X] in 0..1 and the template it lies on.

    Channel 0 is PET, channel 1 CT (0 without one). The grid is centred on the body in x and y; in z its top lies
    just above the body's. A body longer than the grid is cut off at the feet, with a warning in the log. Where the
    grid is coarser than the image, CT is averaged and PET is averaged or keeps its maximum (`spec.pet_value`).

    Raises GeometryError when the PET is not axial or a unit is not what it should be.
    """
    if pet.unit != "SUVbw" or (ct is not None and ct.unit != "HU"):
        raise GeometryError(f"PET counts in {pet.unit}, CT in {ct.unit if ct else 'nothing'}", fix="SUVbw and HU")
    template = model_template(pet, spec)
    put = _highest if spec.pet_value == "max" else _averaged
    channels = [_window(put(pet, template, 0.0), spec.suv_window)]
    if ct is None:
        channels.append(np.zeros(spec.shape_zyx, dtype=np.float32))
    else:
        channels.append(_window(_averaged(ct, template, fill=AIR_HU), spec.hu_window))
    return np.stack(channels).astype(np.float32), template


def mask_to_model_grid(mask: Volume, template: Volume) -> NDArray[np.float32]:
    """A mask on the PET grid -> [Z, Y, X] in 0..1: the share of each voxel that it covers.

    Scaled so that its maximum is 1: a lesion smaller than a voxel keeps a voxel of its own and is never lost to a
    threshold. All zero when the mask is empty or lies outside the grid.
    """
    solid = mask.like((mask.array > 0).astype(np.float32), "probability")
    share = _averaged(solid, template, fill=0.0)
    peak = float(share.max())
    if peak <= 1e-3:  # between the samples, or outside: look voxel by voxel
        share = np.zeros(template.shape[::-1], dtype=np.float32)
        index = np.rint(template.to_index(mask.to_world_mm(np.argwhere(mask.array > 0)))).astype(int)
        inside = index[((index >= 0) & (index < template.shape)).all(axis=1)]
        share[inside[:, 2], inside[:, 1], inside[:, 0]] = 1.0
        return share
    return (share / peak).astype(np.float32)


def to_pet_grid(prob_zyx: NDArray[np.float32], template: Volume, pet: Volume) -> Volume:
    """Probabilities [Z, Y, X] on the template -> Volume "probability" on the PET's grid, 0 outside the template."""
    if prob_zyx.shape != template.shape[::-1]:
        raise GeometryError(f"probabilities {prob_zyx.shape} do not lie on the template {template.shape[::-1]}")
    on_template = template.like(np.ascontiguousarray(prob_zyx.transpose(2, 1, 0), dtype=np.float32), "probability")
    out = resample(on_template, like=pet, order="linear", fill=0.0)
    probability = pet.like(np.asarray(out.array, dtype=np.float32), "probability")
    require_same_grid(probability, pet, case=None)
    return probability


def _body(pet: Volume) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Coarse body mask [i, j, k] and the RAS millimetres of its voxels [i, j, k, 3]."""
    step = [max(1, round(BODY_STEP_MM / mm)) for mm in pet.spacing_ijk_mm]
    smooth = ndimage.uniform_filter(np.asarray(pet.array, dtype=np.float32), size=step, mode="constant")
    starts = [n // 2 for n in step]
    coarse = smooth[starts[0] :: step[0], starts[1] :: step[1], starts[2] :: step[2]]
    if coarse.size == 0:
        coarse, starts, step = smooth, [0, 0, 0], [1, 1, 1]
    regions, count = ndimage.label(coarse > BODY_SUV)
    body = np.zeros(coarse.shape, dtype=bool)
    if count:
        body = regions == 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in coarse.shape), indexing="ij"), axis=-1)
    return body, pet.to_world_mm(index * step + starts)


def model_template(pet: Volume, spec: GridSpec) -> Volume:
    """The model's grid as it is laid over this PET: its array is empty, its affine tells the place in RAS mm."""
    _ = pet.head_is_last  # raises when the stack is not axial
    body, places = _body(pet)
    edge = places[body] if body.any() else places.reshape(-1, 3)
    # the median is the midline even when one arm is up, the box's middle is not
    middle = np.median(edge, axis=0)
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


def _highest(volume: Volume, template: Volume, fill: float) -> NDArray[np.float32]:
    """The volume on the template, [Z, Y, X]: the maximum of the source voxels around each of its voxels."""
    axis_of = np.abs(volume.affine[:3, :3]).argmax(axis=0)  # the template's axis that each source axis runs along
    ratio = np.asarray(template.spacing_ijk_mm)[axis_of] / np.asarray(volume.spacing_ijk_mm)
    size = [max(1, round(float(r))) for r in ratio]
    highest = ndimage.maximum_filter(np.asarray(volume.array, dtype=np.float32), size=size, mode="constant", cval=fill)
    out = resample(volume.like(highest, volume.unit), like=template, order="nearest", fill=fill).array
    return np.ascontiguousarray(np.asarray(out, dtype=np.float32).transpose(2, 1, 0))


def _averaged(volume: Volume, template: Volume, fill: float) -> NDArray[np.float32]:
    """The volume on the template, [Z, Y, X]: the mean over each of its voxels, by linear samples inside them."""
    world_mm = np.abs(volume.affine[:3, :3]).max(axis=1)  # about the source's spacing along x, y, z
    spacing = np.asarray(template.spacing_ijk_mm)
    fine = [int(np.clip(np.ceil(t / s - 0.25), 1, FINER)) for t, s in zip(spacing, world_mm, strict=True)]
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
