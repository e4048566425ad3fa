"""Where things end up on the model's grid and back: every mark is off-centre and in millimetres."""

from __future__ import annotations

import itertools
import logging
from typing import Literal

import numpy as np
import pytest

from petground.labeling.errors import ConfigError, GeometryError
from petground.labeling.volume import Volume
from petground.models import networks
from petground.training import cache
from petground.training.grid import GridSpec, mask_to_model_grid, to_model_grid, to_pet_grid

SPEC = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(56, 24, 32))
MARK_MM = np.array([52.0, -30.0, 95.0])  # right, behind, towards the head


def _pet(flips: tuple[int, int, int] = (1, 1, 1), spacing: tuple[float, float, float] = (4.0, 5.0, 3.0)) -> Volume:
    """A body (ellipse 180 x 120 mm, 390 mm long) with a hot ball at MARK_MM; `flips` turn the array's axes."""
    shape = (64, 40, 150)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-130.0, -95.0, -220.0]
    axes = [affine[a, 3] + spacing[a] * np.arange(shape[a]) for a in range(3)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    body = ((x / 90) ** 2 + (y / 60) ** 2 < 1) & (z > -190) & (z < 200)
    array = np.where(body, 1.0, 0.0)
    ball = (x - MARK_MM[0]) ** 2 + (y - MARK_MM[1]) ** 2 + (z - MARK_MM[2]) ** 2 < 14.0**2
    array = np.where(ball, 9.0, array).astype(np.float32)
    for axis, sign in enumerate(flips):
        if sign < 0:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(array), affine, "SUVbw")


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_a_mark_keeps_its_place_however_the_array_lies(flips: tuple[int, int, int]) -> None:
    pet = _pet(flips)
    image, template = to_model_grid(pet, None, SPEC)
    assert image.shape == (2, *SPEC.shape_zyx)
    assert image.dtype == np.float32
    assert template.shape == SPEC.shape_zyx[::-1]
    hot = np.argwhere(image[0] > 0.7)
    centre_mm = template.to_world_mm(hot.mean(axis=0)[::-1])  # tensors are z, y, x
    assert np.abs(centre_mm - MARK_MM).max() < 4.0
    _, y, x = hot.mean(axis=0)
    assert x > 16 + 4  # the patient's right lies at high x
    assert y < 12
    assert np.all(np.diag(template.affine)[:3] == 8.0)
    assert (image[1] == 0).all()


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_masks_go_there_and_back(flips: tuple[int, int, int]) -> None:
    pet = _pet(flips)
    mask = pet.like(pet.array > 5, "label")
    _, template = to_model_grid(pet, None, SPEC)
    soft = mask_to_model_grid(mask, template)
    assert soft.shape == SPEC.shape_zyx
    assert soft.max() == 1.0
    back = to_pet_grid(soft, template, pet)
    assert back.unit == "probability"
    assert back.shape == pet.shape
    found = back.array > 0.5
    overlap = 2 * (found & mask.array).sum() / (found.sum() + mask.array.sum())
    assert overlap > 0.75
    centre = pet.to_world_mm(np.argwhere(found).mean(axis=0))
    assert np.abs(centre - MARK_MM).max() < 3.0


def test_ct_lies_where_the_pet_lies_and_both_are_windowed() -> None:
    pet = _pet()
    shape = (100, 70, 90)
    affine = np.diag([-3.0, -3.0, 5.0, 1.0])
    affine[:3, 3] = [150.0, 105.0, -225.0]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    hu = np.where(((world - MARK_MM) ** 2).sum(-1) < 15.0**2, 800.0, -1000.0)
    image, template = to_model_grid(pet, Volume(hu.astype(np.int16), affine, "HU"), SPEC)
    bone = np.argwhere(image[1] > 0.5)
    assert np.abs(template.to_world_mm(bone.mean(axis=0)[::-1]) - MARK_MM).max() < 4.0
    assert image.min() >= 0
    assert image.max() <= 1
    assert image[0].max() == pytest.approx(0.9, abs=0.02)  # SUV 9 of 0..10
    body = image[0][28, 12, 16]
    assert body == pytest.approx(0.1, abs=0.01)


