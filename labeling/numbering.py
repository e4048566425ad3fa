"""Slice numbers as reports print them, and the index k of the PET array: one place for both directions.

A site counts from the head or the feet, from 0 or from 1, slices of the PET or of the CT, or quotes DICOM's
InstanceNumber of either (method: arXiv 2502.00528, where it is the head, 1 and the PET). `Site` says which.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from petground.labeling.errors import GeometryError
from petground.labeling.site import Site
from petground.labeling.volume import Volume

__all__ = ["site_for_series", "slice_number", "slice_to_k"]


def site_for_series(site: Site, series: int | None, pet: Volume, ct: Volume | None = None) -> Site | None:
    """The site as it counts in the series that a report names ("series 3, image 104"); None for a series unknown.

    Without a named series, and where the site does not go by series numbers, the site as it is.
    """
    if not site.slice_by_series_number or series is None:
        return site
    if series == pet.series_number:
        return replace(site, slice_grid="pet")
    if ct is not None and series == ct.series_number:
        return replace(site, slice_grid="ct")
    return None


def slice_to_k(number: int, pet: Volume, site: Site, ct: Volume | None = None) -> range | None:
    """PET indices k that the printed slice number means; None when it lies outside of the image.

    One index in most cases. A CT slice thicker than the PET's gives every PET slice whose centre lies in it, a
    thinner one the nearest PET slice. `slice_tolerance` is not applied here. Raises GeometryError when the site
    counts CT slices or instance numbers and the exam has none.
    """
    grid = _counted_grid(pet, site, ct)
    index = _number_to_index(number, grid, site)
    if index is None or not 0 <= index < grid.shape[2]:
        return None
    if grid is pet:
        return range(index, index + 1)
    edges = sorted(_other_k(index + half, grid, pet) for half in (-0.5, 0.5))
    first, last = int(np.ceil(edges[0])), int(np.ceil(edges[1]))  # centres in [edge, edge)
    if first >= last:
        first = round(_other_k(float(index), grid, pet))
        last = first + 1
    first, last = max(first, 0), min(last, pet.shape[2])
    return range(first, last) if first < last else None


def slice_number(k: int, pet: Volume, site: Site, ct: Volume | None = None) -> int:
    """The number that the site would print for PET index k (on a CT grid: the nearest CT slice's).

    Raises GeometryError as `slice_to_k` does.
    """
    grid = _counted_grid(pet, site, ct)
    index = k if grid is pet else round(_other_k(float(k), pet, grid))
    if site.slice_by_instance_number:
        return _instance_numbers(grid, site)[min(max(index, 0), grid.shape[2] - 1)]
    from_head = (site.slice_origin == "head") == grid.head_is_last
    return (grid.shape[2] - 1 - index if from_head else index) + site.slice_first


def _number_to_index(number: int, grid: Volume, site: Site) -> int | None:
    if site.slice_by_instance_number:
        numbers = _instance_numbers(grid, site)
        if numbers.count(number) > 1:
            raise GeometryError(f"InstanceNumber {number} stands on {numbers.count(number)} slices")
        return numbers.index(number) if number in numbers else None
    position = number - site.slice_first
    from_head = (site.slice_origin == "head") == grid.head_is_last
    return grid.shape[2] - 1 - position if from_head else position


def _counted_grid(pet: Volume, site: Site, ct: Volume | None) -> Volume:
    if site.slice_grid == "pet":
        return pet
    if ct is None:
        raise GeometryError(
            "the site counts CT slices and the exam has no CT", fix="add the CT or set slice_grid: pet in the site file"
        )
    return ct


def _instance_numbers(grid: Volume, site: Site) -> tuple[int, ...]:
    if grid.instance_numbers is None:
        raise GeometryError(
            f"the site counts by InstanceNumber and the {site.slice_grid.upper()} has none",
            fix="give the exam as DICOM, or set slice_by_instance_number: false in the site file",
        )
    return grid.instance_numbers


def _other_k(k: float, source: Volume, target: Volume) -> float:
    """Continuous slice index on `target` of the middle of slice k of `source`, by way of millimetres."""
    i, j, _ = source.shape
    return float(target.to_index(source.to_world_mm([(i - 1) / 2, (j - 1) / 2, k]))[2])
