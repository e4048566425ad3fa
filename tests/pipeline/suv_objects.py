"""Reference objects in the manner of the IBSI's for SUV: whatever the header says, SUVbw is 0.20, 1.00 and 4.00.

Every object is made here from the physics, by numbers that the code under test has no part in: the patient weighs
70 kg, gets 368.08 MBq at 10:00, and is scanned at 11:00 unless the variant says otherwise. The variants are those of
https://github.com/oncoray/suv_computation (docs/DRO_list.csv), with others that the manual speaks of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicom_series import COLUMNS, ROWS, write
from pydicom.dataset import Dataset

DOSE, GRAMS, F18, GA68, ZR89 = 368.08e6, 70_000.0, 6586.2, 4057.7, 282_240.0
FRAME_S = 300.0
STEPS = 5000.0  # stored value of SUVbw 1
Vary = Callable[[Dataset, int], Any]


def left(seconds: float, half_life: float = F18) -> float:
    """Activity concentration [Bq/ml] of SUVbw 1 so long after injection."""
    return float(DOSE * 2.0 ** (-seconds / half_life) / GRAMS)


def frame_mean(start_s: float) -> float:
    """The same averaged over a frame, by summing it up second by second."""
    middles = start_s + np.arange(0.05, FRAME_S, 0.1)
    return float(np.mean(DOSE * 2.0 ** (-middles / F18) / GRAMS))


def mean_at_s() -> float:
    """When within a frame the activity equals its mean, by trying."""
    times = np.arange(0.0, FRAME_S, 0.01)
    return float(times[np.abs(2.0 ** (-times / F18) * DOSE / GRAMS - frame_mean(0.0)).argmin()])


def voxels(k: int) -> np.ndarray:
    """SUVbw 0.2, 1 and 4, the median being 1, times STEPS; the maximum in one slice only, off centre."""
    values = np.full((ROWS, COLUMNS), STEPS)
    values[0, : k + 1 if k < COLUMNS else 1] = 0.2 * STEPS
    if k == 4:
        values[3, 1] = 4.0 * STEPS
    return values.astype(np.uint16)


def clock(seconds_after_ten: float) -> str:
    whole, part = divmod(round((10 * 3600 + seconds_after_ten) * 1e6), 10**6)
    return f"{whole // 3600:02d}{whole // 60 % 60:02d}{whole % 60:02d}.{part:06d}"


def make(folder: Path, per_suv: Callable[[int], float], vary: Vary) -> None:
    """A series whose slice k holds SUVbw times per_suv(k) in the units that `vary` leaves in the header."""

    def edit(ds: Dataset, k: int) -> None:
        ds.PixelData = voxels(k).tobytes()
        ds.RescaleSlope = f"{per_suv(k) / STEPS:.9e}"
        ds.Manufacturer = "Synthetic"
        ds.PatientWeight, ds.PatientSize, ds.PatientSex = "70", "1.75", "O"
        ds.ActualFrameDuration, ds.FrameReferenceTime, ds.DecayFactor = "300000", "150000.0", "1.0"
        item = ds.RadiopharmaceuticalInformationSequence[0]
        item.RadionuclideTotalDose, item.RadionuclideHalfLife = str(DOSE), str(F18)
        item.RadiopharmaceuticalStartTime = "100000.000000"
        item.RadiopharmaceuticalStartDateTime = "20240305100000.000000"
        vary(ds, k)

    write(folder, edit=edit)


def injected(ds: Dataset) -> Dataset:
    item: Dataset = ds.RadiopharmaceuticalInformationSequence[0]
    return item


def gml(kind: str | None, sex: str) -> Vary:
    def vary(ds: Dataset, k: int) -> None:
        ds.Units, ds.PatientSex = "GML", sex
        if kind is not None:
            ds.SUVType = kind

    return vary


def assign(**attributes: Any) -> Vary:
    def vary(ds: Dataset, k: int) -> None:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)

    return vary


def counts(tag: int, value: float, **more: Any) -> Vary:
    def vary(ds: Dataset, k: int) -> None:
        assign(Units="CNTS", Manufacturer="Philips Medical Systems", **more)(ds, k)
        ds.add_new(tag, "DS", f"{value:.9e}")

    return vary


def rebuilt(maker: str, *, frame_reference: Callable[[float], float | None], private: int | None = None) -> Vary:
    """SeriesTime long after the scan, which started at 10:58; two beds, from 11:00 and from 11:05 on."""

    def vary(ds: Dataset, k: int) -> None:
        start = 3600.0 + FRAME_S * (k // 3)
        ds.Manufacturer, ds.SeriesTime, ds.AcquisitionTime = maker, "123000", clock(start)
        offset = frame_reference(start - 3480.0)
        if offset is None:
            del ds.FrameReferenceTime
        else:
            ds.FrameReferenceTime = f"{1000 * offset:.1f}"
        if private is not None:
            ds.add_new(private, "DT" if private >> 16 == 0x71 else "LO", "20240305105800.00")

    return vary


def uncorrected(maker: str, **more: Any) -> Vary:
    def vary(ds: Dataset, k: int) -> None:
        assign(Manufacturer=maker, DecayCorrection="NONE", CorrectedImage=["NORM", "ATTN"], **more)(ds, k)
        ds.AcquisitionTime = clock(3600.0 + FRAME_S * (k // 3))

    return vary


def at_start(k: int) -> float:
    return left(3600.0)


def at_1058(k: int) -> float:
    return left(3480.0)


def by_frame(k: int) -> float:
    return frame_mean(3600.0 + FRAME_S * (k // 3))


def midnight(*, date_time: bool, scan_date: str = "20240306") -> Vary:
    def vary(ds: Dataset, k: int) -> None:
        ds.SeriesDate = ds.AcquisitionDate = ds.StudyDate = scan_date
        ds.SeriesTime = ds.AcquisitionTime = "003000"
        injected(ds).RadiopharmaceuticalStartTime = "233000"
        injected(ds).RadiopharmaceuticalStartDateTime = "20240305233000" if date_time else None

    return vary


def zirconium(start: str | None, scan_date: str = "20240308") -> Vary:
    def vary(ds: Dataset, k: int) -> None:
        ds.SeriesDate = ds.AcquisitionDate = scan_date
        injected(ds).RadionuclideHalfLife = str(ZR89)
        injected(ds).RadiopharmaceuticalStartDateTime = start

    return vary


def without(*keywords: str) -> Vary:
    def vary(ds: Dataset, k: int) -> None:
        for keyword in keywords:
            for data in (ds, injected(ds)):
                if keyword in data:
                    delattr(data, keyword)

    return vary


def gallium(ds: Dataset, k: int) -> None:
    injected(ds).RadionuclideHalfLife = str(GA68)


def megabecquerel(ds: Dataset, k: int) -> None:
    injected(ds).RadionuclideTotalDose = str(DOSE / 1e6)


def unchanged(ds: Dataset, k: int) -> None:
    pass


def siemens_reference(elapsed: float) -> float:
    return elapsed + mean_at_s()


# Masses [kg] for 70 kg and 1.75 m, worked by hand: James 1.10*70 - 128*0.16 and 1.07*70 - 148*0.16, Sugawara's ideal
# weight 48 + 1.06*23 and 45.5 + 0.91*23, Janmahasatian with a body mass index of 22.857; DuBois 1.84815 m2.
LEAN_M, LEAN_F, LEAN_120, IDEAL_M, IDEAL_F = 56.52, 51.22, 57.80, 72.38, 66.43
JANMA_M, JANMA_F = 9270 * 70 / 11617.142857, 9270 * 70 / 14357.142857
SQUARE_CM = 18_481.5

OBJECTS: dict[str, tuple[Callable[[int], float], Vary]] = {
    "0_0 START": (at_start, unchanged),
    "2_0 SUVbw": (lambda k: 1.0, gml("BW", "O")),
    "2_0 SUVbw, type absent": (lambda k: 1.0, gml(None, "O")),
    "2_1_0 James 128, M": (lambda k: LEAN_M / 70, gml("LBMJAMES128", "M")),
    "2_1_1 James 128, F": (lambda k: LEAN_F / 70, gml("LBMJAMES128", "F")),
    "2_1_2 James 128, O": (lambda k: (LEAN_M + LEAN_F) / 140, gml("LBMJAMES128", "O")),
    "2_1 James 120, M": (lambda k: LEAN_120 / 70, gml("LBM", "M")),
    "2_2_0 ideal weight, M": (lambda k: IDEAL_M / 70, gml("IBW", "M")),
    "2_2_1 ideal weight, F": (lambda k: IDEAL_F / 70, gml("IBW", "F")),
    "2_2_2 ideal weight, O": (lambda k: (IDEAL_M + IDEAL_F) / 140, gml("IBW", "O")),
    "2_3 body surface": (lambda k: SQUARE_CM / GRAMS, assign(Units="CM2ML")),
    "2_3 body surface, typed": (lambda k: SQUARE_CM / GRAMS, assign(Units="CM2ML", SUVType="BSA")),
    "2_4 Philips SUV factor": (lambda k: 2000.0, counts(0x70531000, 1 / 2000)),
    "2_5 Philips Bq factor": (lambda k: left(3600) / 1.7, counts(0x70531009, 1.7)),
    "2_6_0 Janmahasatian, M": (lambda k: JANMA_M / 70, gml("LBMJANMA", "M")),
    "2_6_1 Janmahasatian, F": (lambda k: JANMA_F / 70, gml("LBMJANMA", "F")),
    "2_6_2 Janmahasatian, O": (lambda k: (JANMA_M + JANMA_F) / 140, gml("LBMJANMA", "O")),
    "3_0 MBq": (at_start, megabecquerel),
    "3_1 ADMIN": (lambda k: left(0.0), assign(DecayCorrection="ADMIN")),
    "3_2_0 rebuilt, Siemens": (at_1058, rebuilt("SIEMENS", frame_reference=siemens_reference)),
    "3_2_1 rebuilt, GE": (at_1058, rebuilt("GE MEDICAL SYSTEMS", frame_reference=lambda s: s)),
    "3_2_2 rebuilt, Philips": (at_1058, rebuilt("Philips Medical Systems", frame_reference=siemens_reference)),
    "3_2_3 rebuilt, other": (at_1058, rebuilt("Synthetic", frame_reference=siemens_reference)),
    "3_2 rebuilt, no frame time": (at_start, rebuilt("Synthetic", frame_reference=lambda s: None)),
    "3_2 beds each to their start": (
        lambda k: left(3600.0 + FRAME_S * (k // 3)),
        rebuilt("SIEMENS", frame_reference=lambda s: mean_at_s()),
    ),
    "3_3_0 Siemens private": (at_1058, rebuilt("SIEMENS", frame_reference=lambda s: 0.0, private=0x00711022)),
    "3_3_1 GE private": (at_1058, rebuilt("GE MEDICAL SYSTEMS", frame_reference=lambda s: 0.0, private=0x0009100D)),
    "3_4_0 NONE, Siemens": (by_frame, uncorrected("SIEMENS")),
    "3_4_1 NONE, GE": (by_frame, uncorrected("GE MEDICAL SYSTEMS")),
    "3_4_3 NONE, other": (by_frame, uncorrected("Synthetic")),
    "3_5_0 Siemens": (at_start, assign(Manufacturer="SIEMENS")),
    "3_5_1 GE": (at_start, assign(Manufacturer="GE MEDICAL SYSTEMS")),
    "3_5_2 Philips": (at_start, assign(Manufacturer="Philips")),
    "4_0 date-time only": (at_start, without("RadiopharmaceuticalStartTime")),
    "4_1 time only": (at_start, without("RadiopharmaceuticalStartDateTime")),
    "4_2 midnight, time only": (at_start, midnight(date_time=False)),
    "4_3 midnight, date-time": (at_start, midnight(date_time=True)),
    "4_4 midnight, scan's date anonymised": (at_start, midnight(date_time=True, scan_date="19600116")),
    "4_5 Zr-89 after three days": (lambda k: left(3 * 86_400 + 3600.0, ZR89), zirconium("20240305100000")),
    "5_0 Ga-68": (lambda k: left(3600.0, GA68), gallium),
}

ERRORS: dict[str, tuple[Vary, str]] = {
    "2_0 no weight": (without("PatientWeight"), r"PatientWeight \(0010,1030\) is missing"),
    "2_1 weight 0": (assign(PatientWeight="0"), r"PatientWeight \(0010,1030\) is 0"),
    "2_2 no sex": (gml("IBW", ""), r"PatientSex \(0010,0040\) is missing"),
    "2_3 other sex": (gml("IBW", "X"), r"PatientSex \(0010,0040\) is 'X'"),
    "2_4 no size": (assign(Units="GML", SUVType="IBW", PatientSize=None), r"PatientSize \(0010,1020\) is missing"),
    "2_5 size 0": (assign(Units="GML", SUVType="IBW", PatientSize="0"), r"PatientSize \(0010,1020\) is 0"),
    "2_6 no factor": (assign(Units="CNTS"), r"Units \(0054,1001\) is 'CNTS'.*\(7053,1000\)"),
    "2_7 PROPCNTS": (assign(Units="PROPCNTS"), r"Units \(0054,1001\) is 'PROPCNTS'"),
    "2_8 CPS": (assign(Units="CPS"), r"Units \(0054,1001\) is 'CPS'"),
    "2_9 PROPCPS": (assign(Units="PROPCPS"), r"Units \(0054,1001\) is 'PROPCPS'"),
    "3_0 no dose": (without("RadionuclideTotalDose"), r"RadionuclideTotalDose \(0018,1074\) is missing"),
    "3_1 dose below 0": (
        lambda ds, k: setattr(injected(ds), "RadionuclideTotalDose", "-1"),
        r"RadionuclideTotalDose \(0018,1074\) is -1",
    ),
    "4_0 no injection": (
        without("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"),
        r"RadiopharmaceuticalStartDateTime \(0018,1078\) and",
    ),
    "4_1 Zr-89 without date": (zirconium(None), r"RadiopharmaceuticalStartDateTime \(0018,1078\) is missing"),
    "4_2 Zr-89, other date": (zirconium("20240305100000", "19600116"), r"2024-03-05 10:00:00.*1960-01-16 11:00:00"),
    "5_0 no half-life": (without("RadionuclideHalfLife"), r"RadionuclideHalfLife \(0018,1075\) is missing"),
    "NONE without duration": (
        lambda ds, k: (uncorrected("SIEMENS")(ds, k), without("ActualFrameDuration")(ds, k)),
        r"ActualFrameDuration \(0018,1242\) None",
    ),
}