def test_the_body_is_centred_and_hangs_from_its_top() -> None:
    image, template = to_model_grid(_pet(), None, SPEC)
    inside = np.argwhere(image[0] > 0.05)
    low, high = inside.min(axis=0), inside.max(axis=0)
    assert SPEC.shape_zyx[0] - 1 - high[0] in (1, 2)  # z: just below the top
    assert abs((low[1] + high[1]) / 2 - 11.5) <= 1
    assert abs((low[2] + high[2]) / 2 - 15.5) <= 1
    assert template.to_world_mm([0, 0, 55])[2] == pytest.approx(200 + 12, abs=8)


def test_a_small_lesion_never_vanishes() -> None:
    pet = _pet()
    _, template = to_model_grid(pet, None, GridSpec((12.0, 12.0, 12.0), (40, 16, 24)))
    for voxel in [(40, 12, 100), (41, 13, 101), (20, 20, 33), (33, 17, 70)]:
        single = np.zeros(pet.shape, dtype=np.uint8)
        single[voxel] = 1
        soft = mask_to_model_grid(pet.like(single, "label"), template)
        assert soft.max() == 1.0
        peak = np.unravel_index(int(soft.argmax()), soft.shape)
        assert np.abs(template.to_world_mm(peak[::-1]) - pet.to_world_mm(voxel)).max() <= 6.01
    empty = mask_to_model_grid(pet.like(np.zeros(pet.shape, dtype=np.uint8), "label"), template)
    assert empty.max() == 0


def test_coarse_values_are_means() -> None:
    rng = np.random.default_rng(0)
    pet = _pet(spacing=(4.0, 4.0, 4.0))
    noisy = pet.like(np.where(pet.array > 0, rng.uniform(0, 2, pet.shape), 0).astype(np.float32), "SUVbw")
    image, _ = to_model_grid(noisy, None, SPEC)
    inner = image[0][26:32, 10:14, 12:20] * 10
    assert inner.mean() == pytest.approx(1.0, abs=0.05)
    assert inner.std() < 0.35  # single samples would have 0.58


def test_a_body_too_long_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        image, template = to_model_grid(_pet(), None, GridSpec((8.0, 8.0, 8.0), (32, 24, 32)))
    assert "head-foot" in caplog.text
    assert np.abs(template.to_world_mm(np.argwhere(image[0] > 0.7).mean(axis=0)[::-1]) - MARK_MM).max() < 4.0


