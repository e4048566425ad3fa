"""`petground ground` on DICOM by its command line: SEG and SR lie where the masks do; no SUV, no answer."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pet_series import SERIES, write_series

from petground.labeling.numbering import slice_number
from petground.labeling.site import Site
from petground.pipeline.cli import FAILED_CASES, FAILURE, OK, main
from petground.pipeline.dicom.seg import tracking_uid
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.pipeline.read import read_pet
from petground.training.grid import GridSpec
from petground.training.inference import Prediction

hd = pytest.importorskip("highdicom")
TEXT = "Hypermetabolic left axillary node, SUVmax 5.8, axial slice 7."


class HotModule:
    """Marks what is above half of the image's maximum, but nothing for a sentence with "none" in it."""

    threshold = 0.5
    grid = GridSpec(spacing_xyz_mm=(3.0, 3.0, 3.0), shape_zyx=(24, 32, 32))

    def predict(self, image: np.ndarray, sentences: list[str]) -> Prediction:
        hot = (image[0] > 0.5 * image[0].max()).astype(np.float32)
        return Prediction(np.stack([0.9 * hot * ("none" not in one) for one in sentences]), None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`run("--text", ...)` on tmp_path/exam with a stand-in for the network, to tmp_path/out."""
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: HotModule())
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")

    def call(*more: str) -> int:
        place = ["--exam", str(tmp_path / "exam"), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]
        return main(["ground", *place, *more])

    return call


def _places(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points, 1).T)]


@pytest.mark.parametrize("name", SERIES)
def test_seg_and_sr_tell_of_the_mask_that_was_found(name: str, run: Callable[..., int], tmp_path: Path) -> None:
    hot = write_series(tmp_path / "exam", **SERIES[name])
    assert run("--text", TEXT) == OK
    out = tmp_path / "out"
    pet, mask = read_pet(tmp_path / "exam"), read_nifti(out / "f001.nii.gz", "label")
    ours = _places(mask.to_world_mm(np.argwhere(mask.array > 0)) * [-1, -1, 1])
    assert np.linalg.norm(ours - hot, axis=1).min() < 0.1, "the hot voxel is in the mask"

    seg = hd.seg.segread(out / "seg.dcm")
    volume = seg.get_volume(segment_numbers=[1], combine_segments=True, relabel=True)
    theirs = _places(volume.map_indices_to_reference(np.argwhere(volume.array > 0)))
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() < (0.1 if name != "bed_seams" else 0.6)

    described = seg.SegmentSequence[0]
    assert described.SegmentLabel == "Left axillary node (f001)"
    assert described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning == "Left"
    algorithm = described.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert algorithm.AlgorithmName.startswith("petground best.ckpt ")
    series = pydicom.dcmread(next((tmp_path / "exam").glob("*.dcm"))).SeriesInstanceUID
    assert described.TrackingUID != tracking_uid(series, "f001"), "not the weak label of that number"

    (row,) = json.loads((out / "findings.json").read_text())["findings"]
    report = hd.sr.srread(out / "sr.dcm")
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    assert values["SUVbw"] == (pytest.approx(row["suv_measured"], abs=1e-3), "{SUVbw}g/ml")
    assert values["SUVbw"][0] == pytest.approx(float(pet.array.max()), rel=1e-3)
    assert values["Volume"][0] == pytest.approx(row["volume_ml"], abs=1e-3)
    assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    k = int(np.rint(pet.to_index(hot * [-1, -1, 1]))[2])
    assert row["slice_measured"] == slice_number(k, pet, Site())
    assert (out / "rwvm.dcm").is_file()


def _body(ds: Any) -> None:
    """Air outside of 30 mm to each side of x = 4 mm (LPS), where no row or column of the grid runs."""
    place, cosines = np.array(ds.ImagePositionPatient, float), np.array(ds.ImageOrientationPatient, float)
    spacing = np.array(ds.PixelSpacing, float)
    row, column = np.meshgrid(np.arange(ds.Rows), np.arange(ds.Columns), indexing="ij")
    x = place[0] + column * spacing[1] * cosines[0] + row * spacing[0] * cosines[3]
    ds.PixelData = np.where(np.abs(x - 4) < 30, np.maximum(ds.pixel_array, 2000), 0).astype(np.uint16).tobytes()


@pytest.mark.parametrize("name", ["head_first", "feet_first", "prone", "turned"])
def test_a_side_that_the_image_contradicts_is_in_no_object(
    name: str, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hot voxel lies some 19 mm left of the midline, whatever the sentence says and however the series runs."""
    hot = write_series(tmp_path / "exam", **SERIES[name])
    _each(tmp_path / "exam", _body)
    for said, side in (("right", None), ("left", "Left")):
        assert run("--text", f"Hypermetabolic {said} axillary node, SUVmax 5.8, axial slice 7.") == OK
        (row,) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
        assert (row["side_measured"], row["side_reported"]) == ("left", said)
        assert row["right_of_midline_mm"] == pytest.approx(4 - hot[0], abs=3)
        segment = hd.seg.segread(tmp_path / "out" / "seg.dcm").SegmentSequence[0]
        region = segment.AnatomicRegionSequence[0]
        modifiers = region.get("AnatomicRegionModifierSequence", [])
        assert [one.CodeMeaning for one in modifiers] == ([] if side is None else [side])
        (group,) = hd.sr.srread(tmp_path / "out" / "sr.dcm").content.get_volumetric_roi_measurement_groups()
        (place,) = group.finding_sites
        assert place.value.meaning == region.CodeMeaning
        assert (None if place.laterality is None else place.laterality.meaning) == side
        printed = " ".join(capsys.readouterr().out.split())
        if side is None:
            assert segment.SegmentLabel == "Axillary node, not right as said (f001)"
            assert "mm left of the midline" in row["problem"]
            assert f"f001: {row['problem']}." in printed
            assert "was not asked" not in printed
        else:
            assert segment.SegmentLabel == "Left axillary node (f001)"
            assert row["problem"] is None


@pytest.mark.parametrize(
    "text",
    [
        "Hypermetabolic left axillary node, SUVmax 21.3, axial slice 7.",
        "Hypermetabolic left axillary node, SUVmax 5.8, axial slice 1.",
        "No avid left axillary nodes.",
    ],
)
def test_a_mask_that_its_sentence_refutes_has_neither_side_nor_site_in_the_objects(
    text: str, run: Callable[..., int], tmp_path: Path
) -> None:
    write_series(tmp_path / "exam", **SERIES["head_first"])
    assert run("--text", text) == OK
    segment = hd.seg.segread(tmp_path / "out" / "seg.dcm").SegmentSequence[0]
    assert segment.SegmentLabel.startswith("Not as reported: Left axillary node")
    assert "AnatomicRegionSequence" not in segment
    (group,) = hd.sr.srread(tmp_path / "out" / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert group.finding_sites == []


@pytest.mark.parametrize("text", ["FDG avid {} axillary node.", "The {} axillary node has an SUVmax of 5.8."])
def test_objects_name_side_and_site_of_a_sentence_without_slice(
    text: str, run: Callable[..., int], tmp_path: Path
) -> None:
    write_series(tmp_path / "exam", **SERIES["head_first"])
    _each(tmp_path / "exam", _body)
    labels = {"left": "Left axillary node (f001)", "right": "Axillary node, not right as said (f001)"}
    for said, label in labels.items():
        assert run("--text", text.format(said)) == OK
        segment = hd.seg.segread(tmp_path / "out" / "seg.dcm").SegmentSequence[0]
        assert segment.SegmentLabel == label
        (group,) = hd.sr.srread(tmp_path / "out" / "sr.dcm").content.get_volumetric_roi_measurement_groups()
        (place,) = group.finding_sites
        assert (place.laterality is not None) == (said == "left")


def test_objects_say_who_made_them_and_carry_no_report_text(run: Callable[..., int], tmp_path: Path) -> None:
    write_series(tmp_path / "exam", **SERIES["head_first"])
    assert run("--text", "Peculiar words about the left axillary node, SUVmax 5.8, axial slice 7.") == OK
    out = tmp_path / "out"
    told = json.loads((out / "findings.json").read_text())
    assert told["checkpoint"] == "best.ckpt"
    assert len(told["sha256"]) == 64
    assert told["dicom"] == {"files": ["rwvm.dcm", "seg.dcm", "sr.dcm"], "problem": None}
    assert not any(b"eculiar" in (out / name).read_bytes() for name in told["dicom"]["files"])
    if shutil.which("dciodvfy") is not None:
        for name in told["dicom"]["files"]:
            said = subprocess.run(["dciodvfy", str(out / name)], capture_output=True, text=True, check=False).stderr
            # the small series itself lacks what a scanner writes about the patient
            assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_what_is_not_there_is_in_no_object_and_old_objects_go(run: Callable[..., int], tmp_path: Path) -> None:
    write_series(tmp_path / "exam", **SERIES["head_first"])
    assert run("--text", TEXT) == OK
    assert (tmp_path / "out" / "seg.dcm").is_file()
    assert run("--text", "There is none at the left axilla, SUVmax 5.8, axial slice 7.") == OK
    assert not list((tmp_path / "out").glob("*.dcm"))
    assert json.loads((tmp_path / "out" / "findings.json").read_text())["dicom"]["files"] == []
    pet = read_pet(tmp_path / "exam")
    shutil.rmtree(tmp_path / "exam")
    write_nifti(tmp_path / "exam" / "pet.nii.gz", pet)
    assert run("--text", TEXT) == OK
    assert not list((tmp_path / "out").glob("*.dcm")), "a NIfTI exam has no series to refer to"


def _each(folder: Path, change: Callable[[Any], Any]) -> None:
    for path in folder.glob("*.dcm"):
        ds = pydicom.dcmread(path)
        change(ds)
        ds.save_as(path)


def _dose(ds: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(ds.RadiopharmaceuticalInformationSequence[0], name, value)


BROKEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "counts": (lambda ds: setattr(ds, "Units", "CNTS"), "CNTS"),
    "no_weight": (lambda ds: delattr(ds, "PatientWeight"), "PatientWeight"),
    "no_attenuation": (lambda ds: setattr(ds, "CorrectedImage", ["DECY"]), "ATTN"),
    "no_decay": (lambda ds: setattr(ds, "CorrectedImage", ["ATTN"]), "DECY"),
    "no_dose": (lambda ds: _dose(ds, RadionuclideTotalDose=None), "RadionuclideTotalDose"),
    "no_half_life": (lambda ds: _dose(ds, RadionuclideHalfLife=None), "RadionuclideHalfLife"),
    "injected_later": (lambda ds: _dose(ds, RadiopharmaceuticalStartTime="110000"), "njection"),
    "lean_body_mass": (lambda ds: (setattr(ds, "Units", "GML"), setattr(ds, "SUVType", "LBM")), "LBM"),
    "intercept": (lambda ds: setattr(ds, "RescaleIntercept", "5"), "RescaleIntercept"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_pet_that_is_no_suv_is_refused_by_name(
    name: str, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, said = BROKEN[name]
    write_series(tmp_path / "exam", **SERIES["head_first"])
    _each(tmp_path / "exam", change)
    assert run("--text", TEXT) == FAILURE
    told = " ".join(capsys.readouterr().err.split())
    assert "exam" in told
    assert said in told
    assert not (tmp_path / "out").exists(), "nothing is written of a PET that is not understood"


def test_a_weight_that_the_user_gives_serves(run: Callable[..., int], tmp_path: Path) -> None:
    write_series(tmp_path / "exam", **SERIES["head_first"])
    whole = float(read_pet(tmp_path / "exam").array.max())
    _each(tmp_path / "exam", lambda ds: delattr(ds, "PatientWeight"))
    assert run("--text", TEXT, "--weight-kg", "35") == OK
    (row,) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert row["suv_measured"] == pytest.approx(whole / 2, rel=1e-3), "70 kg in the header before"
    (group,) = hd.sr.srread(tmp_path / "out" / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert float(group.get_measurements()[0].value) == pytest.approx(whole / 2, rel=1e-3)


def test_a_series_that_cannot_be_referred_to_keeps_its_masks(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path / "exam", **SERIES["head_first"])
    _each(tmp_path / "exam", lambda ds: setattr(ds, "StudyInstanceUID", ""))
    assert run("--text", TEXT) == FAILED_CASES
    assert (tmp_path / "out" / "f001.nii.gz").is_file()
    assert "no SEG and SR: exam: the PET has no StudyInstanceUID" in " ".join(capsys.readouterr().out.split())
