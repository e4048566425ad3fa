"""The size that a report states bounds an outline, and settles whether a hot spot is the lesion or a part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from petground.labeling.confidence import asked_confidence, asked_features
from petground.labeling.contour import outline
from petground.labeling.finding import Excluded, Finding, Label
from petground.labeling.label import label_finding
from petground.labeling.neighbourhood import neighbourhood
from petground.labeling.rules import RULES
from petground.labeling.site import Site
from petground.labeling.stated import around_seed, by_size, log_over_usual, most_ml
from petground.labeling.volume import Volume
from petground.pipeline.phantom.crop import make_crop
from petground.pipeline.phantom.exam import make_exam

Scan = Callable[..., tuple[Volume, list[NDArray]]]
MASS = ((20.0, 0.0, -910.0), 60, 8.0)


def seed_of(pet: Volume, mask: NDArray) -> tuple[int, int, int]:
    i, j, k = np.unravel_index(int(np.where(mask, pet.array, -1).argmax()), pet.shape)
    return int(i), int(j), int(k)


def told(pet: Volume, mask: NDArray, size_mm: float | None) -> Finding:
    i, j, k = seed_of(pet, mask)
    suv = round(float(pet.array[i, j, k]), 2)
    number = pet.shape[2] - k
    return Finding(suv, number, None, None, "positive", None, (0, 0), suv_decimals=2, size_mm=size_mm)


def dice(a: NDArray, b: NDArray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_the_bound_is_four_balls_of_the_blurred_size() -> None:
    assert most_ml(24.0) == pytest.approx(4 * np.pi / 6 * 25.0**3 / 1000)  # 24 and 7 in quadrature: 25
    assert log_over_usual(0.46 * np.pi / 6 * 25.0**3 / 1000, 24.0) == pytest.approx(0.0)
    assert log_over_usual(1000.0, 10.0) > 5


def test_a_size_near_one_of_two_outlines_speaks_for_it() -> None:
    assert by_size(0.5, 1.0, 60.0, 60.0) > 0.9
    assert by_size(0.5, 1.0, 60.0, 14.0) < 0.1
    assert by_size(0.3, 2.0, 2.0, 20.0) == pytest.approx(0.3)


def test_where_a_lesion_can_reach_is_measured_in_millimetres(scan: Scan) -> None:
    pet, (truth,) = scan([MASS])
    near = neighbourhood(pet, seed_of(pet, truth), 60.0)
    far = np.argwhere(around_seed(near, 20.0)) - near.seed
    reach = np.abs(far).max(axis=0) * near.spacing_mm
    assert all(23.5 - step <= r <= 23.5 for r, step in zip(reach, near.spacing_mm, strict=True))


def test_a_label_that_cannot_be_held_to_its_size_is_refused(scan: Scan) -> None:
    """A 12 mm node is told of the hottest voxel of a mass of 6 cm."""
    pet, (mass,) = scan([MASS], uneven=0.5)
    without = label_finding(pet, told(pet, mass, None))
    assert isinstance(without, Label)
    assert without.volume_ml > 90
    fitting = label_finding(pet, told(pet, mass, 60.0))
    assert isinstance(fitting, Label)
    assert (fitting.mask == without.mask).all()
    refused = label_finding(pet, told(pet, mass, 12.0))
    assert isinstance(refused, Excluded)
    assert refused.reason == "check_volume"
    assert refused.detail.endswith("ml for a stated 12 mm")


def test_a_rule_that_floods_is_held_to_the_size(scan: Scan) -> None:
    """A 14 mm node in an uneven organ, by an absolute threshold that the organ reaches in places."""
    pet, (organ, node) = scan([((20.0, 0.0, -910.0), 90, 5.0), ((12.0, 8.0, -915.0), 14, 14.0)], uneven=0.15, seed=3)
    site = Site(contour="absolute", contour_suv=5.5)
    free = label_finding(pet, told(pet, node, None), site=site)
    assert isinstance(free, Label)
    assert free.volume_ml > 30
    held = label_finding(pet, told(pet, node, 14.0), site=site)
    assert isinstance(held, Label)
    assert held.volume_ml < 5
    assert held.warnings == ("larger_than_stated",)
    assert dice(held.mask, node) > dice(free.mask, node) + 0.2
    flooded = label_finding(pet, told(pet, node, 14.0), site=Site(contour="absolute", contour_suv=3.0))
    assert isinstance(flooded, Excluded)
    assert flooded.reason == "check_volume"
    plain = label_finding(pet, told(pet, node, 14.0))
    assert isinstance(plain, Label)
    assert plain.warnings == ()
    assert (plain.mask & organ).sum() - plain.mask[node].sum() < 60


def test_a_fitting_size_changes_nothing_but_the_trust(scan: Scan) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 24, 9.0)])
    plain, sized, wrong = (label_finding(pet, told(pet, truth, size)) for size in (None, 24.0, 70.0))
    assert isinstance(plain, Label)
    assert isinstance(sized, Label)
    assert isinstance(wrong, Label)
    assert (plain.mask == sized.mask).all()
    assert sized.confidence >= plain.confidence > wrong.confidence
    assert not sized.warnings


@pytest.mark.parametrize(("index", "least"), [(145, 0.85), (152, 0.85), (59, 0.9)])
def test_the_flank_of_something_hotter_is_not_taken_for_a_mass(index: int, least: float) -> None:
    """Touching lesions and one beside an organ that were taken, by their surroundings, for hot spots of a mass."""
    crop = make_crop(31, index)
    for lesion in crop.reported:
        others = [other.voxel_ijk for other in crop.reported if other is not lesion]
        shape = outline(crop.pet, lesion.voxel_ijk, others=others)
        assert shape is not None
        assert shape.method != "uneven"
        mask = np.zeros(crop.pet.shape, bool)
        mask[shape.box.slices] = shape.mask
        assert dice(mask, lesion.mask) > least


def test_a_node_on_the_bowel_does_not_take_the_bowel() -> None:
    """A whole-body phantom whose 1.5 cm mesenteric node got 562 ml of bowel that lies beside a hotter liver."""
    exam = make_exam(7, 1)
    node = next(lesion for lesion in exam.lesions if lesion.site == "mesenteric node")
    for size_mm in (None, 15.0):
        label = label_finding(exam.pet, replace(told(exam.pet, node.mask, size_mm), slice=node.slice))
        assert isinstance(label, Label)
        assert label.volume_ml < 3 * node.volume_ml
        assert dice(label.mask, node.mask) > 0.8
        assert label.confidence > 0.7


def test_trust_in_a_rule_falls_with_its_distance_from_auto() -> None:
    for rule in RULES:
        like, apart, far = (
            asked_confidence(rule, asked_features(0.95, agreement, times, 0.7))
            for agreement, times in ((0.95, 1.0), (0.5, 3.0), (0.02, 90.0))
        )
        assert like > 0.8 > far
        assert like >= apart >= far
        assert far < 0.25
        assert asked_confidence(rule, asked_features(0.3, 0.95, 1.0, 0.7)) < like


@pytest.mark.parametrize("rule", RULES)
def test_an_asked_rule_is_trusted_like_auto_where_they_agree(scan: Scan, rule: str) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 25, 9.0)])
    label = label_finding(pet, told(pet, truth, None), site=Site(contour=rule))  # type: ignore[arg-type]
    assert isinstance(label, Label)
    assert label.method == rule
    assert label.confidence > 0.8
