"""Whatever a header says: a factor that physics allows, or a refusal that names the way out. Never raw activity."""

from __future__ import annotations

import math
from datetime import datetime, time

from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.errors import SuvError
from petground.labeling.suv import PetFrame, PetHeader, SuvFallbacks, suv_conversion

NUMBER = st.one_of(
    st.none(), st.sampled_from([0.0, 1.0, 80.0, 400.0, 4e8, 3600.0, 6586.2, 282_276.0, 1.8]), st.floats(width=32)
)
MOMENT = st.one_of(
    st.none(),
    st.datetimes(datetime(2024, 3, 5, 9), datetime(2024, 3, 5, 13)),
    st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1)),
)
NUCLIDE = st.sampled_from([None, "F-18", "Ga-68", "Zr-89"])
HEADERS = st.builds(
    PetHeader,
    units=st.sampled_from(["BQML", "BQML", "CNTS", "GML", "CM2ML", "CPS", "PROPCPS", "", "?"]),
    decay_correction=st.sampled_from(["START", "START", "ADMIN", "NONE", None, "?"]),
    corrections=st.sampled_from([{"ATTN", "DECY"}, {"ATTN", "DECY"}, {"ATTN"}, {"DECY"}, set()]).map(frozenset),
    weight_kg=NUMBER,
    height_m=NUMBER,
    sex=st.sampled_from(["M", "F", "O", None, "?"]),
    suv_type=st.sampled_from([None, "BW", "LBM", "LBMJAMES128", "LBMJANMA", "IBW", "BSA", "?"]),
    dose_bq=NUMBER,
    half_life_s=NUMBER,
    injection_datetime=MOMENT,
    injection_time=st.one_of(st.none(), st.times(), st.just(time(10))),
    series_datetime=MOMENT,
    reference_datetime=st.one_of(st.none(), st.none(), MOMENT),
    private_scan_datetime=MOMENT,
    philips_suv_factor=NUMBER,
    philips_bq_factor=NUMBER,
    injections=st.sampled_from([1, 1, 1, 0, 2]),
    manufacturer=st.sampled_from([None, "GE MEDICAL SYSTEMS", "SIEMENS"]),
    nuclide_coded=NUCLIDE,
    nuclide_worded=NUCLIDE,
)
FRAMES = st.lists(
    st.builds(PetFrame, acquired=MOMENT, reference_s=NUMBER, duration_s=NUMBER, mean_at=MOMENT, decay_factor=NUMBER),
    min_size=1,
    max_size=4,
)
FALLBACKS = st.builds(SuvFallbacks, weight_kg=st.sampled_from([None, 70.0]), half_life_from_code=st.booleans())


@given(HEADERS, FRAMES, FALLBACKS)
@settings(max_examples=400, deadline=None)
def test_any_header_gives_a_possible_factor_or_a_refusal(
    header: PetHeader, frames: list[PetFrame], fallbacks: SuvFallbacks
) -> None:
    try:
        conversion = suv_conversion(header, frames, fallbacks)
    except SuvError as error:
        conversion, refusal = None, error
    if conversion is None:
        assert refusal.fix
        assert "(" in refusal.message  # a tag
        return
    assert conversion.rule.split("/")[0] == header.units
    assert len(conversion.factors) == len(frames)
    assert all(math.isfinite(factor) and factor > 0 for factor in conversion.factors)
    assert header.units in ("BQML", "CNTS", "GML", "CM2ML")
    if header.units == "BQML":
        # weight over dose, decayed by at most ten half-lives and a frame: never 1, which would be raw activity
        weight = fallbacks.weight_kg if "site's table" in conversion.rule else header.weight_kg
        dose = float(header.dose_bq or 0) * (1e6 if "MBq" in conversion.rule else 1.0)
        least = 1000.0 * float(weight or 0) / dose
        assert all(least * (1 - 1e-9) <= factor for factor in conversion.factors)
        if header.decay_correction == "START":
            assert all(factor <= least * 2**10 * (1 + 1e-9) for factor in conversion.factors)
    if header.units == "GML" and header.suv_type in (None, "BW"):
        assert set(conversion.factors) == {1.0}
