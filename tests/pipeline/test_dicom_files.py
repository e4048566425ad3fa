"""Files as they come: compressed, signed, damaged, strange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_series import (
    COLUMNS,
    ROWS,
    SLICES,
    write,
)
from pydicom.dataset import Dataset

from petground.labeling.errors import GeometryError, InputError
from petground.pipeline.read import read_exam, read_pet


def test_signed_pixels(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.PixelRepresentation = 1
        values = np.full((ROWS, COLUMNS), -2, np.int16)
        values[0, 0] = 3
        ds.PixelData = values.tobytes()

    write(tmp_path, edit=edit)
    pet = read_pet(tmp_path).array
    assert (pet.min(), pet.max()) == (pytest.approx(-0.08), pytest.approx(0.12))


def test_one_file_alone(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.NumberOfSlices = 1

    write(tmp_path, edit=edit)
    pet = read_pet(next(tmp_path.glob("*.dcm")))
    assert pet.shape == (COLUMNS, ROWS, 1)
    assert pet.spacing_ijk_mm == pytest.approx((4, 5, 3))


def test_a_damaged_file_is_named_not_left_out(tmp_path: Path) -> None:
    write(tmp_path)
    file = sorted(tmp_path.glob("*.dcm"))[2]
    whole = file.read_bytes()
    for length in (0, 60, 200, len(whole) // 2, len(whole) - 7):
        file.write_bytes(whole[:length])
        with pytest.raises((InputError, GeometryError), match=r"PT2\.dcm"):
            read_exam(tmp_path, case="e5")
    file.write_bytes(b"x" * 4000)
    with pytest.raises(InputError, match=r"PT2\.dcm") as error:
        read_exam(tmp_path, case="e5")
    assert error.value.reason == "unreadable"
    file.write_bytes(whole)
    assert read_exam(tmp_path, case="e5").pet.shape[2] == SLICES


def test_files_of_the_file_system_and_captures_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "._PT1.dcm").write_bytes(b"resource fork")
    (tmp_path / "DICOMDIR").write_bytes(b"index")

    def capture(ds: Dataset, k: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        del ds.ImagePositionPatient

    write(tmp_path, edit=capture, name="sc")
    assert read_exam(tmp_path, case="e").pet_series == "'PET AC' (6 slices) chosen"


def test_an_image_without_a_place_spoils_its_series_only(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.SeriesDescription = "placeless"
        if k == 3:
            del ds.ImagePositionPatient

    write(tmp_path, edit=edit, name="p")
    with pytest.raises(GeometryError, match="ImagePositionPatient"):
        read_exam(tmp_path, case="e")
    write(tmp_path)
    assert "ImagePositionPatient is missing" in read_exam(tmp_path, case="e").pet_series
