"""Rules that a site can ask for, small and touching lesions, images of odd shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from petground.labeling.contour import outline
from petground.labeling.errors import ConfigError
from petground.labeling.finding import Excluded, Finding, Label
from petground.labeling.label import label_finding
from petground.labeling.necks import neck
from petground.labeling.neighbourhood import connection_levels, neighbourhood
from petground.labeling.rules import RULES, iterative_threshold
from petground.labeling.site import Site, site_from_mapping
from petground.labeling.volume import Volume
from petground.pipeline.phantom.crop import SCENES, make_crop, told

Scan = Callable[..., tuple[Volume, list[NDArray]]]


def hottest(pet: Volume, mask: NDArray) -> tuple[int, int, int]:
    i, j, k = np.unravel_index(int(np.where(mask, pet.array, -1).argmax()), pet.shape)
    return int(i), int(j), int(k)


def outlined(pet: Volume, seed: tuple[int, int, int], **options: object) -> NDArray:
    shape = outline(pet, seed, **options)  # type: ignore[arg-type]
    assert shape is not None
    whole = np.zeros(pet.shape, bool)
    whole[shape.box.slices] = shape.mask
    return whole


def dice(a: NDArray, b: NDArray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_outlines_a_plain_lesion_and_names_itself(scan: Scan, rule: str) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 25, 9.0)])
    shape = outline(pet, hottest(pet, truth), rules=Site(contour=rule))  # type: ignore[arg-type]
    assert shape is not None
    assert shape.method == rule
    assert shape.why
    mask = outlined(pet, hottest(pet, truth), rules=Site(contour=rule))  # type: ignore[arg-type]
    assert dice(mask, truth) > 0.8


def test_numbers_of_the_site_are_used(scan: Scan) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 25, 9.0)], noise=0.0)
    seed, top = hottest(pet, truth), float(pet.array[truth].max())
    fraction = outlined(pet, seed, rules=Site(contour="fraction", contour_fraction=0.7))
    assert pet.array[fraction].min() >= 0.7 * top
    assert pet.array[fraction].min() < 0.75 * top
    absolute = outlined(pet, seed, rules=Site(contour="absolute", contour_suv=3.0))
    assert 3.0 <= pet.array[absolute].min() < 3.5
    assert absolute.sum() > fraction.sum()


def test_an_absolute_threshold_above_the_lesion_is_no_contour(scan: Scan) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 25, 3.0)])
    assert outline(pet, hottest(pet, truth), rules=Site(contour="absolute", contour_suv=6.0)) is None


def test_the_site_file_chooses_the_rule_and_the_label_says_so(scan: Scan) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 25, 9.0)])
    i, j, k = hottest(pet, truth)
    finding = Finding(round(float(pet.array[i, j, k]), 1), pet.shape[2] - k, None, None, "positive", None, (0, 1))
    label = label_finding(pet, finding, site=site_from_mapping({"contour": "fraction", "contour_fraction": 0.5}))
    assert isinstance(label, Label)
    assert (label.method, label.why) == ("fraction", "50% of the maximum")
    auto = label_finding(pet, finding)
    assert isinstance(auto, Label)
    assert auto.method == "even"
    assert "even lesion" in auto.why


@pytest.mark.parametrize("values", [{"contour": "best"}, {"contour_fraction": 1.5}, {"contour_suv": 0}])
def test_a_wrong_rule_or_number_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        site_from_mapping(values)


def test_too_small_is_excluded(scan: Scan) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 12, 9.0)])
    i, j, k = hottest(pet, truth)
    finding = Finding(round(float(pet.array[i, j, k]), 1), pet.shape[2] - k, None, None, "positive", None, (0, 1))
    fate = label_finding(pet, finding, site=Site(min_volume_ml=20.0))
    assert isinstance(fate, Excluded)
    assert fate.reason == "check_volume"


def test_iterative_threshold_solves_its_equation(scan: Scan) -> None:
    """T / SUVmax = 0.078 / V + 0.617 B / SUVmax + 0.316 at the outcome, with V and B of that very component."""
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 30, 9.0)])
    near = neighbourhood(pet, hottest(pet, truth), 45.0)
    found = iterative_threshold(near.image, near.level, near.domain, near.spacing_mm)
    assert found.volume_ml == pytest.approx(float((near.level >= found.threshold).sum()) * near.voxel_ml, rel=0.03)
    wanted = 0.078 / found.volume_ml * near.top + 0.617 * found.background + 0.316 * near.top
    assert found.threshold == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("diameter", [6.5, 8.0, 9.5])
def test_small_lesions_are_not_outlined_as_large_as_the_blur(scan: Scan, diameter: float) -> None:
    ratios = []
    for n, shift in enumerate((0.0, 1.0, 2.0)):  # the centre lies anywhere between the voxels
        pet, (truth,) = scan([((31.0 + shift, -11.0 + shift / 2, -905.0 - shift), diameter, 12.0)], seed=n)
        shape = outline(pet, hottest(pet, truth))
        assert shape is not None
        assert shape.method == "small"
        ratios.append(shape.mask.sum() * pet.voxel_ml / (np.pi / 6 * diameter**3 / 1000))
    assert 0.5 < np.median(ratios) < 1.5


def test_an_unreported_neighbour_of_like_uptake_is_left_out(scan: Scan) -> None:
    """The saddle between them is at four fifths of their height; they meet on a narrow neck."""
    pet, (own, like) = scan([((-12.0, 0.0, -910.0), 22, 8.6), ((11.0, 2.0, -910.0), 22, 8.0)])
    mask = outlined(pet, hottest(pet, own))
    assert dice(mask, own) > 0.85
    assert (mask & like).sum() < 0.1 * like.sum()


def test_neck_of_two_balls_and_of_one() -> None:
    x, y, z = np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij")
    left, right = ((x - c) ** 2 + (y - 20) ** 2 + (z - 20) ** 2 for c in (12, 28))
    two = (left < 81) | (right < 81)
    height = np.maximum(np.exp(-left / 80), np.exp(-right / 80)).astype(np.float32)
    one = (x - 20) ** 2 / 2 + (y - 20) ** 2 + (z - 20) ** 2 < 100
    spacing = (1.0, 1.0, 1.0)
    assert neck(height, two, (12, 20, 20), (28, 20, 20), spacing) < 0.5
    assert neck(height, one, (12, 20, 20), (28, 20, 20), spacing) > 1.0


def test_connection_levels_are_saddles() -> None:
    image = np.array([3.0, 1.0, 2.0, 0.5, 4.0], np.float32).reshape(5, 1, 1)
    level = connection_levels(image, (0, 0, 0), np.ones(image.shape, bool))
    assert level.ravel().tolist() == [3.0, 1.0, 1.0, 0.5, 0.5]


SHAPES = {
    "one slice": ((40, 40, 1), (4, 4, 3), (20, 20, 0), 20),
    "first corner": ((40, 40, 40), (4, 4, 3), (0, 0, 0), 30),
    "last corner": ((40, 40, 40), (4, 4, 3), (39, 39, 39), 30),
    "2 x 2 x 10 mm": ((90, 90, 20), (2, 2, 10), (45, 45, 10), 25),
    "2 x 2 x 10 mm, small": ((90, 90, 20), (2, 2, 10), (45, 45, 10), 9),
    "five voxels wide": ((5, 5, 5), (4, 4, 4), (2, 2, 2), 9),
    "one voxel": ((1, 1, 1), (4, 4, 4), (0, 0, 0), 9),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rule", ["auto", *RULES])
@pytest.mark.parametrize("case", SHAPES)
def test_images_of_odd_shape(case: str, rule: str) -> None:
    from scipy.ndimage import gaussian_filter

    shape, spacing, centre, diameter = SHAPES[case]
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"), -1)
    truth = np.linalg.norm(grid - np.array(centre) * spacing, axis=-1) <= diameter / 2
    array = gaussian_filter(np.where(truth, 8.0, 0.7), [2.5 / s for s in spacing]).astype(np.float32)
    pet = Volume(array, np.diag([*spacing, 1.0]), "SUVbw")
    seed = hottest(pet, truth)
    found = outline(pet, seed, rules=Site(contour=rule))  # type: ignore[arg-type]
    if found is None:
        assert pet.array[seed] < 4.0  # an absolute threshold above a lesion of one voxel
        return
    mask = outlined(pet, seed, rules=Site(contour=rule))  # type: ignore[arg-type]
    assert mask[seed]
    if diameter > 15:
        assert dice(mask, truth) > 0.8


@pytest.mark.parametrize("scene", SCENES)
def test_crops_are_the_same_each_time_and_hold_what_they_say(scene: str) -> None:
    first, second = make_crop(5, 3, scene), make_crop(5, 3, scene)
    assert np.array_equal(first.pet.array, second.pet.array)
    assert first.reported
    for lesion in first.lesions:
        assert lesion.mask[lesion.voxel_ijk]
        assert lesion.suv_max == float(first.pet.array[lesion.mask].max())
        assert 3.0 < lesion.diameter_mm < 100.0
    assert sum(lesion.mask.astype(int) for lesion in first.lesions).max() == 1


def test_touching_and_small_lesions_of_a_few_crops() -> None:
    """A short form of benchmarks/touching_small.py."""
    from petground.labeling.label import label_exam

    scores, located = [], []
    for index in range(21):
        crop = make_crop(9, index)
        fates = label_exam(crop.pet, [told(crop, lesion) for lesion in crop.reported])
        for lesion, fate in zip(crop.reported, fates, strict=True):
            hit = isinstance(fate, Label)
            located.append(hit and bool(lesion.mask[fate.voxel_ijk]))
            scores.append(dice(fate.mask, lesion.mask) if hit else 0.0)
    assert np.mean(located) > 0.95
    assert np.median(scores) > 0.85
    assert np.mean(scores) > 0.75
