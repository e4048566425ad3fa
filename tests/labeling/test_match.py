"""Maxima, rounding, scores, and which finding gets which maximum."""

from __future__ import annotations

import numpy as np
import pytest

from petground.labeling.finding import Candidate, Finding
from petground.labeling.match import assign, find_candidates, rounding_interval, value_excess
from petground.labeling.maxima import dominance, local_maxima
from petground.labeling.site import Site
from petground.labeling.volume import Volume


def said(suv: float, slice_: int = 10, decimals: int = 1, **options: object) -> Finding:
    values: dict[str, object] = {"laterality": None, "site": None, "status": "positive", "reason": None}
    return Finding(suv=suv, slice=slice_, span=(0, 1), suv_decimals=decimals, **(values | options))  # type: ignore[arg-type]


def points(*hot: tuple[int, int, int, float], shape: tuple[int, int, int] = (20, 18, 24)) -> Volume:
    array = np.full(shape, 0.5, np.float32)
    for i, j, k, value in hot:
        array[i, j, k] = value
    return Volume(array, np.diag([4.0, 4.0, 3.0, 1.0]), "SUVbw")


@pytest.mark.parametrize(
    ("suv", "decimals", "inside", "outside"),
    [
        (5.2, 1, (5.15, 5.2, 5.24), (5.14, 5.26)),
        (3.14, 2, (3.136, 3.144), (3.134, 3.146)),
        (5.0, 0, (4.6, 5.4), (5.6,)),
    ],
)
def test_rounding_interval(suv: float, decimals: int, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    low, high = rounding_interval(suv, decimals)
    assert all(low <= value < high for value in inside)
    assert not any(low <= value < high for value in outside)
    assert [value_excess(v, said(suv, decimals=decimals)) for v in inside] == pytest.approx([0] * len(inside))
    assert all(value_excess(v, said(suv, decimals=decimals)) > 0 for v in outside)


def test_maxima_need_the_whole_neighbourhood() -> None:
    pet = points((5, 5, 10, 5.0), (6, 6, 11, 5.1), (12, 9, 10, 5.0))
    assert local_maxima(pet.array, range(10, 11), 4.9, 5.2) == [(12, 9, 10)]
    assert local_maxima(pet.array, range(9, 12), 4.9, 5.2) == [(6, 6, 11), (12, 9, 10)]


def test_a_plateau_is_one_maximum_and_none_beside_something_higher() -> None:
    flat = points((5, 5, 10, 5.0), (6, 5, 10, 5.0), (7, 6, 10, 5.0))
    assert len(local_maxima(flat.array, range(10, 11), 4.9, 5.2)) == 1
    ramp = points((5, 5, 10, 5.0), (6, 5, 10, 5.0), (7, 6, 10, 5.0), (8, 7, 11, 6.0))
    assert local_maxima(ramp.array, range(10, 11), 4.9, 5.2) == []


def test_maxima_at_the_corner_of_the_image() -> None:
    pet = points((0, 0, 0, 5.0), (19, 17, 23, 5.0))
    assert local_maxima(pet.array, range(24), 4.9, 5.2) == [(0, 0, 0), (19, 17, 23)]


def test_dominance_tells_a_peak_from_a_bump() -> None:
    pet = points((5, 5, 10, 10.0), (6, 5, 10, 8.0), (7, 5, 10, 8.5), (14, 9, 10, 8.0))
    assert dominance(pet.array, (14, 9, 10)) == pytest.approx(0.3)
    assert dominance(pet.array, (7, 5, 10)) == pytest.approx(8.0 / 8.5, abs=0.03)


def test_inside_the_rounding_interval_beats_just_outside() -> None:
    pet = points((4, 4, 10, 5.24), (14, 12, 10, 5.28))
    found = find_candidates(pet, said(5.2), range(10, 11), Site())
    assert [c.voxel_ijk for c in found] == [(4, 4, 10), (14, 12, 10)]
    assert found[1].score < 0.8 * found[0].score
    assert [c.voxel_ijk for c in find_candidates(pet, said(5.24, decimals=2), range(10, 11), Site())] == [
        (4, 4, 10),
        (14, 12, 10),
    ]
    assert find_candidates(pet, said(5.4), range(10, 11), Site()) == []


def test_slice_tolerance_is_the_sites() -> None:
    pet = points((4, 4, 12, 5.2))
    assert find_candidates(pet, said(5.2), range(10, 11), Site()) == []
    (found,) = find_candidates(pet, said(5.2), range(10, 11), Site(slice_tolerance=2))
    assert (found.voxel_ijk, found.slice_distance) == ((4, 4, 12), 2)


def test_a_lesion_that_covers_the_slice_is_a_lower_candidate() -> None:
    column = [(4, 4, k, 4.0) for k in range(8, 16)] + [(4, 4, 14, 5.2)]
    pet = points(*column, (14, 12, 16, 5.2))
    (found,) = find_candidates(pet, said(5.2), range(10, 11), Site())
    assert (found.voxel_ijk, found.slice_distance) == ((4, 4, 14), 4)
    assert found.score < 0.6


def test_what_covers_the_slice_but_is_hotter_is_no_candidate() -> None:
    pet = points(*[(4, 4, k, 4.0) for k in range(8, 16)], (4, 4, 14, 5.2), (4, 4, 15, 7.0))
    assert find_candidates(pet, said(5.2), range(10, 11), Site()) == []


@pytest.mark.parametrize(("size_mm", "best"), [(6.0, 0), (50.0, 1), (None, None)])
def test_the_reported_size_tells_a_node_from_a_mass(size_mm: float | None, best: int | None) -> None:
    """Two peaks of one value on the slice, 8 mm and 50 mm wide at half height."""
    grid = np.indices((40, 30, 24))
    centres, widths_mm = [(8, 15, 10), (28, 15, 10)], (8.0, 50.0)
    array = np.full(grid.shape[1:], 0.5, np.float32)
    for centre, width in zip(centres, widths_mm, strict=True):
        squared = sum(((g - c) * step) ** 2 for g, c, step in zip(grid, centre, (4.0, 4.0, 3.0), strict=True))
        array = np.maximum(array, 8.0 * np.exp(-np.log(16) * squared / width**2).astype(np.float32))
    pet = Volume(array, np.diag([4.0, 4.0, 3.0, 1.0]), "SUVbw")
    found = find_candidates(pet, said(8.0, size_mm=size_mm), range(10, 11), Site())
    assert {c.voxel_ijk for c in found} == set(centres)
    if best is None:
        assert found[1].score > 0.8 * found[0].score
    else:
        assert found[0].voxel_ijk == centres[best]
        assert found[1].score < 0.8 * found[0].score


def candidate(name: int, score: float) -> Candidate:
    return Candidate((name, 0, 0), 5.0, score)


def test_no_maximum_serves_two_findings() -> None:
    first, second = assign([[candidate(1, 0.9), candidate(2, 0.5)], [candidate(1, 0.9)]])
    assert first.candidate is not None
    assert second.candidate is not None
    assert (first.candidate.voxel_ijk[0], second.candidate.voxel_ijk[0]) == (2, 1)
    assert not first.ambiguous
    assert not second.ambiguous


def test_like_candidates_are_ambiguous_and_a_worse_one_is_not() -> None:
    (choice,) = assign([[candidate(1, 0.9), candidate(2, 0.85)]])
    assert choice.ambiguous
    (choice,) = assign([[candidate(1, 0.9), candidate(2, 0.3)]])
    assert not choice.ambiguous
    assert choice.runner_up == pytest.approx(1 / 3)


def test_two_findings_that_could_be_swapped_are_both_ambiguous() -> None:
    pools = [[candidate(1, 0.9), candidate(2, 0.9)], [candidate(1, 0.9), candidate(2, 0.9)]]
    assert [choice.ambiguous for choice in assign(pools)] == [True, True]


def test_the_finding_left_over_is_told() -> None:
    left = assign([[candidate(1, 0.9)], [candidate(1, 0.8)]])[1]
    assert (left.candidate, left.taken) == (None, True)
    assert assign([]) == []


def test_a_plateau_over_several_slices_is_met_on_each_of_them() -> None:
    array = np.ones((20, 20, 30), dtype=np.float32)
    array[8:12, 8:12, 5:25] = 5.0
    for k in (5, 14, 24):
        assert local_maxima(array, range(k, k + 1), 4.9, 5.1) == [(8, 8, k)]
    assert local_maxima(array, range(3, 4), 4.9, 5.1) == []
    array[12, 12, 24] = 6.0  # a way up at one end: no maximum anywhere
    assert local_maxima(array, range(5, 6), 4.9, 5.1) == []
