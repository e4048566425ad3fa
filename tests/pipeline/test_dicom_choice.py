"""Which PET and which CT of a folder is taken, and why the others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_series import (
    COLUMNS,
    MARK,
    ROWS,
    SLICES,
    write,
)
from pydicom.dataset import Dataset

from petground.labeling.errors import GeometryError, InputError, SuvError
from petground.pipeline.read import read_ct, read_exam


def test_the_uncorrected_series_is_refused_by_name(tmp_path: Path) -> None:
    def nac(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.PatientWeight = "WB_NAC 3D", "1"

    def lacks(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.CorrectedImage = "recon 2", ["DECY"]

    write(tmp_path, edit=nac, name="n")
    write(tmp_path, edit=lacks, name="l")
    with pytest.raises(SuvError, match="no PET series can be used"):
        read_exam(tmp_path, case="e")
    write(tmp_path)
    exam = read_exam(tmp_path, case="e")
    assert exam.pet.array.max() == pytest.approx(40.0)
    assert exam.pet_series.startswith("'PET AC' (6 slices) chosen")
    assert "'WB_NAC 3D' (6 slices) refused: named 'NAC'" in exam.pet_series
    assert "'recon 2' (6 slices) refused: CorrectedImage (0028,0051) lacks ATTN" in exam.pet_series


def test_the_original_and_longest_series_is_chosen(tmp_path: Path) -> None:
    def derived(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.ImageType = "reformatted", ["DERIVED", "SECONDARY"]

    def bed(ds: Dataset, k: int) -> bool:
        ds.SeriesDescription, ds.NumberOfSlices = "one bed", 2
        ds.ImagePositionPatient = [-30.0, -20.0, 100.0 + 1.0 * k]
        return k < 2

    write(tmp_path, edit=bed, name="b")
    write(tmp_path, edit=derived, name="d")
    write(tmp_path)
    assert read_exam(tmp_path, case="e").pet_series.startswith("'PET AC'")


def test_two_studies_in_a_folder_are_not_chosen_between(tmp_path: Path) -> None:
    def prior(ds: Dataset, k: int) -> None:
        ds.StudyInstanceUID = "1.2.9"

    write(tmp_path / "a")
    write(tmp_path / "b", edit=prior)
    with pytest.raises(InputError, match="2 studies"):
        read_exam(tmp_path, case="e")


def test_ct_of_the_same_frame_of_reference_with_most_overlap(tmp_path: Path) -> None:
    def elsewhere(ds: Dataset, k: int) -> None:
        ds.FrameOfReferenceUID, ds.SeriesDescription = "1.2.99", "elsewhere"

    def short(ds: Dataset, k: int) -> bool:
        ds.SeriesDescription = "short"
        ds.ImagePositionPatient = [-30.0, -20.0, 100.0 + 30.0 * k]
        return k < 2

    def diagnostic(ds: Dataset, k: int) -> None:
        ds.SeriesDescription = "CT"
        ds.PixelData = np.full((ROWS, COLUMNS), 1040 if k == MARK[2] else 0, np.uint16).tobytes()
        ds.RescaleIntercept = "-1000" if k else "-2000"  # outside the field of view

    write(tmp_path)
    write(tmp_path, "CT", edit=elsewhere, name="x")
    assert read_exam(tmp_path, case="e").ct is None
    assert read_ct(tmp_path) is None
    write(tmp_path, "CT", edit=diagnostic, name="c")
    write(tmp_path, "CT", edit=short, name="s")
    exam = read_exam(tmp_path, case="e")
    assert exam.ct is not None
    assert exam.ct_series.startswith("'CT' (6 slices) chosen")
    assert exam.ct.unit == "HU"
    assert exam.ct.array.dtype == np.int16
    assert exam.ct.array[0, 0].tolist() == [-1024, -1000, -1000, -1000, 40, -1000]


def test_an_irregular_ct_does_not_cost_the_exam(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "CT", edit=lambda ds, k: k != 3)
    exam = read_exam(tmp_path, case="e")
    assert exam.ct is None
    assert "missing" in exam.ct_series


def test_no_pet_and_missing_folder(tmp_path: Path) -> None:
    write(tmp_path, "CT")
    with pytest.raises(InputError, match="no PET") as error:
        read_exam(tmp_path, case="e4")
    assert error.value.reason == "no_pet"
    ct = read_ct(tmp_path)
    assert ct is not None
    assert ct.shape == (COLUMNS, ROWS, SLICES)
    with pytest.raises(InputError, match="does not exist"):
        read_exam(tmp_path / "none", case="e4")


@pytest.mark.parametrize("kind", ["DYNAMIC", "GATED"])
def test_a_static_series_is_taken_beside_a_gated_or_dynamic_one(tmp_path: Path, kind: str) -> None:
    def gate(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.SeriesType, ds.SeriesNumber = f"{kind.lower()} PET", [kind, "IMAGE"], 1

    uid = write(tmp_path, edit=gate, name="g1")
    write(tmp_path, edit=gate, name="g2", uid=uid)
    with pytest.raises(GeometryError, match=rf"6 of 12 slices lie where another lies.*\(0054,1000\) {kind}"):
        read_exam(tmp_path, case="e")
    write(tmp_path)
    exam = read_exam(tmp_path, case="e")
    assert exam.pet_series.startswith("'PET AC' (6 slices) chosen")
    assert f"'{kind.lower()} PET' (12 slices) refused: 6 of 12 slices" in exam.pet_series


def test_a_gap_in_the_main_series_is_no_reason_to_take_another(tmp_path: Path) -> None:
    """The report's slice numbers mean the main series: a short one beside it must not stand in silently."""

    def gap(ds: Dataset, k: int) -> bool:
        ds.SeriesDescription = "whole body"
        return k != 2

    def short(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.ImageType = "head", ["DERIVED", "SECONDARY"]

    write(tmp_path, edit=gap, name="w")
    write(tmp_path, edit=short, name="h")
    with pytest.raises(GeometryError, match="1 slices missing"):
        read_exam(tmp_path, case="e")


def test_projections_are_no_volume(tmp_path: Path) -> None:
    def mip(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.ImageType = "MIP", ["DERIVED", "SECONDARY", "MIP"]

    def reprojection(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.SeriesType = "turning", ["WHOLE BODY", "REPROJECTION"]

    write(tmp_path, edit=mip, name="m")
    write(tmp_path, edit=reprojection, name="r")
    with pytest.raises(GeometryError, match=r"'turning'.*a projection"):
        read_exam(tmp_path, case="e")


@pytest.mark.parametrize(
    ("attribute", "value", "word"),
    [("SeriesTime", "104500", "series_datetime"), ("PatientSize", "1.8", "height_m"), ("Manufacturer", "x", "manufac")],
)
def test_slices_that_tell_different_stories_are_refused(tmp_path: Path, attribute: str, value: str, word: str) -> None:
    write(tmp_path, edit=lambda ds, k: setattr(ds, attribute, value) if k == 3 else None)
    with pytest.raises(SuvError, match=f"slices differ in {word}"):
        read_exam(tmp_path, case="e")