@pytest.mark.parametrize(("slices", "told"), [(46, True), (56, False)])
def test_any_loss_along_the_body_is_told(slices: int, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The body is 390 mm long and hangs some 12 mm below the grid's top: 368 mm lose less than a tenth of it."""
    with caplog.at_level(logging.WARNING):
        to_model_grid(_pet(), None, GridSpec((8.0, 8.0, 8.0), (slices, 24, 32)))
    assert ("head-foot" in caplog.text) == told


def test_bad_inputs_raise() -> None:
    pet = _pet()
    _, template = to_model_grid(pet, None, SPEC)
    with pytest.raises(GeometryError):
        to_model_grid(pet.like(pet.array, "HU"), None, SPEC)
    with pytest.raises(GeometryError):
        to_pet_grid(np.zeros((3, 4, 5), dtype=np.float32), template, pet)
    with pytest.raises(ConfigError):
        GridSpec(spacing_xyz_mm=(0.0, 1.0, 1.0))
    with pytest.raises(ConfigError):
        GridSpec(suv_window=(5.0, 5.0))


def test_fitted_height_gives_a_place_the_same_coordinate_in_every_patient() -> None:
    spec = GridSpec((8.0, 8.0, 8.0), (48, 24, 32), fit_height=True)
    tall = _pet()
    affine = tall.affine.copy()
    affine[2] *= 0.8  # the same patient, a fifth shorter
    rows = []
    for pet in (tall, Volume(tall.array, affine, "SUVbw")):
        image, template = to_model_grid(pet, None, spec)
        hot = np.argwhere(image[0] > 0.7).mean(axis=0)
        rows.append(hot[0])
        where = template.to_world_mm(hot[::-1])
        assert np.abs(where - MARK_MM * ([1, 1, 1] if pet is tall else [1, 1, 0.8])).max() < 4.0
        inside = np.argwhere(image[0] > 0.05)[:, 0]
        assert inside.min() <= 3
        assert inside.max() >= 44
    assert abs(rows[0] - rows[1]) < 1.5


@pytest.mark.parametrize("spacing", [2.0, 2.5, 3.65, 4.0, 4.07, 5.47, 9.8, 9.995, 10.0])
@pytest.mark.parametrize("flip", [1, -1])
def test_wherever_the_hottest_voxel_lies_it_is_kept_and_in_one_place_alone(spacing: float, flip: int) -> None:
    """No voxel of a finer PET is stepped over, nor counted twice, whichever way its array runs."""
    shape = [round(200 / spacing), round(120 / spacing), round(160 / spacing)]
    spec = GridSpec((10.0, 10.0, 10.0), (24, 24, 28), pet_value="max")
    rng = np.random.default_rng(3)
    for _ in range(12):
        array = np.full(shape, 1.0, np.float32)
        at = tuple(int(rng.integers(3, n - 3)) for n in shape)
        array[at] = 9.0
        pet = Volume(array, np.diag([-spacing * flip, -spacing, spacing, 1.0]), "SUVbw")
        image, template = to_model_grid(pet, None, spec)
        assert image[0].max() == pytest.approx(0.9)
        marked_mm = template.to_world_mm(np.argwhere(image[0] > 0.5)[:, ::-1])
        off = np.abs(marked_mm - pet.to_world_mm(at))
        assert (off <= 5.0 + 1e-6).all(axis=-1).any(), "in the voxel that its centre lies in"
        if spacing < 5.0:
            assert len(marked_mm) == 1


def test_a_lesion_smaller_than_a_voxel_keeps_its_height_when_asked() -> None:
    array = np.full((64, 48, 80), 1.0, np.float32)
    array[41, 20, 50] = 9.0  # off centre on every axis
    pet = Volume(array, np.diag([-4.0, -4.0, 4.0, 1.0]), "SUVbw")
    place_mm = pet.to_world_mm([41, 20, 50])
    found = {}
    for value in ("mean", "max"):
        spec = GridSpec((12.0, 12.0, 12.0), (32, 24, 32), pet_value=value)
        image, template = to_model_grid(pet, None, spec)
        z, y, x = np.unravel_index(int(image[0].argmax()), image[0].shape)
        assert np.abs(template.to_world_mm([x, y, z]) - place_mm).max() <= 6.0 + 1e-6
        found[value] = float(image[0].max())
    assert found["max"] > 2 * found["mean"]
    assert found["max"] > 0.4


@pytest.mark.parametrize(
    ("how", "row", "total"),
    [
        ("mean", [0.2954, 0.2876, 0.3083, 0.3046, 0.3019, 0.3117], 242.1664),
        ("max", [0.5, 0.425, 0.5, 0.5, 0.475, 0.5], 511.025),
    ],
)
def test_voxels_are_what_the_versions_stand_for(how: Literal["mean", "max"], row: list[float], total: float) -> None:
    """Other numbers here: raise cache._VERSION and networks.VERSION, or old grids and old weights meet new ones."""
    i, j, k = np.meshgrid(np.arange(31), np.arange(26), np.arange(40), indexing="ij")
    body = ((i - 15) / 13) ** 2 + ((j - 12) / 10) ** 2 < 1
    array = np.where(body, 1.0 + (7 * i + 11 * j + 13 * k) % 17 / 4, 0.0).astype(np.float32)
    affine = np.diag([-4.07, 4.07, 3.0, 1.0])
    affine[:3, 3] = [61.0, -50.0, -57.0]
    spec = GridSpec((9.0, 10.0, 11.0), (12, 10, 14), pet_value=how)
    pet, _ = to_model_grid(Volume(array, affine, "SUVbw"), None, spec)[0]
    assert pet[5, 4, 3:9] == pytest.approx(row, abs=1e-4)
    assert pet.sum(dtype=np.float64) == pytest.approx(total, abs=0.01)
    assert (cache._VERSION, networks.VERSION) == (3, 3)
