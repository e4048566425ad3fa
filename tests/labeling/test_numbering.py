"""Slice numbers of every convention to array indices and back, on stacks in both directions."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from petground.labeling.errors import ConfigError, GeometryError
from petground.labeling.numbering import site_for_series, slice_number, slice_to_k
from petground.labeling.site import Site, site_from_mapping, site_to_mapping
from petground.labeling.volume import Volume


def stack(slices: int, step_mm: float, first_z_mm: float, unit: str = "SUVbw", **options: object) -> Volume:
    """A stack whose slice k lies at z = first_z_mm + k * step_mm; step_mm may be negative."""
    affine = np.diag([4.0, 4.0, step_mm, 1.0])
    affine[2, 3] = first_z_mm
    return Volume(np.zeros((3, 5, slices), np.float32), affine, unit, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step_mm", "origin", "first", "number", "k"),
    [
        (3.0, "head", 1, 1, 9),
        (3.0, "head", 1, 3, 7),
        (3.0, "head", 0, 3, 6),
        (3.0, "feet", 1, 3, 2),
        (3.0, "feet", 0, 3, 3),
        (-3.0, "head", 1, 3, 2),
        (-3.0, "head", 0, 3, 3),
        (-3.0, "feet", 1, 3, 7),
        (-3.0, "feet", 0, 3, 6),
    ],
)
def test_counting_from_either_end(step_mm: float, origin: str, first: int, number: int, k: int) -> None:
    pet = stack(10, step_mm, -50.0)
    site = Site(slice_origin=origin, slice_first=first)  # type: ignore[arg-type]
    assert list(slice_to_k(number, pet, site) or ()) == [k]
    assert slice_number(k, pet, site) == number


@pytest.mark.parametrize(("number", "first"), [(0, 1), (11, 1), (10, 0), (-1, 0), (999, 1)])
def test_outside_is_none(number: int, first: int) -> None:
    assert slice_to_k(number, stack(10, 3.0, 0.0), Site(slice_first=first)) is None


def test_same_place_in_the_body_whatever_the_direction_of_k() -> None:
    up, down = stack(10, 3.0, 0.0), stack(10, -3.0, 27.0)
    for number in range(1, 11):
        z = []
        for pet in (up, down):
            (k,) = slice_to_k(number, pet, Site()) or ()
            z.append(pet.to_world_mm([0, 0, k])[2])
        assert z[0] == pytest.approx(z[1]) == pytest.approx(27.0 - 3.0 * (number - 1))


def test_ct_slices_are_met_by_millimetres() -> None:
    """PET 0..87 mm in 3 mm steps from the feet; CT from 20 mm on in 2 mm steps, stored from the head."""
    pet = stack(30, 3.0, 0.0)
    ct = stack(40, -2.0, 98.0, "HU")
    site = Site(slice_grid="ct", slice_origin="feet", slice_first=0)
    (k,) = slice_to_k(5, pet, site, ct) or ()  # z = 20 + 5 * 2 = 30
    assert k == 10
    assert slice_number(10, pet, site, ct) == 5


def test_a_thick_ct_slice_is_several_pet_slices() -> None:
    pet, ct = stack(30, 2.0, 0.0), stack(10, 6.0, 2.0, "HU")
    site = Site(slice_grid="ct", slice_origin="feet")
    assert list(slice_to_k(2, pet, site, ct) or ()) == [3, 4, 5]  # z = 8, from 5 to 11: centres 6, 8, 10


def test_a_ct_slice_above_the_pet_is_outside() -> None:
    site = Site(slice_grid="ct")
    assert slice_to_k(1, stack(10, 3.0, 0.0), site, stack(40, 3.0, 0.0, "HU")) is None


def test_instance_numbers_need_no_order() -> None:
    pet = stack(4, 3.0, 0.0, instance_numbers=(12, 11, 10, 47))
    site = Site(slice_by_instance_number=True, slice_first=0, slice_origin="feet")
    assert list(slice_to_k(47, pet, site) or ()) == [3]
    assert slice_to_k(1, pet, site) is None
    assert [slice_number(k, pet, site) for k in range(4)] == [12, 11, 10, 47]


def test_what_cannot_be_counted_is_an_error() -> None:
    pet = stack(10, 3.0, 0.0)
    with pytest.raises(GeometryError, match="no CT"):
        slice_to_k(3, pet, Site(slice_grid="ct"))
    with pytest.raises(GeometryError, match="InstanceNumber"):
        slice_number(3, pet, Site(slice_by_instance_number=True))


def test_an_instance_number_on_two_slices_is_no_place() -> None:
    pet = Volume(np.zeros((2, 2, 4), np.float32), np.eye(4), "SUVbw", instance_numbers=(1, 2, 1, 2))
    with pytest.raises(GeometryError, match="InstanceNumber 1 stands on 2 slices"):
        slice_to_k(1, pet, Site(slice_by_instance_number=True))


def test_instance_numbers_of_the_ct() -> None:
    pet = stack(30, 3.0, 0.0)
    ct = stack(40, -2.0, 98.0, "HU", instance_numbers=tuple(range(101, 141)))
    site = Site(slice_by_instance_number=True, slice_grid="ct")
    assert list(slice_to_k(135, pet, site, ct) or ()) == [10]  # z = 98 - 34 * 2 = 30
    assert slice_number(10, pet, site, ct) == 135


def test_a_named_series_decides_which_grid_is_counted() -> None:
    pet, ct = stack(30, 3.0, 0.0, series_number=4), stack(40, 2.0, 0.0, "HU", series_number=3)
    by_series = Site(slice_by_series_number=True)
    grids = [getattr(site_for_series(by_series, number, pet, ct), "slice_grid", None) for number in (4, 3, None, 7)]
    assert grids == ["pet", "ct", "pet", None]
    assert site_for_series(Site(), 7, pet, ct) == Site(), "unless the site goes by series, the number means nothing"


def test_settings_by_scanner_and_time() -> None:
    site = site_from_mapping(
        {
            "suv_minimum": 3,
            "groups": [
                {"scanner": "GE / *", "until": datetime.date(2015, 7, 1), "slice_origin": "feet"},
                {"scanner": "", "numbering_known": False},
                {"from": "2020-01-01", "slice_first": 0},
            ],
        }
    )

    def counted(scanner: str | None, date: str | None) -> tuple[str, int, bool]:
        own = site.for_exam(scanner, date)
        assert (own.suv_minimum, own.groups) == (3.0, ())
        return own.slice_origin, own.slice_first, own.numbering_known

    assert counted("ge / Discovery / 1", "2015-06-30") == ("feet", 1, True)
    assert counted("GE / Discovery / 1", "2015-07-01") == ("head", 1, True)
    assert counted("GE / Discovery / 1", None) == ("head", 1, True)
    assert counted(None, "2020-02-01") == ("head", 1, False)
    assert counted("SIEMENS / mCT", "2020-01-01") == ("head", 0, True)
    assert site_from_mapping(site_to_mapping(site)) == site


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ("GE", "list"),
        (["GE"], "list"),
        ([{"scanner": "GE"}], "changes no setting"),
        ([{"scanner": 3, "slice_first": 0}], "scanner is 3"),
        ([{"from": "01/07/2015", "slice_first": 0}], "2015-07-01"),
        ([{"from": "2016-01-01", "until": "2015-01-01", "slice_first": 0}], "holds no exam"),
        ([{"slice_frist": 0}], "did you mean slice_first"),
        ([{"scanner": "GE", "slice_first": 2}], "slice_first is 2"),
        ([{"scanner": "GE", "groups": []}], "unknown site setting"),
    ],
)
def test_bad_groups_are_named(groups: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        site_from_mapping({"groups": groups})
