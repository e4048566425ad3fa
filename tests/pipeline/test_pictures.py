"""Pictures: an off-centre mark must end where a physician looks for it, whatever way the array is stored."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from nibabel import orientations
from numpy.typing import NDArray
from PIL import Image

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Volume
from petground.pipeline.pictures import (
    CYAN,
    OUTLINES,
    RED,
    axial,
    mip,
    pixel_of,
    png_bytes,
    side_by_side,
    stacked,
    write_png,
)

MM = 2.0
SHAPE = (30, 20, 40)  # R, A, S
SPACING = (4.0, 4.0, 6.0)


def marked(axcodes: str = "RAS", at_ras: tuple[int, int, int] = (4, 15, 5)) -> tuple[Volume, tuple[int, int, int]]:
    """A PET with one hot voxel at the patient's left, anterior, towards the feet, stored in any orientation."""
    array = np.zeros(SHAPE, dtype=np.float32)
    array[at_ras] = 20.0
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-58.0, -37.0, -900.0)
    ornt = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(tuple(axcodes)))
    stored = np.ascontiguousarray(orientations.apply_orientation(array, ornt))
    volume = Volume(stored, affine @ orientations.inv_ornt_aff(ornt, SHAPE), "SUVbw")
    i, j, k = np.argwhere(stored > 0)[0]
    return volume, (int(i), int(j), int(k))


def darkest(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """(row, column) of the dark blob's centre as fractions of height and width."""
    dark = np.argwhere(picture.sum(axis=2) < 200)
    row, column = dark.mean(axis=0)
    return float(row / picture.shape[0]), float(column / picture.shape[1])


ALL_ORIENTATIONS = [
    "".join(p[a] for p, a in zip(pairs, signs, strict=True))
    for pairs in itertools.permutations(["RL", "AP", "SI"])
    for signs in itertools.product((0, 1), repeat=3)
]


@pytest.mark.parametrize("axcodes", ["RAS", "LAS", "LPS", "RAI", "LPI", "SRA", "PIR"])
def test_mark_at_the_patients_left_low_and_anterior_ends_right_bottom(axcodes: str) -> None:
    pet, _ = marked(axcodes)
    row, column = darkest(mip(pet, "coronal", letters=False, pixel_mm=MM))
    assert row > 0.8, "towards the feet is at the bottom"
    assert column > 0.8, "the patient's left is on the picture's right"
    row, column = darkest(mip(pet, "sagittal", letters=False, pixel_mm=MM))
    assert row > 0.8
    assert column < 0.3, "anterior is on the picture's left"


def test_axial_shows_left_on_the_right_and_anterior_up_in_every_orientation() -> None:
    assert len(set(ALL_ORIENTATIONS)) == 48
    for axcodes in ALL_ORIENTATIONS:
        pet, ijk = marked(axcodes)
        k = ijk[[c in "SI" for c in axcodes].index(True)]
        panels = axial(pet, None, None, k, pixel_mm=MM, letters=False)
        row, column = darkest(panels.pet)
        assert row < 0.3, axcodes
        assert column > 0.8, axcodes


def test_every_orientation_gives_the_same_picture() -> None:
    want = mip(marked()[0], "coronal", pixel_mm=MM)
    for axcodes in ALL_ORIENTATIONS:
        np.testing.assert_array_equal(mip(marked(axcodes)[0], "coronal", pixel_mm=MM), want)


def test_of_equal_masks_the_first_is_seen() -> None:
    pet, ijk = marked()
    mask = np.zeros(pet.shape, dtype=bool)
    mask[tuple(slice(n - 2, n + 3) for n in ijk)] = True
    picture = mip(pet, "coronal", (mask, mask, mask), letters=False, pixel_mm=MM)
    seen = [bool((picture == np.array(tint)).all(axis=-1).any()) for tint in OUTLINES[:3]]
    assert seen == [True, False, False]


def test_pixels_are_square_millimetres() -> None:
    picture = mip(marked()[0], "coronal", pixel_mm=MM)
    assert picture.shape == (40 * 6 // 2, 30 * 4 // 2, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA"])
def test_pixel_of_finds_the_mark(axcodes: str) -> None:
    pet, ijk = marked(axcodes)
    picture = mip(pet, "coronal", pixel_mm=MM, letters=False)
    row, column = pixel_of(pet, "coronal", ijk, pixel_mm=MM)
    assert picture[row, column].sum() < 150
    assert pixel_of(pet, "axial", ijk, pixel_mm=MM)[1] == column


def test_ct_on_its_own_shifted_grid_is_drawn_at_the_same_millimetres() -> None:
    pet, ijk = marked("LPS")
    bone_mm = pet.to_world_mm(ijk)
    affine = np.diag([2.0, -2.0, 3.0, 1.0])
    affine[:3, 3] = (-90.0, 60.0, -930.0)
    ct = Volume(np.full((90, 60, 100), -200, dtype=np.int16), affine, "HU")
    i, j, k = np.rint(ct.to_index(bone_mm)).astype(int)
    ct.array[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = 1000
    panels = axial(pet, ct, None, ijk[2], pixel_mm=MM, letters=False)
    assert panels.ct is not None
    bright = np.argwhere(panels.ct[:, :, 0] > 200).mean(axis=0)
    row, column = pixel_of(pet, "axial", ijk, pixel_mm=MM)
    assert np.abs(bright - (row, column)).max() <= 1.0


def test_ct_outside_its_field_is_black_and_lung_dark() -> None:
    pet, ijk = marked()
    ct = Volume(np.zeros((2, 2, 2), dtype=np.int16), np.diag([1.0, 1.0, 1.0, 1.0]), "HU")
    panels = axial(pet, ct, None, ijk[2], letters=False)
    assert panels.ct is not None
    assert panels.ct.max() == 0


def test_outline_goes_round_the_lesion_and_leaves_it_visible() -> None:
    pet, ijk = marked()
    mask = pet.array > 0
    picture = mip(pet, "coronal", mask, pixel_mm=MM, letters=False)
    red = np.argwhere((picture == RED).all(axis=2))
    row, column = pixel_of(pet, "coronal", ijk, pixel_mm=MM)
    assert len(red) > 0
    assert np.abs(red.mean(axis=0) - (row, column)).max() <= 1.0
    assert not (picture[row, column] == RED).all()
    panels = axial(pet, None, mask, ijk[2], pixel_mm=MM, letters=False)
    assert (panels.fused == CYAN).all(axis=2).any()
    away = axial(pet, None, mask, ijk[2] + 5, pixel_mm=MM, letters=False)
    assert not (away.fused == CYAN).all(axis=2).any()


def test_slice_line_is_drawn_at_its_slice() -> None:
    pet, ijk = marked("LPI")
    picture = mip(pet, "coronal", k=ijk[2], pixel_mm=MM, letters=False)
    rows = np.unique(np.argwhere((picture == (20, 90, 220)).all(axis=2))[:, 0])
    assert len(rows) == 1
    assert abs(int(rows[0]) - pixel_of(pet, "coronal", ijk, pixel_mm=MM)[0]) <= 1


def test_suv_window_is_inverse_grey_from_0_to_10() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for suv, grey in ((0.0, 255), (5.0, 127), (10.0, 0), (40.0, 0), (np.nan, 255)):
        pet = Volume(np.full((4, 4, 4), suv, dtype=np.float32), affine, "SUVbw")
        picture = mip(pet, "coronal", pixel_mm=2.0, letters=False)
        assert abs(int(picture[1, 1, 0]) - grey) <= 1


def test_letters_stand_at_the_edges() -> None:
    pet, _ = marked()
    plain, lettered = (mip(pet, "coronal", letters=on) for on in (False, True))
    changed = np.argwhere((plain != lettered).any(axis=2))
    assert changed[:, 1].min() < 6
    assert changed[:, 1].max() > lettered.shape[1] - 8


def test_mask_of_another_shape_and_slice_outside_are_refused() -> None:
    pet, _ = marked()
    with pytest.raises(GeometryError):
        mip(pet, "coronal", np.zeros((3, 3, 3), dtype=bool))
    with pytest.raises(GeometryError):
        axial(pet, None, None, 40)


def test_png_files_are_whole(tmp_path: Path) -> None:
    pet, _ = marked()
    row = side_by_side([mip(pet, "coronal"), mip(pet, "sagittal")])
    write_png(tmp_path / "pictures" / "a.png", row)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "pictures" / "a.png")), row)
    assert png_bytes(row).startswith(b"\x89PNG")
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["a.png"]


