"""Answers drawn anew on the PET: the same uptake, its own extent, never another lesion's."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.ground_by import Answer
from petground.pipeline.redraw import redrawn, redraws

SHAPE, SPACING = (48, 40, 36), (4.0, 3.0, 5.0)
HERE, OTHER = (14, 25, 12), (34, 25, 12)  # same height, the other side
COARSE_MM = (10.0, 10.0, 14.0)


@pytest.fixture(scope="module")
def pet() -> Volume:
    """Two balls of 9 mm radius, the other side's the hotter one, at 6 mm FWHM over a background of 1."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1) * SPACING
    image = np.ones(SHAPE, dtype=np.float32)
    for middle, suv in ((HERE, 8.0), (OTHER, 12.0)):
        image[np.linalg.norm(grid - np.multiply(middle, SPACING), axis=-1) < 9.0] = suv
    image = gaussian_filter(image, [6.0 / 2.355 / mm for mm in SPACING])
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])  # i runs to the patient's right, as in DICOM
    return Volume(image, affine, "SUVbw")


def said(pet: Volume, *slices: slice) -> Answer:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slices] = True
    if not mask.any():
        return Answer(mask, 0.1, None, None, 0.0)
    i, j, k = (int(n) for n in np.unravel_index(np.where(mask, pet.array, -1).argmax(), SHAPE))
    return Answer(mask, 0.7, (i, j, k), float(pet.array[i, j, k]), float(mask.sum()) * pet.voxel_ml)


def test_a_block_at_the_rim_becomes_the_lesion(pet: Volume) -> None:
    rim = said(pet, slice(15, 18), slice(26, 29), slice(12, 14))
    assert rim.voxel_ijk != HERE
    anew = redrawn(rim, pet, Site(), COARSE_MM)
    assert anew.voxel_ijk == HERE
    assert anew.suv_max == pytest.approx(float(pet.array[HERE]))
    assert anew.presence == rim.presence
    ball_ml = 4 / 3 * np.pi * 0.9**3
    assert anew.volume_ml == pytest.approx(ball_ml, rel=0.3)
    assert anew.volume_ml == pytest.approx(np.count_nonzero(anew.mask) * pet.voxel_ml)
    assert not anew.mask[SHAPE[0] // 2 :].any(), "the other side's lesion"


def test_a_wide_mask_shrinks_to_the_lesion(pet: Volume) -> None:
    wide = said(pet, slice(6, 23), slice(15, 36), slice(4, 20))
    anew = redrawn(wide, pet, Site(), COARSE_MM)
    assert anew.volume_ml < wide.volume_ml / 10
    assert anew.mask[HERE]


@pytest.mark.parametrize("flank", [(30, 25, 12), (14, 25, 15)])  # 16 mm across, 15 mm along from a maximum
def test_a_maximum_further_than_a_voxel_of_the_model_is_another_lesion(
    pet: Volume, flank: tuple[int, int, int]
) -> None:
    beside = said(pet, *(slice(n, n + 1) for n in flank))
    assert redrawn(beside, pet, Site(), COARSE_MM) is beside


def test_an_outline_that_shares_no_voxel_is_not_the_answers(pet: Volume) -> None:
    beside = said(pet, slice(30, 31), slice(25, 26), slice(12, 13))
    assert redrawn(beside, pet, Site(), (30.0, 30.0, 30.0)) is beside


def test_nothing_stays_nothing(pet: Volume) -> None:
    nothing = said(pet, slice(0, 0))
    assert redrawn(nothing, pet, Site(), COARSE_MM) is nothing


def test_auto_looks_at_the_voxels(pet: Volume) -> None:
    assert redraws("auto", pet, COARSE_MM)
    assert not redraws("auto", pet, SPACING)
    assert not redraws("auto", pet, (3.0, 3.0, 3.0))
    assert not redraws("auto", pet, None)
    assert redraws("pet", pet, None)
    assert not redraws("model", pet, COARSE_MM)
