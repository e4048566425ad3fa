"""The PET series of an exam: which one, and in SUVbw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError, InputError, PetgroundError, SuvError
from petground.labeling.suv import refusal, suv_conversion
from petground.labeling.suv_header import NO_FALLBACKS, PetHeader, SuvFallbacks, named
from petground.labeling.volume import Volume
from petground.pipeline.dicom.header import Slice, number, text
from petground.pipeline.dicom.pixels import read_stack
from petground.pipeline.dicom.series import Series
from petground.pipeline.dicom.stack import sort_slices, stack_affine, stack_normal
from petground.pipeline.suv_range import beyond_suv

__all__ = ["PetSeries", "choose_pet", "read_pet_series"]

_NOT_CORRECTED = re.compile(
    r"(?<![a-z])(nac|non?[ _-]?ac|non[ _-]?att\w*|no[ _-]att\w*|un[ _-]?corr\w*|uncorrected|w/?o[ _-]?ac)(?![a-z])",
    re.I,
)


@dataclass(frozen=True, eq=False)
class PetSeries:
    """A PET in SUVbw. rule, factor: see `Exam`. planes are in k order."""

    volume: Volume
    rule: str
    factor: float | None
    planes: tuple[Slice, ...]


def choose_pet(found: Sequence[Series]) -> tuple[Series, str]:
    """The attenuation-corrected PET with the longest reach, and one line on what was chosen and what refused.

    Raises InputError (reason "no_pet") without any PET, SuvError when every PET series is refused, each named with
    its reason, and InputError when usable series stem from several studies.
    """
    pets = [series for series in found if series.modality == "PT"]
    if not pets:
        raise InputError(
            "no PET image series in the folder", fix="an exam needs a PET as DICOM or as pet.nii.gz", reason="no_pet"
        )
    reasons = {id(series): _why_not(series) for series in pets}
    usable = sorted((series for series in pets if reasons[id(series)] is None), key=_preference)
    refused = [f"{series.name} refused: {why.message}" for series in pets if (why := reasons[id(series)]) is not None]
    if not usable:
        kind = SuvError if any(isinstance(why, SuvError) for why in reasons.values()) else GeometryError
        raise kind(
            "no PET series can be used: " + "; ".join(refused), fix="export the attenuation-corrected series in Bq/ml"
        )
    studies = {text(series.header, "StudyInstanceUID") for series in usable}
    if len(studies) > 1:
        raise InputError(
            f"PET series of {len(studies)} studies in one folder: {', '.join(series.name for series in usable)}",
            fix="one folder per exam",
            reason="several_studies",
        )
    also = [f"{series.name} not needed" for series in usable[1:]]
    chosen = f"{usable[0].name} chosen{_numbering_note(usable[0].planes)}"
    return usable[0], "; ".join([chosen, *also, *refused])


def read_pet_series(series: Series, fallbacks: SuvFallbacks = NO_FALLBACKS) -> PetSeries:
    """Sorted, converted, on its grid. Raises SuvError, GeometryError, or InputError for files that cannot be read."""
    if series.torn is not None:
        raise series.torn.error(series.title)
    planes = sort_slices(series.planes)
    affine = stack_affine(planes)
    _require_complete(series, planes)
    for plane in planes:
        if plane.slope is None or plane.slope <= 0:
            raise SuvError(
                f"{named('RescaleSlope')} is {'missing or no number' if plane.slope is None else plane.slope} in "
                f"{plane.file.name}",
                fix="every slice needs its own",
            )
        if plane.intercept not in (None, 0.0):
            raise SuvError(
                f"{named('RescaleIntercept')} is {plane.intercept} in {plane.file.name}",
                fix="PET has none; it must be 0",
            )
    header = _common_header(planes)
    conversion = suv_conversion(header, [plane.timing for plane in planes], fallbacks)
    slopes = [float(plane.slope or 0) * factor for plane, factor in zip(planes, conversion.factors, strict=True)]
    array = read_stack(planes, slopes, [0.0] * len(planes), np.float32)
    _require_suv(array, header, conversion.rule)
    numbers = tuple(plane.instance_number for plane in planes if plane.instance_number is not None)
    volume = Volume(
        array,
        affine,
        "SUVbw",
        frame_of_reference=series.frame_of_reference,
        instance_numbers=numbers if len(numbers) == len(planes) else None,
        series_number=series.series_number,
    )
    single = header.units == "BQML" and len(set(conversion.factors)) == 1
    return PetSeries(volume, conversion.rule, conversion.factors[0] if single else None, tuple(planes))


def _require_suv(array: NDArray[np.float32], header: PetHeader, rule: str) -> None:
    """Raises SuvError (reason "not_suv") for values that no SUV has, with what they were made from."""
    beyond = beyond_suv(array)
    if beyond is not None:
        weight = "missing" if header.weight_kg is None else f"{header.weight_kg:g} kg"
        dose = "missing" if header.dose_bq is None else f"{header.dose_bq:g}"
        raise SuvError(
            f"what {rule} makes of the values is no SUVbw: {beyond}",
            fix=f"one of these is wrong: {named('Units')} '{header.units}', {named('PatientWeight')} {weight}, "
            f"{named('RadionuclideTotalDose')} {dose}, {named('RescaleSlope')}",
            reason="not_suv",
        )


def _common_header(planes: Sequence[Slice]) -> PetHeader:
    """What the headers of all slices say about SUV. Raises SuvError naming what they do not agree on."""
    headers = {plane.suv for plane in planes}
    first = planes[0].suv
    if first is None:
        raise SuvError("the series is no PET", fix="take the PET series")
    if len(headers) > 1:
        differ = [f.name for f in fields(PetHeader) if len({getattr(header, f.name) for header in headers}) > 1]
        raise SuvError(
            f"the headers of its slices differ in {', '.join(differ)}", fix="export the series from the scanner anew"
        )
    return first


def _why_not(series: Series) -> PetgroundError | None:
    """Why a series is out of the question, so that another may be taken.

    A gap or a cut is no such reason: the report's slice numbers mean the main series, which then ends in an error.
    """
    if series.problem is not None:
        return GeometryError(series.problem)
    described = _NOT_CORRECTED.search(text(series.header, "SeriesDescription") or "")
    if described:
        return SuvError(f"named '{described.group(0)}', not attenuation corrected")
    kind = (text(series.header, "SeriesType") or "").upper()
    if "REPROJECTION" in kind or "MIP" in series.image_type:
        return GeometryError("a projection, not a volume")
    try:
        sort_slices(series.planes)
    except GeometryError as error:
        stated = f" ({named('SeriesType')} {kind})" if kind.startswith(("DYNAMIC", "GATED")) else ""
        return GeometryError(error.message + stated, fix=error.fix)
    suv = series.planes[0].suv
    reason = refusal(suv) if suv is not None else "no PET"
    return None if reason is None else SuvError(reason)


def _numbering_note(planes: Sequence[Slice]) -> str:
    """A word on numbers that do not start at 0 or 1: where NumberOfSlices is gone too, a cut end shows only so."""
    numbers = [plane.instance_number for plane in planes if plane.instance_number is not None]
    if not numbers or min(numbers) <= 1:
        return ""
    return f" (InstanceNumber starts at {min(numbers)}: slices may be missing at that end)"


def _preference(series: Series) -> tuple[int, float, int, float, str]:
    """Sorts best first: made by the scanner itself, long reach, many slices, low series number."""
    normal = stack_normal(series.planes[0])
    planes = series.planes if series.torn is None else series.torn.planes  # a part stands for its series
    places = [float(plane.position_lps_mm @ normal) for plane in planes]
    return (
        0 if "ORIGINAL" in series.image_type else 1,
        -round((max(places) - min(places)) / 10.0),
        -series.count,
        number(series.header, "SeriesNumber") or 0.0,
        text(series.header, "SeriesInstanceUID") or "",
    )


def _require_complete(series: Series, planes: Sequence[Slice]) -> None:
    """A stack cut off at an end has no gap to be seen, but slice numbers counted from that end would be wrong."""
    stated = number(series.header, "NumberOfSlices")
    if stated is not None and len(planes) < stated:
        raise GeometryError(
            f"{len(planes)} of {stated:.0f} slices are there by {named('NumberOfSlices')}",
            fix="fetch the series anew",
            reason="incomplete",
        )