def test_cropping_leaves_out_the_air_and_keeps_sides_and_scale() -> None:
    array = np.zeros((60, 50, 40), dtype=np.float32)
    array[20:40, 15:35] = 0.5
    array[22:24, 17:19, 5] = 20.0  # the patient's left, posterior
    pet = Volume(array, np.diag([4.0, 4.0, 6.0, 1.0]), "SUVbw")
    picture = mip(pet, "coronal", crop=True, pixel_mm=MM, letters=False)
    assert picture.shape[:2] == (120, (20 + 2 * 5) * 2)  # 20 mm margin each side
    row, column = darkest(picture)
    assert row > 0.8
    assert column > 0.6
    panels = axial(pet, None, None, 5, crop=True, pixel_mm=MM, letters=False)
    assert panels.pet.shape == (60, 60, 3)
    row, column = darkest(panels.pet)
    assert row > 0.6
    assert column > 0.6


def test_several_masks_have_their_own_colours() -> None:
    pet, _ = marked()
    masks = [np.zeros(pet.shape, dtype=bool) for _ in range(3)]
    for n, mask in enumerate(masks):
        mask[5 + 8 * n, 5, 20] = True
    picture = mip(pet, "coronal", masks, pixel_mm=MM, letters=False)
    for n, tint in enumerate(OUTLINES[:3]):
        column = np.argwhere((picture == tint).all(axis=2)).mean(axis=0)[1]
        assert column == pytest.approx((29 - (5 + 8 * n) + 0.5) * 2 - 0.5)


def test_stacked_pictures_lie_below_each_other() -> None:
    one, two = np.zeros((4, 6, 3), np.uint8), np.full((2, 3, 3), 9, np.uint8)
    both = stacked([one, two], gap=1)
    assert both.shape == (7, 6, 3)
    assert (both[5:, :3] == 9).all()
