"""SUVbw through the reader: slopes by slice, frames not decay corrected, private factors, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import (
    SLICES,
    dose,
    stored,
    write,
)
from pydicom.dataset import Dataset

from petground.labeling.errors import SuvError
from petground.labeling.suv import SuvFallbacks
from petground.pipeline.read import read_exam, read_pet


def test_slopes_differ_by_slice(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.RescaleSlope = str(10.0 * (k + 1))

    write(tmp_path, edit=edit)
    expected = stored().transpose(2, 1, 0) * (10.0 * np.arange(1, SLICES + 1)) * 4e-4
    np.testing.assert_allclose(read_pet(tmp_path).array, expected, rtol=1e-6)


def test_decay_correction_none_differs_by_slice(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.DecayCorrection, ds.CorrectedImage = "NONE", ["ATTN"]
        ds.AcquisitionTime = f"{11 + k // 3:02d}0000"

    write(tmp_path, edit=edit)
    exam = read_exam(tmp_path, case="e")
    ratio = exam.pet.array / np.maximum(stored().transpose(2, 1, 0), 1e-9)
    assert ratio[1, 1, 5] / ratio[1, 1, 0] == pytest.approx(2.0, rel=1e-5)
    assert exam.suv_factor is None


@pytest.mark.parametrize(
    ("attribute", "value", "word"),
    [
        ("PatientWeight", None, "PatientWeight"),
        ("Units", "CPS", "CPS"),
        ("Units", "PROPCPS", "PROPCPS"),
        ("RescaleIntercept", "5", "RescaleIntercept"),
        ("RescaleSlope", "0", "RescaleSlope"),
        ("SeriesDate", "20240301", "SeriesTime"),
        ("RadiopharmaceuticalInformationSequence", None, "RadionuclideTotalDose"),
        ("RadiopharmaceuticalInformationSequence", [dose(), dose()], "has 2 items"),
    ],
)
def test_no_suv_is_never_raw_activity(tmp_path: Path, attribute: str, value: Any, word: str) -> None:
    def edit(ds: Dataset, k: int) -> None:
        if value is None:
            delattr(ds, attribute)
        else:
            setattr(ds, attribute, value)

    write(tmp_path, edit=edit)
    with pytest.raises(SuvError, match=word) as error:
        read_exam(tmp_path, case="e3")
    assert str(error.value).startswith("e3: ")
    assert error.value.fix


def test_philips_private_factor_with_and_without_creator(tmp_path: Path) -> None:
    def with_creator(ds: Dataset, k: int) -> None:
        ds.Units = "CNTS"
        block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0.0005")

    def bytes_only(ds: Dataset, k: int) -> None:
        ds.Units = "CNTS"
        ds.add_new(0x70531009, "UN", b"2.0 ")

    write(tmp_path / "a", edit=with_creator)
    assert read_pet(tmp_path / "a").array.max() == pytest.approx(1000 * 100 * 5e-4)
    write(tmp_path / "b", edit=bytes_only)
    assert read_pet(tmp_path / "b").array.max() == pytest.approx(80.0)


def test_private_blocks_belong_to_their_creators(tmp_path: Path) -> None:
    """Another's block at the usual place is not believed; Philips' own is found where it was moved to."""

    def moved(ds: Dataset, k: int) -> None:
        ds.Units = "CNTS"
        ds.private_block(0x7053, "SOMEBODY ELSE", create=True).add_new(0x00, "DS", "7.0")
        ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.0005")

    def foreign(ds: Dataset, k: int) -> None:
        ds.Units = "CNTS"
        ds.private_block(0x7053, "SOMEBODY ELSE", create=True).add_new(0x00, "DS", "7.0")

    write(tmp_path / "a", edit=moved)
    assert read_pet(tmp_path / "a").array.max() == pytest.approx(1000 * 100 * 5e-4)
    write(tmp_path / "b", edit=foreign)
    with pytest.raises(SuvError, match=r"\(7053,1000\) is None"):
        read_pet(tmp_path / "b")


def test_the_weight_of_the_sites_table_and_the_looked_up_half_life(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        del ds.PatientWeight
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "77004003", "SCT", "^18^Fluorine"
        item = ds.RadiopharmaceuticalInformationSequence[0]
        del item.RadionuclideHalfLife
        item.RadionuclideCodeSequence = [code]

    write(tmp_path, edit=edit)
    with pytest.raises(SuvError, match=r"PatientWeight \(0010,1030\) is missing.*--weights"):
        read_exam(tmp_path, case="e")
    with pytest.raises(SuvError, match=r"RadionuclideCodeSequence \(0054,0300\) says F-18"):
        read_exam(tmp_path, case="e", fallbacks=SuvFallbacks(weight_kg=40.0))
    exam = read_exam(tmp_path, case="e", fallbacks=SuvFallbacks(weight_kg=40.0, half_life_from_code=True))
    assert exam.pet.array.max() == pytest.approx(1000 * 100 * 1e-4 * 2 ** (3600 / 6586.2))
    assert exam.suv_rule == "BQML/START (half-life of F-18 by its code) (weight from the site's table)"
