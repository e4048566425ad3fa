"""When the tracer was injected, and what the image is corrected to: cases of `suv_times`, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, time, timedelta

import pytest

from petground.labeling.errors import SuvError
from petground.labeling.suv import PetFrame, PetHeader, SuvFallbacks, suv_conversion

TEN = datetime(2024, 3, 5, 10, 0, 0)
ELEVEN = TEN + timedelta(hours=1)
HEADER = PetHeader(
    units="BQML",
    decay_correction="START",
    corrections=frozenset({"ATTN", "DECY", "SCAT"}),
    weight_kg=80.0,
    dose_bq=400e6,
    half_life_s=3600.0,
    injection_datetime=TEN,
    series_datetime=ELEVEN,
)
FRAME = PetFrame(acquired=ELEVEN, reference_s=120.0, duration_s=240.0)
DECAY = math.log(2) / 3600.0
TO_MEAN = math.log(DECAY * 240 / (1 - math.exp(-DECAY * 240))) / DECAY


def factor(header: PetHeader, *frames: PetFrame) -> float:
    return suv_conversion(header, frames or (FRAME,)).factors[0]


def refused(header: PetHeader, *frames: PetFrame) -> str:
    with pytest.raises(SuvError) as error:
        suv_conversion(header, frames or (FRAME,))
    assert error.value.fix
    return str(error.value)


@pytest.mark.parametrize(
    ("series", "injected", "expected"),
    [
        (ELEVEN, time(10, 0), 4e-4),
        (datetime(2024, 3, 6, 0, 30), time(23, 30), 4e-4),  # injected before midnight
        (datetime(2024, 3, 6, 0, 30), time(0, 30), 2e-4),
    ],
)
def test_a_time_without_a_date_is_of_the_scan_day_or_just_before_midnight(
    series: datetime, injected: time, expected: float
) -> None:
    header = replace(HEADER, injection_datetime=None, injection_time=injected, series_datetime=series)
    assert factor(header, PetFrame(acquired=series)) == pytest.approx(expected, rel=1e-12)


def test_the_date_time_of_injection_goes_before_the_time() -> None:
    header = replace(HEADER, injection_time=time(8, 0))
    assert factor(header) == pytest.approx(4e-4)


@pytest.mark.parametrize("injected", [ELEVEN + timedelta(minutes=1), TEN - timedelta(days=1), TEN + timedelta(days=30)])
def test_injection_after_the_scan_or_days_before_is_an_error_with_both_times(injected: datetime) -> None:
    message = refused(replace(HEADER, injection_datetime=injected))
    assert str(injected) in message
    assert str(ELEVEN) in message


def test_injection_time_after_the_scan_in_daytime_is_no_midnight() -> None:
    assert "12:00" in refused(replace(HEADER, injection_datetime=None, injection_time=time(12, 0)))


def test_a_long_lived_nuclide_needs_a_date() -> None:
    header = replace(HEADER, injection_datetime=None, injection_time=time(10, 0), half_life_s=282_276.0)  # Zr-89
    assert "RadiopharmaceuticalStartDateTime" in refused(header)
    assert "RadiopharmaceuticalStartTime" in refused(replace(HEADER, injection_datetime=None))


def test_series_time_after_the_acquisition_is_not_the_scan_time() -> None:
    made_anew = replace(HEADER, series_datetime=ELEVEN + timedelta(hours=5))
    timeless = PetFrame(acquired=ELEVEN)
    conversion = suv_conversion(made_anew, [PetFrame(acquired=ELEVEN + timedelta(minutes=9)), timeless])
    assert conversion.factors[0] == pytest.approx(4e-4)
    assert "earliest AcquisitionTime" in conversion.rule


def test_the_private_scan_time_is_believed_only_when_it_fits() -> None:
    made_anew = replace(HEADER, series_datetime=ELEVEN + timedelta(hours=5))
    frame = PetFrame(acquired=ELEVEN + timedelta(minutes=3))
    fitting = suv_conversion(replace(made_anew, private_scan_datetime=ELEVEN), [frame])
    assert fitting.factors[0] == pytest.approx(4e-4)
    assert "0009,100D" in fitting.rule
    weeks_off = suv_conversion(replace(made_anew, private_scan_datetime=ELEVEN - timedelta(days=23)), [frame])
    assert weeks_off.factors[0] == pytest.approx(4e-4 * 2 ** (3 / 60))
    # and never where SeriesTime is in order
    assert factor(replace(HEADER, private_scan_datetime=TEN)) == pytest.approx(4e-4)


def test_scan_time_back_from_the_frame_reference_time() -> None:
    made_anew = replace(HEADER, series_datetime=ELEVEN + timedelta(hours=5))
    decay = math.log(2) / 3600.0
    to_mean = math.log(decay * 240 / (1 - math.exp(-decay * 240))) / decay

    def bed(number: int) -> PetFrame:
        return PetFrame(ELEVEN + timedelta(seconds=240 * number), 240 * number + to_mean, 240.0)

    conversion = suv_conversion(made_anew, [bed(2), bed(1)])  # the first bed lies outside this series
    assert conversion.factors[0] == pytest.approx(4e-4, rel=1e-6)
    assert "FrameReferenceTime" in conversion.rule


def test_shifted_series_date_is_refused() -> None:
    message = refused(replace(HEADER, series_datetime=ELEVEN - timedelta(days=7)))
    assert "SeriesTime" in message
    assert "AcquisitionTime" in message


def test_an_explicit_decay_reference_goes_first() -> None:
    header = replace(HEADER, reference_datetime=TEN, series_datetime=None)
    assert factor(header) == pytest.approx(2e-4)  # corrected to injection


def test_frames_that_disagree_each_have_their_own_start() -> None:
    made_anew = replace(HEADER, series_datetime=ELEVEN + timedelta(hours=5))
    beds = [PetFrame(ELEVEN + timedelta(hours=n), TO_MEAN, 240.0) for n in (0, 1)]
    conversion = suv_conversion(made_anew, beds)
    assert conversion.factors == pytest.approx((4e-4, 8e-4), rel=1e-6)
    assert "each slice" in conversion.rule


def test_ge_counts_to_the_start_of_the_frame() -> None:
    made_anew = replace(HEADER, series_datetime=ELEVEN + timedelta(hours=5), manufacturer="GE MEDICAL SYSTEMS")
    frame = PetFrame(ELEVEN + timedelta(minutes=30), 1800.0, 240.0)
    assert factor(made_anew, frame) == pytest.approx(4e-4, rel=1e-9)
    elsewhere = replace(made_anew, manufacturer="Gemini of Philips")
    assert factor(elsewhere, frame) == pytest.approx(4e-4 * 2 ** (TO_MEAN / 3600), rel=1e-9)


def test_series_time_of_the_ct_is_seen_by_two_witnesses() -> None:
    """SeriesTime five minutes before the PET; FrameReferenceTime and DecayFactor count from 11:00."""
    early = replace(HEADER, series_datetime=ELEVEN - timedelta(minutes=5))
    gain = DECAY * 240 / (1 - math.exp(-DECAY * 240))

    def bed(number: int, decay_factor: float | None) -> PetFrame:
        start = 240.0 * number
        return PetFrame(ELEVEN + timedelta(seconds=start), start + TO_MEAN, 240.0, None, decay_factor)

    both = [bed(n, gain * 2 ** (240 * n / 3600)) for n in (0, 1, 2)]
    conversion = suv_conversion(early, both)
    assert conversion.factors[0] == pytest.approx(4e-4, rel=1e-6)
    assert "FrameReferenceTime and DecayFactor, 300 s off" in conversion.rule
    for_series = [bed(n, gain * 2 ** ((240 * n + 300) / 3600)) for n in (0, 1, 2)]
    assert suv_conversion(early, for_series).factors[0] == pytest.approx(4e-4 * 2 ** (-300 / 3600))
    assert suv_conversion(early, for_series).rule == "BQML/START"
    silent = suv_conversion(early, [bed(n, None) for n in (0, 1, 2)])
    assert silent.factors[0] == pytest.approx(4e-4 * 2 ** (-300 / 3600))
    assert "leads to a scan time 300 s later" in silent.rule


def test_a_date_years_away_is_not_of_this_scan_but_its_time_is() -> None:
    conversion = suv_conversion(replace(HEADER, injection_datetime=TEN.replace(year=1960)), [FRAME])
    assert conversion.factors[0] == pytest.approx(4e-4)
    assert "injection date 1960-03-05 is not of this scan" in conversion.rule
    late = replace(HEADER, injection_datetime=ELEVEN.replace(year=2031, hour=13))
    assert "2024-03-05 13:00:00" in refused(late)
    zirconium = replace(HEADER, injection_datetime=TEN.replace(year=1960), half_life_s=282_276.0)
    assert "1960-03-05" in refused(zirconium)


def test_an_injection_before_midnight_with_the_date_of_the_scan() -> None:
    after_midnight = datetime(2024, 3, 6, 0, 30)
    header = replace(HEADER, series_datetime=after_midnight, injection_datetime=datetime(2024, 3, 6, 23, 30))
    conversion = suv_conversion(header, [PetFrame(acquired=after_midnight)])
    assert conversion.factors[0] == pytest.approx(4e-4)
    assert "a day late" in conversion.rule
    afternoon = replace(header, injection_datetime=datetime(2024, 3, 6, 13, 30))
    assert "2024-03-06 13:30:00" in refused(afternoon, PetFrame(acquired=after_midnight))


def test_copper_64_needs_a_date_too() -> None:
    header = replace(HEADER, injection_datetime=None, injection_time=time(10, 0), half_life_s=45_723.6)
    assert "RadiopharmaceuticalStartDateTime (0018,1078)" in refused(header)


def test_a_missing_half_life_is_looked_up_only_when_asked_for() -> None:
    silent = replace(HEADER, half_life_s=None, nuclide_coded="F-18", nuclide_worded="F-18")
    message = refused(silent)
    assert "RadionuclideHalfLife (0018,1075) is missing" in message
    assert "half_life_from_code: true" in message
    conversion = suv_conversion(silent, [FRAME], SuvFallbacks(half_life_from_code=True))
    assert conversion.factors[0] == pytest.approx(2e-4 * 2 ** (3600 / 6586.2), rel=1e-9)
    assert conversion.rule == "BQML/START (half-life of F-18 by its code)"
    two = replace(silent, nuclide_worded="Ga-68")
    with pytest.raises(SuvError, match="F-18 and Ga-68 at once"):
        suv_conversion(two, [FRAME], SuvFallbacks(half_life_from_code=True))
    nonsense = replace(silent, half_life_s=-1.0)
    with pytest.raises(SuvError, match="is -1"):
        suv_conversion(nonsense, [FRAME], SuvFallbacks(half_life_from_code=True))


def test_a_half_life_that_is_not_the_nuclides_is_said() -> None:
    conversion = suv_conversion(replace(HEADER, nuclide_coded="F-18"), [FRAME])
    assert conversion.factors[0] == pytest.approx(4e-4)
    assert conversion.rule == "BQML/START (half-life of 3600 s, the nuclide's code says F-18)"
    # gallium-68 is often coded with the code of gallium-66: the words agree with the half-life
    gallium = replace(HEADER, half_life_s=4057.7, nuclide_coded="Ga-66", nuclide_worded="Ga-68")
    assert suv_conversion(gallium, [FRAME]).rule == "BQML/START"
