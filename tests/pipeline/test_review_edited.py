"""Redrawn outlines: what OHIF, 3D Slicer and ITK-SNAP save comes back voxel by voxel and counts everywhere."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pet_series import SERIES
from redrawn_work import dicom_work, foreign_seg, redrawn, used
from rtstruct import contours_of, write_rtstruct

from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.commands.review import export, import_decisions
from petground.pipeline.dicom.objects import Finding3D, read_source
from petground.pipeline.dicom.seg import build_seg
from petground.pipeline.edited import read_labels, record_of
from petground.pipeline.exports.select import select
from petground.pipeline.nifti import read_nifti
from petground.pipeline.review.decisions import read_sheet, write_decisions
from petground.pipeline.review.load import load_case, open_work
from petground.pipeline.schemas import read_table, write_table

pytest.importorskip("highdicom")


@pytest.mark.parametrize("name", SERIES)
def test_our_own_seg_comes_back_unchanged_and_edited_voxel_by_voxel(name: str, tmp_path: Path) -> None:
    work, pet, first = dicom_work(tmp_path, name)
    assert export(work, tmp_path / "pack", reviewer=None) == 0
    assert import_decisions(work, edited=tmp_path / "pack") == 0
    assert not (work / "edited").exists(), "nothing was edited"
    drawn = redrawn(first)
    source = read_source(tmp_path / "E17", pet, case="E17")
    findings = [
        Finding3D("f001", "a name of its own", pet.like(drawn.astype(np.uint8), "label"), 1.0, 1.0),
        Finding3D("f002", "as it was", pet.like(used(work, 1).astype(np.uint8), "label"), 1.0, 1.0),
    ]
    (tmp_path / "back").mkdir()
    build_seg(source, findings, case="E17").save_as(tmp_path / "back" / "any.dcm")
    assert import_decisions(work, edited=tmp_path / "back") == 0
    assert [p.name for p in sorted((work / "edited/E17").iterdir())] == ["f001.json", "f001.nii.gz"]
    assert np.array_equal(used(work), drawn)
    assert export(work, tmp_path / "again") == 0
    seg = pydicom.dcmread(tmp_path / "again/E17/seg.dcm")
    assert [s.SegmentAlgorithmType for s in seg.SegmentSequence] == ["MANUAL", "AUTOMATIC"]
    assert import_decisions(work, edited=tmp_path / "again") == 0
    assert read_nifti(work / "edited/E17/f001.nii.gz", "label").array.sum() == drawn.sum()


def save_seg(place: Path, work: Path, pet: Volume, drawn: np.ndarray) -> None:
    foreign_seg(place / "ohif.dcm", pet, work.parent / "E17", {"Left node (f001)": drawn})


def save_labelmap_seg(place: Path, work: Path, pet: Volume, drawn: np.ndarray) -> None:
    foreign_seg(place / "s.dcm", pet, work.parent / "E17", {"x": np.roll(drawn, 5, 1), "f001": drawn},
                segmentation_type="LABELMAP")  # fmt: skip


def save_rtstruct(place: Path, work: Path, pet: Volume, drawn: np.ndarray) -> None:
    series = json.loads((work / "exams/E17/source.json").read_text())["pet_series_uid"]
    place.mkdir(exist_ok=True)
    write_rtstruct(
        place / "rt.dcm", {"f001 node": contours_of(drawn, pet)}, series=series, frame=pet.frame_of_reference
    )


def save_slicer(place: Path, work: Path, pet: Volume, drawn: np.ndarray) -> None:
    """Cut down to what is drawn, axes turned to LPS order, 16 bit, as 3D Slicer's export may write it."""
    low, high = np.argwhere(drawn).min(axis=0), np.argwhere(drawn).max(axis=0) + 1
    affine = pet.affine.copy()
    affine[:3, 3] = pet.to_world_mm(low)
    cut = nib.Nifti1Image(drawn[tuple(map(slice, low, high))].astype(np.int16), affine)
    turned = nib.as_closest_canonical(cut) if affine[0, 0] < 0 else cut.as_reoriented([[2, -1], [0, 1], [1, 1]])
    place.mkdir(exist_ok=True)
    nib.save(turned, place / "E17_f001.nii.gz")


