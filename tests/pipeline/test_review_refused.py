"""Redrawn outlines that cannot be right: refused with case and way out, or taken where nothing else is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from redrawn_work import dicom_work, foreign_seg, redrawn, used
from rtstruct import contours_of, write_rtstruct

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.commands.review import import_decisions
from petground.pipeline.nifti import read_nifti
from petground.pipeline.schemas import read_table, write_table

pytest.importorskip("highdicom")


def on_ct(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    fine = np.diag([0.5, 0.5, 1.0, 1.0])
    nib.save(
        nib.Nifti1Image(np.kron(drawn, np.ones((2, 2, 1))).astype(np.uint8), pet.affine @ fine),
        back / "E17_f001.nii.gz",
    )


def shifted(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    affine = pet.affine.copy()
    affine[2, 3] += 1.6
    nib.save(nib.Nifti1Image(drawn.astype(np.uint8), affine), back / "E17_f001.nii.gz")


def beyond(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    affine = pet.affine.copy()
    affine[:3, 3] += affine[:3, 2] * 8
    nib.save(nib.Nifti1Image(drawn.astype(np.uint8), affine), back / "E17_f001.nii.gz")


def other_frame(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    (back / "E17").mkdir()
    write_rtstruct(back / "E17/rt.dcm", {"f001": contours_of(drawn, pet)}, frame=generate_uid())


def other_exam(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    foreign_seg(back / "E18/s.dcm", pet, folder / "E17", {"f001": drawn})


def unknown_exam(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(drawn.astype(np.uint8), pet.affine), back / "E99_f001.nii.gz")


def two_for_one(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    for name in ("E17_f001", "E17-f001"):
        nib.save(nib.Nifti1Image(drawn.astype(np.uint8), pet.affine), back / f"{name}.nii.gz")


def no_name(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    foreign_seg(back / "s.dcm", pet, folder / "E17", {"Segment_1": drawn})


def no_table(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    values = drawn.astype(np.uint8)
    values[tuple(np.argwhere(drawn)[0])] = 2
    nib.save(nib.Nifti1Image(values, pet.affine), back / "E17.nii.gz")


def empty(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(np.zeros(pet.shape, np.uint8), pet.affine), back / "E17_f001.nii.gz")


def no_contours(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    (back / "E17").mkdir()
    write_rtstruct(back / "E17/rt.dcm", {"f001": [np.zeros((1, 3)) + pet.to_world_mm([5, 5, 5]) * [-1, -1, 1]]},
                   frame=pet.frame_of_reference)  # fmt: skip


def ruled_out(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    foreign_seg(back / "s.dcm", pet, folder / "E17", {"f004": drawn})


def no_such(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    foreign_seg(back / "s.dcm", pet, folder / "E17", {"f009": drawn})


def nrrd(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    (back / "E17.seg.nrrd").write_bytes(b"NRRD0004\n")


def damaged(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    whole = foreign_seg(back / "s.dcm", pet, folder / "E17", {"f001": drawn}).read_bytes()
    (back / "s.dcm").write_bytes(whole[:700])


def soft(back: Path, pet: Volume, folder: Path, drawn: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(drawn * np.float32(0.4), pet.affine), back / "E17_f001.nii.gz")


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (on_ct, "E17: its voxels are not those of the PET"),
        (shifted, "E17: its voxels are not those of the PET"),
        (beyond, "E17: it reaches beyond the PET"),
        (other_frame, "another frame of reference"),
        (other_exam, "named for E18 and drawn on the PET of E17"),
        (unknown_exam, "is named for no exam of WORK"),
        (two_for_one, "2 outlines for f001"),
        (no_name, "outline 1 names no finding of E17 (name it by the finding's id, such as f001)"),
        (no_table, "outline 1 names no finding of E17"),
        (empty, "holds no outline"),
        (no_contours, "E17/f001: its outline is empty"),
        (ruled_out, "the report tells of no current lesion in f004"),
        (no_such, "E17 has no finding f009"),
        (nrrd, "save it as DICOM SEG or NIfTI"),
        (damaged, "not readable as DICOM"),
        (soft, "not whole numbers"),
    ],
)
def test_what_cannot_be_right_is_refused_with_case_and_way_out(
    save: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, pet, first = dicom_work(tmp_path)
    (tmp_path / "back").mkdir()
    save(tmp_path / "back", pet, tmp_path, redrawn(first))
    assert import_decisions(work, edited=tmp_path / "back") == 3
    told = capsys.readouterr().out
    assert said in told
    assert "0 outlines taken" in told
    assert not (work / "edited").exists()
    assert np.array_equal(used(work), first)


def test_seg_of_fractions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, pet, first = dicom_work(tmp_path)
    path = foreign_seg(tmp_path / "s.dcm", pet, tmp_path / "E17", {"f001": first}, segmentation_type="FRACTIONAL",
                       max_fractional_value=200)  # fmt: skip
    assert import_decisions(work, edited=path) == 0, "fractions of 0 and 1 are an outline"
    ds = pydicom.dcmread(path)
    ds.PixelData = ds.PixelData.replace(b"\xc8", b"\x32")
    ds.save_as(path)
    assert import_decisions(work, edited=path) == 3
    assert "holds fractions, not an outline" in capsys.readouterr().out


def test_the_only_finding_of_an_exam_needs_no_name(work: Path, tmp_path: Path) -> None:
    pet = read_nifti(work / "exams/e1/pet.nii.gz", "SUVbw")
    rows = [r for r in read_table(work / "findings.parquet", "findings") if r["finding_id"] != "f002"]
    write_table(work / "findings.parquet", "findings", rows)
    drawn = np.zeros(pet.shape, np.uint8)
    drawn[26:29, 19:21, 17] = 1
    nib.save(nib.Nifti1Image(drawn, pet.affine), tmp_path / "e1.nii.gz")
    assert import_decisions(work, edited=tmp_path / "e1.nii.gz") == 0
    assert np.array_equal(used(work), drawn > 0)


def test_nothing_to_import_is_said(work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to import"):
        import_decisions(work)
    with pytest.raises(ConfigError, match="--reviewer"):
        import_decisions(work, [tmp_path / "d.csv"], reviewer="Roe")
    with pytest.raises(InputError, match="nothing at"):
        import_decisions(work, edited=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "page.html").write_text("<p>")
    with pytest.raises(InputError, match="no outlines"):
        import_decisions(work, edited=tmp_path / "empty")
