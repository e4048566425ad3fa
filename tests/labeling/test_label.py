"""From a finding to a label or a reason: what a user of label_finding and label_exam sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from petground.labeling.errors import InputError
from petground.labeling.finding import IMAGE_REASONS, TEXT_REASONS, Excluded, Finding, Label
from petground.labeling.label import label_exam, label_finding
from petground.labeling.site import Site
from petground.labeling.volume import Volume

Scan = Callable[..., tuple[Volume, list[NDArray]]]
RIGHT, LEFT = ((50.0, -8.0, -905.0), 18.0, 9.0), ((-38.0, -8.0, -905.0), 18.0, 9.0)


def said(suv: float, slice_: int | None, **options: object) -> Finding:
    values: dict[str, object] = {"laterality": None, "site": None, "status": "positive", "reason": None}
    return Finding(suv=suv, slice=slice_, span=(0, 1), **(values | options))  # type: ignore[arg-type]


def told(pet: Volume, mask: NDArray, **options: object) -> Finding:
    """What a report says of a lesion: its maximum to one decimal, its slice from the head, from 1."""
    i, j, k = np.unravel_index(int(np.where(mask, pet.array, -1).argmax()), pet.shape)
    number = pet.shape[2] - k if pet.head_is_last else k + 1
    return said(round(float(pet.array[i, j, k]), 1), int(number), **options)


def centre_mm(pet: Volume, mask: NDArray) -> NDArray:
    return pet.to_world_mm(np.argwhere(mask)).mean(axis=0)


@pytest.mark.parametrize("flip", ["", "x", "y", "z", "xy", "xz", "xyz"])
def test_same_place_in_the_patient_whatever_the_axes(scan: Scan, flip: str) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 22, 9.0)], flip=flip)
    finding = told(pet, truth, laterality="right")
    label = label_finding(pet, finding)
    assert isinstance(label, Label)
    assert centre_mm(pet, label.mask) == pytest.approx([31.0, -11.0, -905.0], abs=1.5)
    assert label.slice_measured == finding.slice
    assert label.suv_measured == pytest.approx(float(pet.array[label.mask].max()))
    assert label.suv_measured == float(pet.array[label.voxel_ijk])
    assert label.volume_ml == pytest.approx(label.mask.sum() * 0.048)
    assert label.candidates[0].voxel_ijk == label.voxel_ijk
    assert 0.5 < label.confidence <= 1


@pytest.mark.parametrize("flip", ["", "z"])
def test_the_end_that_the_report_names_goes_before_the_site(scan: Scan, flip: str) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -870.0), 22, 9.0)], flip=flip)  # not at the middle: the ends differ
    from_head = told(pet, truth)
    assert from_head.slice is not None
    from_feet = replace(from_head, slice=pet.shape[2] + 1 - from_head.slice)
    assert isinstance(label_finding(pet, from_feet), Excluded)
    label = label_finding(pet, replace(from_feet, counted_from="feet"))
    assert isinstance(label, Label)
    assert label.slice_measured == from_feet.slice
    assert "counted_as_the_report_says" in label.warnings
    assert label.mask[truth].mean() > 0.7


@pytest.mark.parametrize("flip", ["", "x", "xz"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_like_lesions_on_both_sides_are_told_apart_by_the_side(scan: Scan, flip: str, side: str) -> None:
    pet, masks = scan([RIGHT, LEFT], flip=flip, noise=0.0)
    label = label_finding(pet, told(pet, masks[0], laterality=side))
    assert isinstance(label, Label)
    assert label.mask[masks[("right", "left").index(side)]].mean() > 0.7


def test_like_lesions_without_a_side_are_ambiguous_and_kept(scan: Scan) -> None:
    pet, masks = scan([RIGHT, LEFT], noise=0.0)
    fate = label_finding(pet, told(pet, masks[0]))
    assert isinstance(fate, Excluded)
    assert fate.reason == "ambiguous_match"
    assert len(fate.candidates) == 2
    assert all(masks[0][c.voxel_ijk] or masks[1][c.voxel_ijk] for c in fate.candidates)


def test_both_sides_told_resolve_each_other(scan: Scan) -> None:
    pet, masks = scan([RIGHT, LEFT], noise=0.0)
    by_side = [told(pet, masks[0], laterality="right"), told(pet, masks[0])]
    right, other = label_exam(pet, by_side)
    assert isinstance(right, Label)
    assert isinstance(other, Label)
    assert masks[0][right.voxel_ijk]
    assert masks[1][other.voxel_ijk]


def test_far_on_the_wrong_side_is_excluded(scan: Scan) -> None:
    pet, (truth,) = scan([((66.0, -8.0, -905.0), 18.0, 9.0)])
    fate = label_finding(pet, told(pet, truth, laterality="left"))
    assert isinstance(fate, Excluded)
    assert fate.reason == "check_laterality"
    label = label_finding(pet, told(pet, truth, laterality="left"), site=Site(midline_margin_mm=100))
    assert isinstance(label, Label)
    assert "laterality_contradicts" in label.warnings


def test_near_the_midline_is_a_warning_only(scan: Scan) -> None:
    pet, (truth,) = scan([((26.0, -8.0, -905.0), 18.0, 9.0)])
    label = label_finding(pet, told(pet, truth, laterality="left"))
    assert isinstance(label, Label)
    assert "laterality_contradicts" in label.warnings


def test_a_crop_around_a_limb_has_no_midline(scan: Scan) -> None:
    pet, (truth,) = scan([((66.0, -8.0, -905.0), 18.0, 9.0)])
    affine = pet.affine.copy()
    affine[:3, 3] = pet.to_world_mm([36, 0, 0])
    crop = Volume(pet.array[36:], affine, "SUVbw")
    label = label_finding(crop, told(crop, truth[36:], laterality="left"))
    assert isinstance(label, Label)
    assert label.warnings == ()


def test_masks_of_one_exam_do_not_overlap(scan: Scan) -> None:
    balls = [((-14.0, 0.0, -910.0), 22, 8.0), ((10.0, 3.0, -910.0), 26, 9.5), ((0.0, 0.0, -888.0), 20, 12.0)]
    pet, masks = scan(balls)
    labels = label_exam(pet, [told(pet, mask) for mask in masks])
    assert all(isinstance(label, Label) for label in labels)
    assert sum(label.mask.astype(int) for label in labels).max() == 1  # type: ignore[union-attr]
    for label, mask in zip(labels, masks, strict=True):
        assert mask[label.voxel_ijk]  # type: ignore[union-attr]
        assert label.mask[mask].mean() > 0.7  # type: ignore[union-attr]


def test_one_maximum_told_twice_is_labelled_once(scan: Scan) -> None:
    pet, (truth,) = scan([RIGHT])
    finding = told(pet, truth)
    first, second = label_exam(pet, [finding, finding])
    assert isinstance(first, Label)
    assert isinstance(second, Excluded)
    assert second.reason == "ambiguous_match"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"slice": None}, "no_slice"),
        ({"slice": 61}, "slice_outside"),
        ({"slice": 0}, "slice_outside"),
        ({"slice": 55}, "no_match"),
        ({"suv": 2.4}, "suv_below_minimum"),
        ({"suv": 25.0}, "no_match"),
        ({"status": "excluded", "reason": "prior"}, "prior"),
    ],
)
def test_reasons(scan: Scan, changed: dict[str, object], reason: str) -> None:
    pet, (truth,) = scan([RIGHT])
    fate = label_finding(pet, replace(told(pet, truth), **changed))  # type: ignore[arg-type]
    assert isinstance(fate, Excluded)
    assert fate.reason == reason
    assert reason in IMAGE_REASONS | TEXT_REASONS


def test_a_value_just_off_is_named_as_such(scan: Scan) -> None:
    pet, (truth,) = scan([RIGHT])
    right = told(pet, truth)
    fate = label_finding(pet, replace(right, suv=right.suv + 0.2))
    assert isinstance(fate, Excluded)
    assert fate.reason == "check_suv"
    assert truth[fate.candidates[0].voxel_ijk]


def test_too_large_is_excluded(scan: Scan) -> None:
    pet, (truth,) = scan([((6.0, 0.0, -910.0), 50, 9.0)])
    fate = label_finding(pet, told(pet, truth), site=Site(max_volume_ml=30.0))
    assert isinstance(fate, Excluded)
    assert fate.reason == "check_volume"


def test_holes_of_nan_are_no_lesions(scan: Scan) -> None:
    pet, (truth,) = scan([RIGHT])
    array = pet.array.copy()
    array[:4] = np.nan
    label = label_finding(replace(pet, array=array), told(pet, truth))
    assert isinstance(label, Label)
    assert np.isfinite(label.suv_measured)


@pytest.mark.parametrize("value", [0.0, np.nan, -1.0])
def test_an_empty_pet_is_an_error(value: float) -> None:
    pet = Volume(np.full((5, 6, 7), value, np.float32), np.eye(4), "SUVbw")
    with pytest.raises(InputError, match="no positive value"):
        label_finding(pet, said(5.0, 3))


def test_bq_are_refused() -> None:
    with pytest.raises(InputError, match="HU"):
        label_finding(Volume(np.ones((5, 6, 7), np.float32), np.eye(4), "HU"), said(5.0, 3))


def test_no_findings() -> None:
    assert label_exam(Volume(np.ones((5, 6, 7), np.float32), np.eye(4), "SUVbw"), []) == []


def test_drawn_sarcomas(shared_data: Callable[[str], Path]) -> None:
    """Five real tumours: each found from its SUVmax and slice alone, outlined better than the published rule's 0.38."""
    nib = pytest.importorskip("nibabel")
    scores = []
    for folder in sorted(shared_data("ibsi_sts").glob("STS_*")):
        image, drawn = nib.load(folder / "PET_image.nii.gz"), nib.load(folder / "PET_mask.nii.gz")
        pet = Volume(np.asarray(image.dataobj, np.float32), image.affine, "SUVbw")
        tumour = np.asarray(drawn.dataobj) > 0
        label = label_finding(pet, told(pet, tumour))
        assert isinstance(label, Label), folder.name
        assert tumour[label.voxel_ijk], folder.name
        scores.append(2 * (label.mask & tumour).sum() / (label.mask.sum() + tumour.sum()))
    assert len(scores) == 5
    assert np.mean(scores) > 0.60
