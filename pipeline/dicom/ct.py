"""The CT that belongs to a PET, in HU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.dicom.header import number, text
from petground.pipeline.dicom.pixels import read_stack
from petground.pipeline.dicom.series import Series
from petground.pipeline.dicom.stack import sort_slices, stack_affine, stack_normal

__all__ = ["choose_ct", "read_ct_series"]

AIR_HU = -1024  # below lies only what scanners write outside the field of view (-2000, -3024)
HIGHEST_HU = 32767


def choose_ct(found: Sequence[Series], pet: Series | None) -> list[Series]:
    """CT series that can belong to `pet`, best first: same frame of reference, longest overlap, same slice count.

    Without a PET every axial CT is a candidate. Another frame of reference is never taken: where it lies is unknown.
    """
    usable = []
    for series in found:
        if series.modality != "CT" or series.problem or len(series.planes) < 2 or "LOCALIZER" in series.image_type:
            continue
        if pet is not None and (
            series.frame_of_reference is None or series.frame_of_reference != pet.frame_of_reference
        ):
            continue
        try:
            stack_normal(series.planes[0])
        except GeometryError:
            continue
        usable.append(series)

    def preference(series: Series) -> tuple[float, bool, float, str]:
        overlap, same = float(len(series.planes)), False
        if pet is not None:
            low, high = _reach(series)
            pet_low, pet_high = _reach(pet)
            overlap = round(max(0.0, min(high, pet_high) - max(low, pet_low)) / 10.0)
            same = len(series.planes) == len(pet.planes)
        return (
            -overlap,
            not same,
            number(series.header, "SeriesNumber") or 0.0,
            text(series.header, "SeriesInstanceUID") or "",
        )

    ranked = sorted(usable, key=preference)
    return [series for series in ranked if pet is None or preference(series)[0] < 0]


def read_ct_series(series: Series) -> Volume:
    """Sorted, in HU (int16), on its own grid. Raises GeometryError, or InputError for files that cannot be read."""
    planes = sort_slices(series.planes)
    affine = stack_affine(planes)
    for plane in planes:
        if plane.slope is None or plane.intercept is None:
            raise InputError(f"{plane.file.name}: RescaleSlope or RescaleIntercept is missing", fix="CT needs both")
    slopes, intercepts = zip(*((float(p.slope or 0), float(p.intercept or 0)) for p in planes), strict=True)
    dtype = np.float32 if _fractional(slopes) else np.int16
    array = read_stack(planes, slopes, intercepts, dtype, limits=(AIR_HU, HIGHEST_HU))
    numbers = tuple(plane.instance_number for plane in planes if plane.instance_number is not None)
    return Volume(
        array,
        affine,
        "HU",
        frame_of_reference=series.frame_of_reference,
        instance_numbers=numbers if len(numbers) == len(planes) else None,
        series_number=series.series_number,
    )


def _fractional(slopes: Sequence[float]) -> bool:
    return any(slope != round(slope) for slope in slopes)


def _reach(series: Series) -> tuple[float, float]:
    """Lowest and highest slice along the normal [mm]."""
    normal = stack_normal(series.planes[0])
    places = [float(plane.position_lps_mm @ normal) for plane in series.planes]
    return min(places), max(places)
