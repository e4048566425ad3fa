"""SUV arithmetic against numbers worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from petground.labeling.errors import SuvError
from petground.labeling.suv import (
    PetFrame,
    PetHeader,
    SuvFallbacks,
    frame_average_gain,
    refusal,
    size_mass_kg,
    suv_conversion,
)

TEN = datetime(2024, 3, 5, 10, 0, 0)
ELEVEN = TEN + timedelta(hours=1)
HEADER = PetHeader(
    units="BQML",
    decay_correction="START",
    corrections=frozenset({"ATTN", "DECY", "SCAT"}),
    weight_kg=80.0,
    height_m=1.80,
    sex="M",
    dose_bq=400e6,
    half_life_s=3600.0,
    injection_datetime=TEN,
    series_datetime=ELEVEN,
)
FRAME = PetFrame(acquired=ELEVEN, reference_s=120.0, duration_s=240.0)


def factor(header: PetHeader, *frames: PetFrame) -> float:
    return suv_conversion(header, frames or (FRAME,)).factors[0]


def refused(header: PetHeader, *frames: PetFrame) -> str:
    with pytest.raises(SuvError) as error:
        suv_conversion(header, frames or (FRAME,))
    assert error.value.fix
    return str(error.value)


def test_start_decays_the_dose_to_the_series_time() -> None:
    # one half-life between injection and scan leaves 200 MBq: 80000 g / 200e6 Bq = 4e-4
    conversion = suv_conversion(HEADER, [FRAME, FRAME])
    assert conversion.factors == pytest.approx((4e-4, 4e-4), rel=1e-12)
    assert conversion.rule == "BQML/START"


def test_admin_leaves_the_dose_and_needs_no_times() -> None:
    header = replace(HEADER, decay_correction="ADMIN", injection_datetime=None, series_datetime=None, half_life_s=None)
    assert factor(header) == pytest.approx(2e-4, rel=1e-12)


def test_none_corrects_every_frame_for_itself() -> None:
    header = replace(HEADER, decay_correction="NONE", corrections=frozenset({"ATTN"}))
    later = PetFrame(acquired=ELEVEN + timedelta(hours=1), duration_s=3600.0)
    short = PetFrame(acquired=ELEVEN, duration_s=1e-3)
    first, second = suv_conversion(header, [short, later]).factors
    assert first == pytest.approx(4e-4, rel=1e-6)  # no decay within the frame, one half-life before it
    # two half-lives before the frame, one during it: mean of exp over one half-life is 0.5 / ln 2 of its start
    assert second == pytest.approx(2e-4 * 4 * math.log(2) / 0.5, rel=1e-9)
    assert "AcquisitionTime" in refused(header, PetFrame(duration_s=60.0))
    assert "ActualFrameDuration" in refused(header, PetFrame(acquired=ELEVEN))


def test_frame_average_gain_of_one_half_life() -> None:
    assert frame_average_gain(math.log(2)) == pytest.approx(math.log(2) / 0.5)
    assert frame_average_gain(1e-12) == pytest.approx(1.0)


def test_dose_in_megabecquerel_is_seen_and_said() -> None:
    conversion = suv_conversion(replace(HEADER, dose_bq=400.0), [FRAME])
    assert conversion.factors[0] == pytest.approx(4e-4)
    assert "MBq" in conversion.rule


@pytest.mark.parametrize("dose", [10.0, 5e4, 5e10, 0.0])
def test_a_dose_that_could_be_mci_kbq_or_nonsense_is_refused(dose: float) -> None:
    with pytest.raises(SuvError, match="RadionuclideTotalDose"):
        suv_conversion(replace(HEADER, dose_bq=dose), [FRAME])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"weight_kg": None}, "PatientWeight"),
        ({"weight_kg": 0.0}, "PatientWeight"),
        ({"weight_kg": 80_000.0}, "PatientWeight"),
        ({"dose_bq": None}, "RadionuclideTotalDose"),
        ({"dose_bq": 0.0}, "RadionuclideTotalDose"),
        ({"dose_bq": 5e5}, "RadionuclideTotalDose"),
        ({"half_life_s": None}, "RadionuclideHalfLife"),
        ({"half_life_s": 0.0}, "RadionuclideHalfLife"),
        ({"decay_correction": None}, "DecayCorrection"),
        ({"decay_correction": "SOMETIMES"}, "DecayCorrection"),
        ({"decay_correction": "NONE"}, "DECY"),
        ({"corrections": frozenset({"DECY"})}, "ATTN"),
        ({"corrections": frozenset({"ATTN"})}, "DECY"),
        ({"units": "CPS"}, "CPS"),
        ({"units": "PROPCPS"}, "PROPCPS"),
        ({"units": ""}, "Units"),
        ({"units": "CNTS"}, "7053,1000"),
        ({"units": "CNTS", "philips_suv_factor": 0.0, "philips_bq_factor": 0.0}, "7053,1009"),
    ],
)
def test_what_cannot_be_converted_names_the_attribute(change: dict[str, object], word: str) -> None:
    assert word in refused(replace(HEADER, **change))  # type: ignore[arg-type]


def test_no_reason_against_a_plain_series() -> None:
    assert refusal(HEADER) is None


def test_philips_counts_both_ways() -> None:
    counts = replace(HEADER, units="CNTS", philips_suv_factor=5e-4, philips_bq_factor=2.0)
    assert factor(counts) == pytest.approx(5e-4)
    assert factor(replace(counts, philips_suv_factor=0.0)) == pytest.approx(2.0 * 4e-4)
    rules = [suv_conversion(replace(counts, philips_bq_factor=bq), [FRAME]).rule for bq in (2.0, 1.25, None)]
    assert rules[0] == "CNTS/Philips SUV factor (the Bq factor (7053,1009) leads to 1.60 times as much)"
    assert rules[1:] == ["CNTS/Philips SUV factor"] * 2
    # what the SUV factor does not need may be missing
    assert factor(replace(counts, weight_kg=None)) == pytest.approx(5e-4)


def test_philips_counts_of_single_frames_need_the_bq_factor() -> None:
    header = replace(HEADER, units="CNTS", decay_correction="NONE", corrections=frozenset({"ATTN"}))
    assert "7053,1009" in refused(replace(header, philips_suv_factor=5e-4))
    short = PetFrame(acquired=ELEVEN, duration_s=1e-3)
    assert factor(replace(header, philips_suv_factor=5e-4, philips_bq_factor=2.0), short) == pytest.approx(8e-4)


def test_gml_is_suv_already() -> None:
    header = replace(HEADER, units="GML", weight_kg=None, dose_bq=None, injection_datetime=None)
    assert factor(header) == 1.0
    assert factor(replace(header, suv_type="BW")) == 1.0


@pytest.mark.parametrize(
    ("kind", "sex", "mass"),
    [
        ("LBM", "M", 1.10 * 80 - 120 * (80 / 180) ** 2),  # 64.296
        ("LBMJAMES128", "M", 1.10 * 80 - 128 * (80 / 180) ** 2),  # 62.716
        ("LBM", "F", 1.07 * 80 - 148 * (80 / 180) ** 2),  # 56.365
        ("LBMJAMES128", "F", 1.07 * 80 - 148 * (80 / 180) ** 2),
        ("LBMJANMA", "M", 9270 * 80 / (6680 + 216 * 80 / 3.24)),  # 61.751
        ("LBMJANMA", "F", 9270 * 80 / (8780 + 244 * 80 / 3.24)),
        ("IBW", "M", 77.68),
        ("IBW", "F", 70.98),
        ("IBW", "O", 74.33),  # neither: the mean of both
        ("LBM", "O", (64.2963 + 56.3654) / 2),
        ("BSA", None, 19.96),  # DuBois: 1.996 m2
    ],
)
def test_masses_of_other_size_corrections(kind: str, sex: str | None, mass: float) -> None:
    assert size_mass_kg(kind, 80.0, 1.80, sex) == pytest.approx(mass, rel=1e-3)


def test_lean_body_mass_is_turned_back_to_body_weight_and_named() -> None:
    header = replace(HEADER, units="GML", suv_type="LBMJAMES128")
    conversion = suv_conversion(header, [FRAME])
    assert conversion.factors[0] == pytest.approx(80 / 62.7160, rel=1e-5)
    assert "128" in conversion.rule
    assert "120" in suv_conversion(replace(header, suv_type="LBM"), [FRAME]).rule


def test_the_mean_of_both_sexes_is_said() -> None:
    header = replace(HEADER, units="GML", suv_type="IBW", sex="O")
    conversion = suv_conversion(header, [FRAME])
    assert conversion.factors[0] == pytest.approx(80 / 74.33, rel=1e-6)
    assert "mean of male and female" in conversion.rule


@pytest.mark.parametrize("weight", [None, 0.0, 8000.0])
def test_a_weight_from_the_site_stands_in_for_none(weight: float | None) -> None:
    header = replace(HEADER, weight_kg=weight)
    conversion = suv_conversion(header, [FRAME], SuvFallbacks(weight_kg=60.0))
    assert conversion.factors[0] == pytest.approx(3e-4)
    assert conversion.rule == "BQML/START (weight from the site's table)"
    assert suv_conversion(HEADER, [FRAME], SuvFallbacks(weight_kg=60.0)).factors[0] == pytest.approx(4e-4)


def test_body_surface_area_is_turned_back() -> None:
    # 1.996 m2 = 19960 cm2; 80000 g / 19960 cm2
    assert factor(replace(HEADER, units="CM2ML")) == pytest.approx(80_000 / 19_960, rel=1e-3)
    assert "SUVType" in refused(replace(HEADER, units="CM2ML", suv_type="BW"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"height_m": None}, "PatientSize"),
        ({"height_m": 180.0}, "PatientSize"),
        ({"sex": None}, "PatientSex (0010,0040) is missing"),
        ({"sex": "D"}, "PatientSex"),
        ({"weight_kg": None}, "PatientWeight"),
        ({"suv_type": "NEW"}, "SUVType"),
    ],
)
def test_other_size_corrections_need_size_and_sex(change: dict[str, object], word: str) -> None:
    assert word in refused(replace(replace(HEADER, units="GML", suv_type="LBM"), **change))  # type: ignore[arg-type]
