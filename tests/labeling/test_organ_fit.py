"""Organ maps that are of another exam, or lost their place, are refused; crops and other grids are not."""

from __future__ import annotations

import numpy as np
import pytest

from petground.labeling.errors import GeometryError
from petground.labeling.finding import Finding
from petground.labeling.label import label_exam
from petground.labeling.organ_fit import require_on_patient
from petground.labeling.organs import class_ids
from petground.labeling.volume import Volume

IDS = {name: number for number, name in class_ids().items()}
AFFINE = np.array([[-4.0, 0, 0, 158], [0, -4.0, 0, 118], [0, 0, 4.0, -900], [0, 0, 0, 1]])
SHAPE = (80, 60, 100)  # 320 x 240 x 400 mm around x = y = 0


def points(shape: tuple[int, int, int] = SHAPE, affine: np.ndarray = AFFINE) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return grid @ affine[:3, :3].T + affine[:3, 3]


def patient() -> tuple[Volume, Volume, Volume]:
    """PET, CT and organ map of a trunk of 240 x 160 mm: liver on the right, lungs above, one hot node."""
    x, y, z = np.moveaxis(points(), -1, 0)
    body = (np.abs(x) < 120) & (np.abs(y) < 80)
    lungs = body & (np.abs(np.abs(x) - 60) < 40) & (np.abs(y) < 60) & (z > -650) & (z < -520)
    liver = body & (x > 10) & (x < 110) & (np.abs(y) < 60) & (z > -800) & (z < -660)
    pet = np.where(body, 0.8, 0.02) + 1.2 * liver
    pet[(x + 40) ** 2 + y**2 + (z + 750) ** 2 < 100] = 9.0
    ids = IDS["liver"] * liver + IDS["lung_lower_lobe_right"] * (lungs & (x > 0))
    ids = ids + IDS["lung_lower_lobe_left"] * (lungs & (x < 0))
    ct = np.where(lungs, -800.0, np.where(body, 30.0, -1000.0))
    return (
        Volume(pet.astype(np.float32), AFFINE, "SUVbw"),
        Volume(ct.astype(np.float32), AFFINE, "HU"),
        Volume(ids.astype(np.uint8), AFFINE, "label"),
    )


def moved(organs: Volume, *by_mm: float) -> Volume:
    affine = organs.affine.copy()
    affine[:3, 3] += by_mm
    return Volume(organs.array, affine, "label")


@pytest.mark.parametrize(
    ("by_mm", "said"),
    [
        ((0.0, 0.0, 1000.0), "outside of the PET's field of view .* mm from it"),
        ((0.0, -600.0, 0.0), "outside of the PET's field of view"),
        ((0.0, 0.0, 290.0), "each other's field of view"),
        ((0.0, 0.0, -160.0), "where the CT shows no lung"),
        ((190.0, 0.0, 0.0), "each other's field of view"),
    ],
)
def test_a_map_far_off_is_refused_with_its_case(by_mm: tuple[float, float, float], said: str) -> None:
    pet, ct, organs = patient()
    with pytest.raises(GeometryError, match=said) as told:
        require_on_patient(moved(organs, *by_mm), pet, ct, case="exam-7")
    assert told.value.case == "exam-7"
    assert told.value.reason == "organ_map"
    assert "CT" in str(told.value.fix)


def test_off_the_body_is_seen_without_a_ct() -> None:
    pet, _, organs = patient()
    liver = Volume(np.where(organs.array == IDS["liver"], organs.array, 0), AFFINE, "label")
    require_on_patient(liver, pet)
    with pytest.raises(GeometryError, match="outside of the body"):
        require_on_patient(moved(liver, 85.0, 0.0, 0.0), pet)


def test_crops_and_other_grids_of_the_same_patient_are_taken() -> None:
    pet, ct, organs = patient()
    require_on_patient(organs, pet, ct)
    require_on_patient(moved(organs, 8.0, -8.0, 12.0), pet, ct)  # breathing
    flipped = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[:3, 3] = organs.to_world_mm((SHAPE[0] - 1, 0, 0))
    require_on_patient(Volume(organs.array[::-1], flipped, "label"), pet, ct)
    chest = AFFINE.copy()
    chest[:3, 3] = organs.to_world_mm((0, 0, 70))
    require_on_patient(Volume(organs.array[:, :, 70:], chest, "label"), pet, ct)  # a map of the chest alone
    require_on_patient(organs, Volume(pet.array[:, :, 70:], chest, "SUVbw"), ct)  # a PET of the chest alone


def test_labelling_refuses_it() -> None:
    pet, ct, organs = patient()
    finding = Finding(9.0, 63, None, "retroperitoneal node", "positive", None, (0, 0))
    assert label_exam(pet, [finding], ct=ct, organs=organs)
    with pytest.raises(GeometryError, match="exam-7: the organ map"):
        label_exam(pet, [finding], ct=ct, organs=moved(organs, 0, 900, 0), case="exam-7")
