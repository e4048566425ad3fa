"""Volume, site and error records: geometry is checked where it enters, settings are checked by name."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from petground.labeling.errors import ConfigError, GeometryError, InputError, SuvError
from petground.labeling.site import Site, site_from_mapping
from petground.labeling.volume import Volume, require_same_grid, same_grid

AFFINE = np.array([[-4.0, 0, 0, 100], [0, -4.0, 0, 80], [0, 0, 3.0, -500], [0, 0, 0, 1]])


def volume(affine: np.ndarray = AFFINE, shape: tuple[int, int, int] = (5, 6, 7)) -> Volume:
    return Volume(np.zeros(shape, np.float32), affine, "SUVbw")


def test_world_and_index_are_inverse_and_know_the_side() -> None:
    pet = volume()
    assert pet.to_world_mm([1, 2, 3]).tolist() == [96, 72, -491]
    assert pet.to_index([96, 72, -491]) == pytest.approx([1, 2, 3])
    assert pet.spacing_ijk_mm == (4.0, 4.0, 3.0)
    assert pet.voxel_ml == pytest.approx(0.048)
    # i grows towards -x: from the patient's right to the left.
    assert pet.to_world_mm([4, 0, 0])[0] < pet.to_world_mm([0, 0, 0])[0]


def test_head_direction_is_asked_of_the_affine() -> None:
    down = AFFINE.copy()
    down[2, 2] = -3.0
    assert volume().head_is_last
    assert not volume(down).head_is_last
    coronal = np.array([[4.0, 0, 0, 0], [0, 0, 4.0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1]])
    with pytest.raises(GeometryError, match="head-foot"):
        _ = volume(coronal).head_is_last


@pytest.mark.parametrize("affine", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_unusable_affines_are_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="affine"):
        volume(affine)


def test_empty_arrays_and_miscounted_slices_are_refused() -> None:
    with pytest.raises(GeometryError, match="non-empty"):
        volume(shape=(5, 0, 7))
    with pytest.raises(GeometryError, match="6 instance numbers for 7 slices"):
        Volume(np.zeros((5, 6, 7)), AFFINE, "SUVbw", instance_numbers=tuple(range(6)))


def test_grids_that_differ_by_half_a_millimetre_differ() -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    assert same_grid(volume(), volume())
    assert not same_grid(volume(), volume(moved))
    stretched = AFFINE.copy()
    stretched[2, 2] = 3.01  # the origin agrees, the last slice is 0.06 mm off
    assert not same_grid(volume(), volume(stretched))
    with pytest.raises(GeometryError, match="e1"):
        require_same_grid(volume(), volume(moved), case="e1")
    with pytest.raises(GeometryError, match="does not fit"):
        volume().like(np.zeros((5, 6, 8)), "label")


def test_site_settings_are_checked_by_name_type_and_word() -> None:
    assert site_from_mapping(None) == Site()
    assert site_from_mapping({"slice_origin": "feet", "suv_minimum": 3}).suv_minimum == 3.0
    for values, said in [
        ({"slice_orgin": "feet"}, "did you mean slice_origin"),
        ({"slice_origin": "toes"}, "one of head, feet"),
        ({"slice_first": 2}, "from 0 or from 1"),
        ({"slice_first": True}, "expected int"),
        ({"suv_minimum": -1.0}, "negative"),
        ({"name": 5}, "expected str"),
    ]:
        with pytest.raises(ConfigError, match=said):
            site_from_mapping(values)


def test_errors_survive_the_trip_from_another_process() -> None:
    for error in (
        SuvError("PatientWeight is missing", case="e1", fix="see the site table"),
        InputError("no PET", reason="no_pet"),
    ):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error)
        assert (str(back), back.reason, back.case) == (str(error), error.reason, error.case)
