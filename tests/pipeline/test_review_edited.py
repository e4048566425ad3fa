"""Redrawn outlines: what OHIF, 3D Slicer and ITK-SNAP save comes back voxel by voxel, for the right finding or not."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pet_series import SERIES, around, write_series
from pydicom.uid import generate_uid
from rtstruct import contours_of, write_rtstruct

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.commands.review import export, import_decisions
from petground.pipeline.dicom.objects import Finding3D, read_source
from petground.pipeline.dicom.seg import build_seg
from petground.pipeline.edited import read_labels, record_of
from petground.pipeline.exports.select import select
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.pipeline.read import read_pet
from petground.pipeline.review.decisions import read_sheet, write_decisions
from petground.pipeline.review.load import load_case, open_work
from petground.pipeline.schemas import read_table, write_table

pytest.importorskip("highdicom")


def dicom_work(folder: Path, name: str = "head_first") -> tuple[Path, Volume, np.ndarray]:
    """WORK of one DICOM exam E17: f001 and f002 with labels that overlap, f003 without, f004 that is no lesion."""
    hot = write_series(folder / "E17", **SERIES[name])
    pet, work = read_pet(folder / "E17"), folder / "work"
    first = around(pet, hot)
    second = np.roll(first, 1, axis=0)
    write_nifti(work / "exams/E17/pet.nii.gz", pet)
    series = str(pydicom.dcmread(next((folder / "E17").glob("*.dcm"))).SeriesInstanceUID)
    source = {"source": "dicom", "folder": str(folder / "E17"), "pet_series_uid": series}
    (work / "exams/E17/source.json").write_text(json.dumps(source))
    told = {"f001": ("positive", None, "check"), "f002": ("positive", None, "check"),
            "f003": ("excluded", "ambiguous_match", "match"), "f004": ("excluded", "reference", "extract")}  # fmt: skip
    findings, labels = [], []
    for number, (finding_id, (status, reason, stage)) in enumerate(told.items()):
        sentence = f"Left axillary node {number}, SUVmax 9.1, slice 7."
        findings.append({
            "exam_id": "E17", "finding_id": finding_id, "sentence": sentence, "suv": 9.1, "slice": 7, "status": status,
            "prompt": f"Left axillary node {number}", "laterality": "left", "site": "axillary node", "reason": reason,
            "stage": stage, "suv_decimals": 1, "span_start": number, "span_end": number + 1,
        })  # fmt: skip
    for finding_id, mask in (("f001", first), ("f002", second)):
        i, j, k = (int(n) for n in np.argwhere(mask)[0])
        write_nifti(work / f"labels/E17/{finding_id}.nii.gz", pet.like(mask.astype(np.uint8), "label"))
        labels.append({
            "exam_id": "E17", "finding_id": finding_id, "sentence": findings[len(labels)]["sentence"],
            "suv_reported": 9.1, "slice_reported": 7, "suv_measured": 9.1, "slice_measured": 7, "voxel_i": i,
            "voxel_j": j, "voxel_k": k, "volume_ml": 1.0, "confidence": 0.4, "patient_id": "P1",
            "mask_path": f"labels/E17/{finding_id}.nii.gz", "prompt": f"Left axillary node {len(labels)}",
            "laterality": "left", "site": "axillary node", "method": "isodata", "threshold": 4.0, "warnings": "",
            "provenance": json.dumps({"petground": "0", "site": {}}),
        })  # fmt: skip
    exams = [{"exam_id": "E17", "status": "ok", "source": "dicom", "patient_id": "P1", "tracer": "FDG",
              "pet_path": "exams/E17/pet.nii.gz", "slices": pet.shape[2]},
             {"exam_id": "E18", "status": "failed", "reason": "no_pet", "detail": "none"}]  # fmt: skip
    tables = {"exams": exams, "findings": findings, "labels": labels, "candidates": []}
    for table, rows in tables.items():
        write_table(work / f"{table}.parquet", table, rows)
    return work, pet, first


def redrawn(mask: np.ndarray) -> np.ndarray:
    """Another outline at the same place, again without symmetry: one voxel less, three more."""
    drawn = mask.copy()
    i, j, k = np.argwhere(mask)[0]
    drawn[tuple(np.argwhere(mask)[-1])] = False
    drawn[i, j - 1, k] = drawn[i + 1, j - 1, k] = drawn[i, j, k - 1] = True
    return drawn


def foreign_seg(path: Path, pet: Volume, series: Path, masks: dict[str, np.ndarray], **more: Any) -> Path:
    """A SEG as another program makes one: labels of its own, no tracking, frames and sources in another order."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    source = read_source(series, pet, case="x")
    stacks = [np.ascontiguousarray(m.astype(np.uint8).transpose(2, 1, 0)[::-1]) for m in masks.values()]
    descriptions = [
        hd.seg.SegmentDescription(
            number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]  # fmt: skip
    seg = hd.seg.Segmentation(
        source_images=source.datasets[::-1], pixel_array=np.stack(stacks, axis=-1),
        **{"segmentation_type": hd.seg.SegmentationTypeValues.BINARY, **more}, segment_descriptions=descriptions,
        series_instance_uid=hd.UID(), series_number=9, sop_instance_uid=hd.UID(), instance_number=1,
        manufacturer="Other", manufacturer_model_name="Other", software_versions="1", device_serial_number="1",
        content_creator_name="Roe^Jo",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


def used(work: Path, number: int = 0) -> np.ndarray:
    """The mask that counts for a finding of E17, as pages, training and exports read it."""
    label = read_labels(work)[number]
    return read_nifti(work / label["mask_path"], "label").array > 0


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
    assert "not used while the newest decision rejects them: E17 f001" in capsys.readouterr().out
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
        import_decisions(work, tmp_path / "d.csv", reviewer="Roe")
    with pytest.raises(InputError, match="nothing at"):
        import_decisions(work, edited=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "page.html").write_text("<p>")
    with pytest.raises(InputError, match="no outlines"):
        import_decisions(work, edited=tmp_path / "empty")
