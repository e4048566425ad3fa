"""Organ maps: their names and ids, which way round they lie, and what they keep labels out of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.finding import Excluded, Finding, Label
from petground.labeling.label import label_finding
from petground.labeling.organs import (
    canonical,
    class_ids,
    named_organs,
    organ_at,
    physiologic,
    physiologic_in,
    require_upright,
)
from petground.labeling.structures import distance_mm, structures
from petground.labeling.volume import Volume

Scan = Callable[..., tuple[Volume, list[NDArray]]]
IDS = {name: number for number, name in class_ids().items()}
FLIPS = ("", "x", "y", "z", "xyz")


def organ_box(name: str, low_mm: tuple[float, ...], high_mm: tuple[float, ...], flip: str = "") -> Volume:
    """A map of its own grid (5 mm, off the PET's) with one organ filling a box, its axes stored in either direction."""
    first, shape = np.array([-131.0, -83.0, -1013.0]), (54, 34, 44)
    grid = np.stack(
        np.meshgrid(*[f + 5.0 * np.arange(n) for f, n in zip(first, shape, strict=True)], indexing="ij"), -1
    )
    array = np.where(((grid >= low_mm) & (grid <= high_mm)).all(-1), IDS[name], 0).astype(np.uint8)
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = first
    for axis, letter in enumerate("xyz"):
        if letter in flip:
            array = np.flip(array, axis)
            affine[axis, 3] += 5.0 * (shape[axis] - 1)
            affine[axis, axis] = -5.0
    return Volume(np.ascontiguousarray(array), affine, "label")


def told(pet: Volume, mask: NDArray, **options: object) -> Finding:
    i, j, k = np.unravel_index(int(np.where(mask, pet.array, -1).argmax()), pet.shape)
    number = pet.shape[2] - k if pet.head_is_last else k + 1
    values: dict[str, object] = {"laterality": None, "site": None, "status": "positive", "reason": None}
    return Finding(round(float(pet.array[i, j, k]), 1), int(number), span=(0, 1), **(values | options))  # type: ignore[arg-type]


def test_ids_are_those_of_totalsegmentator() -> None:
    assert [IDS[name] for name in ("spleen", "urinary_bladder", "heart", "brain", "costal_cartilages")] == [
        1,
        21,
        51,
        90,
        117,
    ]
    old = class_ids(1)
    assert [old[n] for n in (7, 44, 50, 104)] == ["aorta", "heart_myocardium", "brain", "urinary_bladder"]


def test_a_map_of_version_1_is_brought_to_version_2() -> None:
    array = np.array([0, 2, 44, 46, 50, 93, 104], np.uint8).reshape(7, 1, 1)
    found = canonical(Volume(array, np.eye(4), "label"), class_ids(1))
    assert [class_ids().get(v) for v in found.array.ravel()] == [
        None, "kidney_right", "heart", "heart", "brain", None, "urinary_bladder",
    ]  # fmt: skip


def test_a_map_of_other_things_is_refused() -> None:
    with pytest.raises(InputError, match="no name in the label map"):
        canonical(Volume(np.ones((2, 2, 2), np.uint8), np.eye(4), "label"), {1: "lung_vessels"})


@pytest.mark.parametrize("flip", ["", "x", "z", "xz"])
def test_which_way_round_is_read_from_the_affine_and_checked_by_the_kidneys(flip: str) -> None:
    right = organ_box("kidney_right", (40, -40, -950), (70, 0, -900), flip)
    left = organ_box("kidney_left", (-70, -40, -950), (-40, 0, -900), flip)
    both = right.like(right.array + left.array, "label")
    require_upright(both)
    mirrored = both.affine.copy()
    mirrored[0] *= -1
    with pytest.raises(GeometryError, match="right kidney lies left"):
        require_upright(replace(both, affine=mirrored))
    brain = organ_box("brain", (-40, -40, -990), (40, 40, -960), flip)
    heart = organ_box("heart", (-40, -40, -900), (40, 40, -870), flip)
    with pytest.raises(GeometryError, match="brain lies below"):
        require_upright(brain.like(brain.array + heart.array, "label"))


def test_what_is_normal_depends_on_the_tracer() -> None:
    organs = {
        tracer: set(physiologic(tracer).values()) for tracer in ("18F-FDG", "Ga-68 PSMA-11", "DCFPyL", "DOTATATE", None)
    }
    assert "brain" in organs["18F-FDG"]
    assert "liver" not in organs["18F-FDG"]
    assert {"kidney", "liver", "spleen", "bladder"} <= organs["Ga-68 PSMA-11"] == organs["DCFPyL"]
    assert "adrenal gland" in organs["DOTATATE"]
    assert organs[None] == {"brain", "heart", "kidney", "bladder"}


@pytest.mark.parametrize(
    ("site", "organ"),
    [
        ("renal mass", "kidney"),
        ("bladder wall", "bladder"),
        ("urinary bladder", "bladder"),
        ("pericardial node", "heart"),
        ("left frontal lobe", "brain"),
        ("hepatic segment vii lesion", "liver"),
        ("caudate lobe", "liver"),
    ],
)
def test_an_organ_is_named(site: str, organ: str) -> None:
    assert organ in named_organs(site)


def test_like_words_name_nothing_else() -> None:
    assert named_organs("gallbladder fossa") == {"gallbladder"}
    assert "kidney" not in named_organs("adrenal nodule")
    assert named_organs(None) == frozenset()
    assert named_organs("axillary node") == frozenset()


@pytest.mark.parametrize("flip", FLIPS)
def test_the_organ_at_a_voxel_on_grids_of_their_own(scan: Scan, flip: str) -> None:
    """The map is asymmetric about every axis of the PET and stored in any direction: millimetres decide."""
    pet, _ = scan([], flip="z")
    organs = organ_box("kidney_right", (30, -40, -960), (75, 0, -905), flip)

    def at(x: float, y: float, z: float) -> tuple[str, bool] | None:
        i, j, k = np.rint(pet.to_index([x, y, z])).astype(int)
        return organ_at(organs, pet, (int(i), int(j), int(k)))

    assert at(52, -20, -932) == ("kidney", True)
    assert at(74, -20, -932) == ("kidney", False)
    assert at(-52, -20, -932) is None
    assert at(52, 20, -932) is None
    assert at(52, -20, -890) is None
    whole = tuple(slice(0, n) for n in pet.shape)
    inside = pet.to_world_mm(np.argwhere(physiologic_in(organs, pet, whole, None)))  # type: ignore[arg-type]
    assert inside.mean(axis=0) == pytest.approx([52.5, -20, -932.5], abs=3)
    assert not physiologic_in(organs, pet, whole, "right kidney").any()  # type: ignore[arg-type]


@pytest.mark.parametrize("flip", ["", "x", "xz"])
def test_the_bladder_does_not_win_over_a_like_lesion_beside_it(scan: Scan, flip: str) -> None:
    bladder, node = ((10.0, 0.0, -905.0), 30.0, 9.0), ((62.0, 0.0, -905.0), 18.0, 9.0)
    pet, masks = scan([bladder, node], flip=flip, noise=0.0)
    finding = replace(told(pet, masks[1]), suv_decimals=0, suv=9.0)
    organs = organ_box("urinary_bladder", (-8, -18, -923), (28, 18, -887), flip)
    without = label_finding(pet, finding)
    assert isinstance(without, Excluded)
    assert without.reason == "ambiguous_match"
    label = label_finding(pet, finding, organs=organs)
    assert isinstance(label, Label)
    assert masks[1][label.voxel_ijk]
    named = label_finding(pet, replace(finding, site="bladder wall lesion"), organs=organs)
    assert isinstance(named, Label)
    assert masks[0][named.voxel_ijk], "the report names the organ: it lies there"


def test_normal_uptake_alone_is_no_label_and_stays_a_candidate(scan: Scan) -> None:
    pet, (bladder,) = scan([((10.0, 0.0, -905.0), 30.0, 9.0)])
    organs = organ_box("urinary_bladder", (-8, -18, -923), (28, 18, -887))
    fate = label_finding(pet, told(pet, bladder, site="iliac node"), organs=organs)
    assert isinstance(fate, Excluded)
    assert fate.reason == "physiologic_organ"
    assert bladder[fate.candidates[0].voxel_ijk]


def test_a_label_beside_the_kidney_stops_at_it(scan: Scan) -> None:
    pet, (lesion, kidney) = scan([((10.0, 0.0, -905.0), 20.0, 9.0), ((30.0, 0.0, -905.0), 26.0, 8.0)], noise=0.0)
    organs = organ_box("kidney_right", (19, -14, -920), (45, 14, -890))
    label = label_finding(pet, told(pet, lesion, site="retroperitoneal node"), organs=organs)
    assert isinstance(label, Label)
    blocked = physiologic_in(organs, pet, tuple(slice(0, n) for n in pet.shape), None)  # type: ignore[arg-type]
    assert not (label.mask & blocked).any()
    assert not label.mask[kidney & ~lesion].mean() > 0.2


@pytest.mark.parametrize(
    ("site", "side", "classes"),
    [
        ("t11 vertebral body lesion", None, {"vertebrae_T11"}),
        ("th3 vertebra", None, {"vertebrae_T3"}),
        ("femoral head", "left", {"femur_left"}),
        ("iliac bone", "right", {"hip_right"}),
        ("right lower lobe nodule", "right", {"lung_lower_lobe_right"}),
        ("lower lobe nodule", "left", {"lung_lower_lobe_left"}),
        ("hepatic segment vii", None, {"liver"}),
        ("iliac node", "right", set()),
        ("splenic hilar lymph node", None, set()),
        ("axillary", "left", set()),
        (None, None, set()),
    ],
)
def test_structures_that_a_site_names(site: str | None, side: str | None, classes: set[str]) -> None:
    assert {class_ids()[n] for n in structures(site, side)} == classes  # type: ignore[arg-type]


def test_the_place_that_the_text_names_decides_between_like_lesions(scan: Scan) -> None:
    liver, rib = ((50.0, -8.0, -905.0), 18.0, 9.0), ((-38.0, -8.0, -905.0), 18.0, 9.0)
    pet, masks = scan([liver, rib], noise=0.0)
    organs = organ_box("liver", (20, -40, -950), (90, 40, -870))
    finding = told(pet, masks[0])
    assert distance_mm(organs, np.array([50.0, -8.0, -905.0]), structures("liver")) == 0.0
    assert distance_mm(organs, np.array([-38.0, -8.0, -905.0]), structures("liver")) == 45.0
    assert distance_mm(organs, np.array([0.0, 0.0, -905.0]), structures("spleen")) is None
    found = label_finding(pet, replace(finding, site="liver lesion"), organs=organs)
    assert isinstance(found, Label)
    assert masks[0][found.voxel_ijk]