def save_snap(place: Path, work: Path, pet: Volume, drawn: np.ndarray) -> None:
    """A label map of two findings with ITK-SNAP's label descriptions beside it."""
    values = drawn.astype(np.uint16) * 2
    values[used(work, 1) & ~drawn] = 5
    (place / "E17").mkdir(parents=True)
    nib.save(nib.Nifti1Image(values, pet.affine), place / "E17" / "Segmentation.nii")
    (place / "E17" / "Segmentation.txt").write_text(
        '# ITK-SnAP Label Description File\n    0     0    0    0        0  0  0    "Clear Label"\n'
        '    2   255    0    0        1  1  1    "left, f001"\n    5     0  255    0        1  1  1    "f002"\n'
    )


@pytest.mark.parametrize("name", ["head_first", "feet_first", "negated_columns", "turned", "oblique"])
@pytest.mark.parametrize("save", [save_seg, save_labelmap_seg, save_rtstruct, save_slicer, save_snap])
def test_what_another_program_saves_is_the_outline_that_was_drawn(name: str, save: Any, tmp_path: Path) -> None:
    work, pet, first = dicom_work(tmp_path, name)
    drawn = redrawn(first)
    save(tmp_path / "back", work, pet, drawn)
    code = import_decisions(work, edited=tmp_path / "back")
    assert code == (3 if save is save_labelmap_seg else 0), "a segment that names no finding is refused, the rest taken"
    assert np.array_equal(used(work), drawn)
    record = record_of(work / "edited/E17/f001.nii.gz")
    assert record is not None
    assert record.creator == (None if save in (save_slicer, save_snap) else "Roe^Jo")
    assert record.suv_measured == pytest.approx(float(pet.array[drawn].max()))
    assert drawn[record.voxel_ijk]
    assert record.volume_ml == pytest.approx(drawn.sum() * pet.voxel_ml)


def test_the_redrawn_outline_counts_everywhere(tmp_path: Path) -> None:
    from petground.training.references import from_labels
    from petground.training.work import read_exams

    work, pet, first = dicom_work(tmp_path)
    drawn = redrawn(first)
    save_seg(tmp_path / "back", work, pet, drawn)
    import_decisions(work, edited=tmp_path / "back")
    row = read_labels(work)[0]
    assert (row["mask_path"], row["method"], row["confidence"]) == ("edited/E17/f001.nii.gz", "drawn", 1.0)
    assert row["volume_ml"] == pytest.approx(drawn.sum() * pet.voxel_ml)
    told = json.loads(row["provenance"])
    assert (told["petground"], told["edited"]["kind"], len(told["edited"]["source_sha256"])) == ("0", "DICOM SEG", 64)
    assert "ohif" not in json.dumps(told), "file names may hold names of patients"
    (exam,) = read_exams(work)
    assert [e.mask_path for e in exam.examples] == ["edited/E17/f001.nii.gz", "labels/E17/f002.nii.gz"]
    (lesion, _) = from_labels(work)
    assert lesion.mask_path == work / "edited/E17/f001.nii.gz"
    assert lesion.volume_ml == row["volume_ml"]
    chosen = select(work, min_confidence=0.9)
    assert [(x.finding_id, x.edited) for x in chosen.exams["E17"].lesions] == [("f001", True)]
    case = load_case(open_work(work), read_table(work / "exams.parquet", "exams")[0], Site())
    assert case.items[0].mask is not None
    assert np.array_equal(case.items[0].mask.array > 0, drawn)
    assert read_table(work / "labels.parquet", "labels")[0]["mask_path"] == "labels/E17/f001.nii.gz", (
        "the grown one stays"
    )
    (work / "edited/E17/f001.nii.gz").unlink()
    assert np.array_equal(used(work), first), "to undo it, it is deleted"


