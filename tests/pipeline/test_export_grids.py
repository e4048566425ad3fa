"""Images and masks keep their place in the patient on every grid; nothing is mirrored."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from export_work import images

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Volume, same_grid
from petground.pipeline.exports.grids import doubtful, image_on, mask_on, ras, target_grid
from petground.pipeline.geometry import grid_of

ORIENTATIONS = ["LPS", "RAS", "LAS", "PIR", "SLA", "RSP", "ASR", "LIP"]


def stored_as(volume: Volume, codes: str) -> Volume:
    """The same image with its axes stored in another order and direction, by nibabel."""
    image = nib.Nifti1Image(volume.array, volume.affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(volume.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(turn)
    return Volume(np.asarray(turned.dataobj), turned.affine, volume.unit)


def marked() -> tuple[Volume, np.ndarray]:
    """A PET with one hot voxel off every centre, and where it lies in RAS mm."""
    pet, _ = images(0)
    array = np.zeros(pet.shape, dtype=np.float32)
    array[4, 5, 21] = 9.0
    return pet.like(array, "SUVbw"), pet.to_world_mm([4, 5, 21])


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_ras_moves_voxels_and_affine_together(codes: str) -> None:
    pet, place = marked()
    turned = ras(stored_as(pet, codes))
    assert "".join(nib.aff2axcodes(turned.affine)) == "RAS"
    assert same_grid(turned, ras(pet))
    assert np.array_equal(turned.array, ras(pet).array)
    hottest = np.unravel_index(turned.array.argmax(), turned.shape)
    assert np.allclose(turned.to_world_mm(hottest), place)


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize(
    "choice", [{}, {"upright": True}, {"on_ct": True}, {"on_ct": True, "upright": True}, {"spacing_xyz_mm": (5, 6, 7)}]
)
def test_every_channel_lies_in_the_same_place_on_every_grid(codes: str, choice: dict) -> None:
    pet, place = marked()
    _, ct = images(0)
    pet, ct = stored_as(pet, codes), stored_as(ct, codes)
    grid = target_grid(pet, ct, **{"spacing_xyz_mm": None, "on_ct": False, "upright": False} | choice)
    on_pet = image_on(pet, grid)
    on_ct = image_on(ct, grid)
    assert same_grid(on_pet, on_ct)
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    hottest = np.array(np.unravel_index(on_pet.array.argmax(), on_pet.shape))
    assert (np.abs(on_pet.to_world_mm(hottest) - place) <= np.abs(grid.affine[:3, :3]).max() / 2 + 7).all()
    mask = mask_on(np.asarray(pet.array > 5), pet, grid)
    assert mask[tuple(hottest)] or mask.sum() == 1
    assert np.abs(on_pet.to_world_mm(np.argwhere(mask)).mean(axis=0) - place).max() <= spacing.max() / 2 + 1e-6
    # the CT's values tell where they lie: HU is x in mm, 500 more in front
    inside = on_ct.array > -1000
    assert inside.any()
    world = on_ct.to_world_mm(np.argwhere(inside))
    deep = (np.abs(world[:, 1]) > 20) & (np.abs(world[:, 0]) < 80)
    told = world[:, 0] + 500 * (world[:, 1] > 0)
    apart = np.abs(on_ct.array[inside].astype(float) - told)[deep]
    assert np.percentile(apart, 90) < 3


def test_outside_of_the_ct_is_air_and_the_ct_stays_whole_numbers() -> None:
    pet, ct = images(0)
    placed = image_on(ct, grid_of(pet))
    assert placed.array.dtype == np.int16
    assert (placed.array[:, :, -1] == -1024).all(), "the PET reaches further up than the CT"


def test_on_its_own_grid_an_image_is_passed_through_untouched() -> None:
    pet, ct = images(0)
    assert image_on(pet, target_grid(pet, ct, spacing_xyz_mm=None, on_ct=False, upright=False)).array is pet.array


def test_a_coarse_grid_averages_and_a_small_lesion_is_not_lost() -> None:
    pet, _ = images(0)
    checkers = np.indices(pet.shape).sum(axis=0) % 2 * 2.0
    coarse = target_grid(pet, None, spacing_xyz_mm=(40.0, 48.0, 56.0), on_ct=False, upright=False)
    inner = image_on(pet.like(checkers.astype(np.float32), "SUVbw"), coarse).array[1:-1, 1:-1, 1:-1]
    assert np.abs(inner - 1.0).max() < 0.3, "sampled without averaging it would be 0 or 2"
    one = np.zeros(pet.shape, dtype=bool)
    one[4, 5, 21] = True
    kept = mask_on(one, pet, coarse)
    assert kept.sum() >= 1
    world = Volume(np.zeros(coarse.shape, np.uint8), coarse.affine, "label").to_world_mm(np.argwhere(kept))
    assert np.abs(world.mean(axis=0) - pet.to_world_mm([4, 5, 21])).max() <= 28
    assert mask_on(np.zeros(pet.shape, dtype=bool), pet, coarse).sum() == 0


def test_doubt_is_the_blob_around_the_candidate_within_30_mm() -> None:
    pet, _ = images(0)
    array = np.zeros(pet.shape, dtype=np.float32)
    array[10:13, 8, 12] = (4.0, 10.0, 5.0)
    array[13, 8, 12] = 3.9  # below 41 %
    array[10, 8, 20:28] = 10.0  # not connected
    found = doubtful(pet.like(array, "SUVbw"), (11, 8, 12), 10.0)
    assert np.argwhere(found).tolist() == [[11, 8, 12], [12, 8, 12]]
    long = np.zeros(pet.shape, dtype=np.float32)
    long[5, 8, :] = 10.0
    k = np.argwhere(doubtful(pet.like(long, "SUVbw"), (5, 8, 10), 10.0))[:, 2]
    assert (k.min(), k.max()) == (8, 12), "30 mm at 14 mm a slice"
    with pytest.raises(GeometryError, match="outside"):
        doubtful(pet, (5, 8, 99), 10.0)


def test_an_oblique_image_is_not_turned_silently() -> None:
    pet, _ = images(0)
    c = np.cos(np.pi / 4)
    affine = pet.affine.copy()
    affine[:3, :3] = affine[:3, :3] @ np.array([[c, -c, 0], [c, c, 0], [0, 0, 1.0]])
    with pytest.raises(GeometryError, match="--spacing"):
        target_grid(Volume(pet.array, affine, "SUVbw"), None, spacing_xyz_mm=None, on_ct=False, upright=True)
    with pytest.raises(GeometryError, match="no CT"):
        target_grid(pet, None, spacing_xyz_mm=None, on_ct=True, upright=False)
