"""Five public sarcoma exams as NIfTI: the known oddities of the set are seen through our own reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cc3d
import numpy as np
import pytest

from petground.labeling.volume import Volume
from petground.pipeline.nifti import read_nifti

SharedData = Callable[[str], Path]


def load(shared_data: SharedData, patient: str) -> tuple[Volume, Volume, Volume, Volume]:
    folder = shared_data("ibsi_sts") / f"STS_{patient}"
    return (
        read_nifti(folder / "PET_image.nii.gz", "SUVbw"),
        read_nifti(folder / "PET_mask.nii.gz", "label"),
        read_nifti(folder / "CT_image.nii.gz", "HU"),
        read_nifti(folder / "CT_mask.nii.gz", "label"),
    )


def centre_mm(mask: Volume) -> np.ndarray:
    return mask.to_world_mm(np.argwhere(mask.array > 0).mean(axis=0))


@pytest.mark.parametrize("patient", ["002", "015", "035", "044"])
def test_pet_and_ct_masks_lie_at_the_same_place_in_the_patient(shared_data: SharedData, patient: str) -> None:
    _, pet_mask, _, ct_mask = load(shared_data, patient)
    assert np.linalg.norm(centre_mm(pet_mask) - centre_mm(ct_mask)) < 4.0


def test_masks_of_019_are_7_mm_apart(shared_data: SharedData) -> None:
    _, pet_mask, _, ct_mask = load(shared_data, "019")
    assert np.linalg.norm(centre_mm(pet_mask) - centre_mm(ct_mask)) == pytest.approx(7.0, abs=1.0)


def test_pet_and_ct_of_035_have_61_and_63_slices(shared_data: SharedData) -> None:
    pet, _, ct, _ = load(shared_data, "035")
    assert (pet.shape[2], ct.shape[2]) == (61, 63)


def test_the_hottest_voxel_of_044_is_not_the_tumour(shared_data: SharedData) -> None:
    pet, mask, _, _ = load(shared_data, "044")
    assert float(pet.array.max()) == pytest.approx(45.7, abs=0.05)
    assert float(pet.array[mask.array > 0].max()) == pytest.approx(3.6, abs=0.05)
    assert mask.array[np.unravel_index(int(pet.array.argmax()), pet.shape)] == 0
    assert cc3d.connected_components(mask.array > 0, connectivity=26, return_N=True)[1] == 2