def test_the_page_says_that_a_person_drew_it(tmp_path: Path) -> None:
    work, pet, first = dicom_work(tmp_path)
    save_seg(tmp_path / "back", work, pet, redrawn(first))
    import_decisions(work, edited=tmp_path / "back", reviewer="Doe, Ann")
    export(work, tmp_path / "pack")
    page = (tmp_path / "pack/E17.html").read_text(encoding="utf-8")
    assert page.count("A person drew this outline (Doe, Ann); it was taken in on 20") == 1
    assert 'aria-label="confidence –"' in page
    index = (tmp_path / "pack/index.html").read_text(encoding="utf-8")
    assert "--edited FOLDER" in index
    assert "labels with a warning 0" in index


def test_a_finding_without_a_label_gets_the_one_that_was_drawn(tmp_path: Path) -> None:
    work, pet, first = dicom_work(tmp_path)
    foreign_seg(tmp_path / "back/s.dcm", pet, tmp_path / "E17", {"f003": redrawn(first)})
    assert import_decisions(work, edited=tmp_path / "back") == 0
    labels = read_labels(work)
    assert [row["finding_id"] for row in labels] == ["f001", "f002", "f003"]
    assert (labels[2]["prompt"], labels[2]["patient_id"], labels[2]["suv_reported"]) == (
        "Left axillary node 2",
        "P1",
        9.1,
    )
    chosen = select(work)
    assert chosen.fates["E17", "f003"] == "exported"
    assert chosen.exams["E17"].untold == 0
    assert next(r for r in chosen.findings if r["finding_id"] == "f003")["status"] == "positive"
    assert export(work, tmp_path / "pack") == 0
    assert 'data-finding="f003"' in (tmp_path / "pack/E17.html").read_text(encoding="utf-8")


def test_who_redrew_an_outline_has_accepted_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, pet, first = dicom_work(tmp_path)
    wrong = {"exam_id": "E17", "finding_id": "f001", "decision": "wrong_lesion", "reason": "", "reviewer": "Roe",
             "time": "2026-01-02T10:00:00Z", "version": "0", "label_hash": "abc"}  # fmt: skip
    write_decisions(work / "decisions.csv", [wrong])
    save_seg(tmp_path / "back", work, pet, redrawn(first))
    assert import_decisions(work, edited=tmp_path / "back") == 0
    assert "not used while the newest decision keeps them out: E17 f001" in capsys.readouterr().out
    assert select(work).fates["E17", "f001"] == "wrong_lesion"
    (work / "edited/E17/f001.nii.gz").unlink()
    assert import_decisions(work, edited=tmp_path / "back", reviewer="Roe, Jo") == 0
    assert [(r["decision"], r["reviewer"]) for r in read_sheet(work / "decisions.csv")] == [
        ("wrong_lesion", "Roe"), ("accept", "Roe, Jo")
    ]  # fmt: skip
    assert select(work).fates["E17", "f001"] == "exported"
    assert import_decisions(work, edited=tmp_path / "back", reviewer="Roe, Jo") == 0
    assert len(read_sheet(work / "decisions.csv")) == 2, "a second time changes nothing"


def test_an_outline_does_not_slip_under_another_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work, pet, first = dicom_work(tmp_path)
    save_seg(tmp_path / "back", work, pet, redrawn(first))
    import_decisions(work, edited=tmp_path / "back")
    rows = read_table(work / "findings.parquet", "findings")
    rows[0]["sentence"] = "Right hilar node, SUVmax 9.1, slice 7."
    write_table(work / "findings.parquet", "findings", rows)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(used(work), first)
    assert "1 outlines" in caplog.text
    assert "hilar" not in caplog.text
