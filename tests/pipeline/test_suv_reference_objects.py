"""SUVbw of the reference objects in `suv_objects.py`: 0.20, 1.00 and 4.00, or a refusal that names the attribute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_enhanced import value_map, write_enhanced
from dicom_series import SLICES
from pydicom.dataset import Dataset
from suv_objects import (
    DOSE,
    ERRORS,
    F18,
    OBJECTS,
    STEPS,
    Vary,
    at_1058,
    at_start,
    by_frame,
    clock,
    counts,
    left,
    make,
    rebuilt,
    siemens_reference,
    uncorrected,
    voxels,
)

from petground.labeling.errors import SuvError
from petground.pipeline.read import read_exam


def measured(folder: Path) -> tuple[float, float, float]:
    values = read_exam(folder, case="dro").pet.array
    return float(values.min()), float(np.median(values)), float(values.max())


@pytest.mark.parametrize("name", OBJECTS)
def test_object(tmp_path: Path, name: str) -> None:
    per_suv, vary = OBJECTS[name]
    make(tmp_path, per_suv, vary)
    assert measured(tmp_path) == pytest.approx((0.20, 1.00, 4.00), rel=2e-5)


def test_philips_counts_that_are_not_decay_corrected(tmp_path: Path) -> None:
    """3_4_2; the SUV factor, one number for all frames, must not be used."""

    def vary(ds: Dataset, k: int) -> None:
        uncorrected("Philips Medical Systems")(ds, k)
        counts(0x70531009, 2.5)(ds, k)
        ds.add_new(0x70531000, "DS", "0.5")

    make(tmp_path, lambda k: by_frame(k) / 2.5, vary)
    assert measured(tmp_path) == pytest.approx((0.20, 1.00, 4.00), rel=2e-5)


def test_slopes_of_each_slice(tmp_path: Path) -> None:
    """1_0: the same SUV, stored with other numbers in every slice."""

    def vary(ds: Dataset, k: int) -> None:
        ds.PixelData = (voxels(k) // (k + 1)).astype(np.uint16).tobytes()
        ds.RescaleSlope = f"{float(ds.RescaleSlope) * (k + 1):.9e}"

    make(tmp_path, at_start, vary)
    assert measured(tmp_path) == pytest.approx((0.20, 1.00, 4.00), abs=0.002)


@pytest.mark.parametrize("name", ERRORS)
def test_object_that_must_be_refused(tmp_path: Path, name: str) -> None:
    vary, message = ERRORS[name]
    make(tmp_path, at_start, vary)
    with pytest.raises(SuvError, match=message) as error:
        read_exam(tmp_path, case="dro")
    assert error.value.fix


def test_rebuilt_series_without_frame_duration(tmp_path: Path) -> None:
    """error_3_2: FrameReferenceTime alone leads nowhere, but with GE."""

    def no_duration(maker: str, reference: Callable[[float], float]) -> Vary:
        def vary(ds: Dataset, k: int) -> None:
            rebuilt(maker, frame_reference=reference)(ds, k)
            del ds.ActualFrameDuration

        return vary

    make(tmp_path / "a", at_1058, no_duration("Synthetic", siemens_reference))
    with pytest.raises(SuvError, match=r"ActualFrameDuration \(0018,1242\) is None"):
        read_exam(tmp_path / "a", case="dro")
    make(tmp_path / "b", at_1058, no_duration("GE MEDICAL SYSTEMS", lambda s: s))
    assert measured(tmp_path / "b") == pytest.approx((0.20, 1.00, 4.00), rel=2e-5)


def enhanced(folder: Path, per_suv: Callable[[int], float], unit: str = "Bq/ml", **more: Any) -> None:
    def edit(ds: Dataset) -> None:
        item = ds.RadiopharmaceuticalInformationSequence[0]
        item.RadionuclideTotalDose, item.RadionuclideHalfLife = str(DOSE), str(F18)
        item.RadiopharmaceuticalStartDateTime = "20240305100000+0100"
        ds.PatientWeight, ds.DecayCorrectionDateTime = "70", "20240305110000+0100"
        more.get("edit", lambda ds: None)(ds)

    values = np.stack([voxels(k) for k in range(SLICES)])
    content = more.get("content", lambda k: {"FrameAcquisitionDateTime": "20240305111000+0100"})
    maps = lambda k: [value_map(unit, per_suv(k) / STEPS)]  # noqa: E731
    write_enhanced(folder, maps=maps, content=content, edit=edit, values=values)


def test_enhanced_objects(tmp_path: Path) -> None:
    enhanced(tmp_path / "7_0_0", at_start)
    enhanced(tmp_path / "7_2_0", lambda k: 1.0, "g/ml{SUVbw}")
    enhanced(tmp_path / "7_3_0", at_start, edit=assign_series_time)
    enhanced(
        tmp_path / "7_3_1",
        lambda k: left(3600.0 + 60.0 * k),
        content=lambda k: {"FrameReferenceDateTime": f"20240305{clock(3600.0 + 60.0 * k)}+0100"},
        edit=lambda ds: setattr(ds, "DecayCorrected", "NO"),
    )
    for folder in sorted(tmp_path.iterdir()):
        assert measured(folder) == pytest.approx((0.20, 1.00, 4.00), rel=2e-5), folder.name


def assign_series_time(ds: Dataset) -> None:
    ds.SeriesDate, ds.SeriesTime = "20240305", "140000"
