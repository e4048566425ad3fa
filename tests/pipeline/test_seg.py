"""SEG and SR lie where the label lies, for every direction a PET series can have, and are valid DICOM."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pet_series import SERIES, SLICES, around, write_series
from pydicom.dataset import Dataset

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.dicom.codes import _NODES, _PLACES, _concept, site_code
from petground.pipeline.dicom.objects import Finding3D, SourcePet, read_source
from petground.pipeline.dicom.seg import build_seg, read_seg
from petground.pipeline.dicom.sr import build_sr
from petground.pipeline.dicom.value_map import build_value_map
from petground.pipeline.read import read_pet

highdicom = pytest.importorskip("highdicom")


def finding(pet: Volume, mask: np.ndarray, name: str = "f001", **more: Any) -> Finding3D:
    """A Finding3D of a boolean mask on the grid of `pet`."""
    return Finding3D(
        finding_id=name,
        label="Left axillary node",
        mask=pet.like(mask.astype(np.uint8), "label"),
        suv_max=float(pet.array[mask].max()),
        volume_ml=float(mask.sum()) * pet.voxel_ml,
        method="isodata",
        **{"site": "axillary node", "laterality": "left", **more},
    )


def mask_places(pet: Volume, mask: np.ndarray) -> np.ndarray:
    """Sorted LPS mm of the mask's voxels."""
    return _sorted(pet.to_world_mm(np.argwhere(mask)) * [-1, -1, 1])


def seg_places(path: Path, number: int) -> np.ndarray:
    """Sorted LPS mm of a segment's voxels as highdicom alone reads them."""
    volume = highdicom.seg.segread(path).get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
    index = np.argwhere(volume.array > 0)
    return _sorted(volume.map_indices_to_reference(index))


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points, 1).T)]


def exported(folder: Path, **series: Any) -> tuple[Volume, SourcePet, np.ndarray]:
    """PET as the pipeline reads it, its source headers, and where the hot voxel lies (LPS mm)."""
    hot = write_series(folder, **series)
    pet = read_pet(folder)
    return pet, read_source(folder, pet, case="case"), hot


@pytest.mark.parametrize("name", SERIES)
def test_segment_lies_where_the_hot_voxel_lies(name: str, tmp_path: Path) -> None:
    pet, source, hot = exported(tmp_path / "pet", **SERIES[name])
    mask = around(pet, hot)
    assert pet.array[mask].max() == pet.array.max(), "the mask holds the hot voxel"
    seg = build_seg(source, [finding(pet, mask)], case="case")
    seg.save_as(tmp_path / "seg.dcm")
    back = read_seg(tmp_path / "seg.dcm", pet)[1]
    assert np.array_equal(back.array > 0, mask), "voxel by voxel"
    places = seg_places(tmp_path / "seg.dcm", 1)
    assert places.shape == (7, 3)
    assert np.abs(places - mask_places(pet, mask)).max() < 0.1, "highdicom sees the same millimetres"
    assert np.abs(places - hot).max(axis=1).min() < 0.1, "the hot voxel as it was written"
    assert (places[:, 0] > 10).all(), "on the patient's left (+x in LPS)"


def as_multi_frame(folder: Path, out: Path, order: list[int]) -> None:
    """The series of `write_series` as one enhanced PET with its frames in another order than their places."""
    planes = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    ds = pydicom.dcmread(folder / "001.dcm")
    shared, frames = Dataset(), []
    measures, turn, unit, value = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ds.PixelSpacing, ds.SliceThickness
    turn.ImageOrientationPatient = ds.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "Bq/ml", "UCUM", "Bq/ml"
    value.RealWorldValueSlope, value.RealWorldValueIntercept, value.MeasurementUnitsCodeSequence = 1.0, 0.0, [unit]
    for n in order:
        frame, place, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = planes[n].ImagePositionPatient
        content.FrameAcquisitionDateTime = "20240102100000"
        frame.PlanePositionSequence, frame.FrameContentSequence = [place], [content]
        frame.RealWorldValueMappingSequence = [value]
        frames.append(frame)
    for keyword in ("Units", "DecayCorrection", "CorrectedImage", "RescaleSlope", "RescaleIntercept", "PixelSpacing"):
        delattr(ds, keyword)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "NumberOfSlices", "AcquisitionTime"):
        delattr(ds, keyword)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.130"
    ds.AttenuationCorrected = ds.DecayCorrected = "YES"
    ds.DecayCorrectionDateTime = "20240102100000"
    ds.NumberOfFrames = len(order)
    ds.PixelData = b"".join(planes[n].PixelData for n in order)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    out.mkdir()
    ds.save_as(out / "enhanced.dcm", enforce_file_format=True)


def test_multi_frame_pet_with_shuffled_frames(tmp_path: Path) -> None:
    hot = write_series(tmp_path / "single", **SERIES["head_first"])
    order = [int(n) for n in np.random.default_rng(3).permutation(SLICES)]
    as_multi_frame(tmp_path / "single", tmp_path / "pet", order)
    pet = read_pet(tmp_path / "pet")
    source = read_source(tmp_path / "pet", pet, case="case")
    assert source.frame_of_k is not None
    mask = around(pet, hot)
    assert pet.array[mask].max() == pet.array.max()
    findings = [finding(pet, mask)]
    seg = build_seg(source, findings, case="case")
    seg.save_as(tmp_path / "seg.dcm")
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", pet)[1].array > 0, mask)
    assert np.abs(seg_places(tmp_path / "seg.dcm", 1) - mask_places(pet, mask)).max() < 0.1
    assert build_sr(source, seg, findings, case="case").ContentSequence
    with pytest.raises(InputError, match="multi-frame"):
        build_value_map(source, 0.5, case="case")


def test_two_findings_may_overlap_and_keep_their_order(tmp_path: Path) -> None:
    pet, source, hot = exported(tmp_path / "pet", **SERIES["head_first"])
    one = around(pet, hot)
    two = np.roll(one, 1, axis=0)
    assert (one & two).any()
    seg = build_seg(source, [finding(pet, one), finding(pet, two, "f002", site="liver", laterality=None)], case="c")
    seg.save_as(tmp_path / "seg.dcm")
    back = read_seg(tmp_path / "seg.dcm", pet)
    assert np.array_equal(back[1].array > 0, one)
    assert np.array_equal(back[2].array > 0, two)


def test_segment_says_what_and_where_in_codes(tmp_path: Path) -> None:
    pet, source, hot = exported(tmp_path / "pet", **SERIES["head_first"])
    seg = build_seg(source, [finding(pet, around(pet, hot))], case="case")
    item = seg.SegmentSequence[0]
    place = item.AnatomicRegionSequence[0]
    assert (place.CodeValue, place.CodingSchemeDesignator) == ("68171009", "SCT")
    assert place.AnatomicRegionModifierSequence[0].CodeValue == "7771000"
    assert item.TrackingID == "case f001"
    assert item.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
    assert item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "petground isodata"


def test_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    pet, source, hot = exported(tmp_path / "pet", **SERIES["head_first"])
    moved = pet.affine.copy()
    moved[2, 3] += 3.27
    good = finding(pet, around(pet, hot))
    shifted = Finding3D("f1", "x", Volume(good.mask.array, moved, "label"), 1.0, 1.0)
    with pytest.raises(GeometryError, match="case/f1"):
        build_seg(source, [shifted], case="case")
    with pytest.raises(GeometryError, match="not that of the labelled PET"):
        read_source(tmp_path / "pet", Volume(pet.array, moved, "SUVbw"), case="case")
    with pytest.raises(GeometryError, match="empty"):
        build_seg(source, [Finding3D("f1", "x", pet.like(np.zeros(pet.shape), "label"), 1.0, 1.0)], case="case")


def test_missing_folder_and_foreign_files_are_named(tmp_path: Path) -> None:
    pet, _, _ = exported(tmp_path / "pet", **SERIES["head_first"])
    with pytest.raises(InputError, match="folder is gone"):
        read_source(tmp_path / "nowhere", pet, case="case")
    (tmp_path / "no.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(InputError, match="not a DICOM Segmentation"):
        read_seg(tmp_path / "no.dcm", pet)


def test_another_series_of_the_same_grid_is_refused(tmp_path: Path) -> None:
    pet, source, _ = exported(tmp_path / "pet", **SERIES["head_first"])
    uid = str(source.datasets[0].SeriesInstanceUID)
    assert read_source(tmp_path / "pet", pet, case="case", series_uid=uid).shape == pet.shape
    with pytest.raises(InputError, match="case: the DICOM folder now leads to another PET series"):
        read_source(tmp_path / "pet", pet, case="case", series_uid=f"{uid}.1")


def test_seg_of_another_exam_is_refused(tmp_path: Path) -> None:
    pet, source, hot = exported(tmp_path / "pet", **SERIES["head_first"])
    build_seg(source, [finding(pet, around(pet, hot))], case="case").save_as(tmp_path / "seg.dcm")
    other, _, _ = exported(tmp_path / "other", **SERIES["head_first"])
    with pytest.raises(GeometryError, match="another frame of reference"):
        read_seg(tmp_path / "seg.dcm", other)
    half = Volume(pet.array, pet.affine + np.array([[0, 0, 0, 1.8]] + [[0, 0, 0, 0]] * 3), "SUVbw")
    with pytest.raises(GeometryError, match="does not lie on the PET"):
        read_seg(tmp_path / "seg.dcm", half)


def report(tmp_path: Path, **more: Any) -> tuple[Any, Any, Volume]:
    pet, source, hot = exported(tmp_path / "pet", **SERIES["head_first"])
    findings = [finding(pet, around(pet, hot))]
    seg = build_seg(source, findings, case="case")
    return build_sr(source, seg, findings, case="case", **more), seg, pet


def test_sr_holds_the_measured_values(tmp_path: Path) -> None:
    document, seg, pet = report(tmp_path, reviewer="Doe^Jane")
    document.save_as(tmp_path / "sr.dcm")
    content = highdicom.sr.srread(tmp_path / "sr.dcm").content
    group = content.get_volumetric_roi_measurement_groups()[0]
    suv, volume = group.get_measurements()
    assert (suv.name.value, suv.name.scheme_designator) == ("126401", "DCM")
    assert suv.value == pytest.approx(float(pet.array.max()), abs=1e-4)
    assert (suv.unit.value, suv.unit.scheme_designator) == ("{SUVbw}g/ml", "UCUM")
    assert suv.derivation is not None
    assert suv.derivation.value == "56851009"
    assert volume.value == pytest.approx(7 * pet.voxel_ml, abs=1e-3)
    assert volume.unit.value == "ml"
    assert group.finding_sites[0].value.value == "68171009"
    assert group.finding_sites[0].laterality.value == "7771000"
    assert group.tracking_uid == seg.SegmentSequence[0].TrackingUID
    assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    assert "Doe^Jane" in str(document)


def test_sr_wants_the_segments_of_its_findings(tmp_path: Path) -> None:
    _, seg, pet = report(tmp_path)
    source = read_source(tmp_path / "pet", pet, case="case")
    with pytest.raises(InputError, match="1 segments for 0 findings"):
        build_sr(source, seg, [], case="case")


def test_value_map_turns_stored_pixels_into_suv(tmp_path: Path) -> None:
    pet, source, hot = exported(tmp_path / "pet", **SERIES["files_from_head"])
    for n, dataset in enumerate(source.datasets):
        dataset.RescaleSlope = 1.0 + n  # as scanners do, another one for every slice
    value_map = build_value_map(source, 0.5, case="case")
    value_map.save_as(tmp_path / "rwvm.dcm", enforce_file_format=True)
    items = pydicom.dcmread(tmp_path / "rwvm.dcm").ReferencedImageRealWorldValueMappingSequence
    assert len(items) == SLICES
    for n, (item, dataset) in enumerate(zip(items, source.datasets, strict=True)):
        assert item.ReferencedImageSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
        assert item.RealWorldValueMappingSequence[0].RealWorldValueSlope == 0.5 * (1 + n)
    findings = [finding(pet, around(pet, hot))]
    seg = build_seg(source, findings, case="case")
    document = build_sr(source, seg, findings, case="case", value_map=value_map)
    document.save_as(tmp_path / "sr.dcm")
    assert value_map.SOPInstanceUID in str(document.ContentSequence)
    assert dciodvfy_errors(tmp_path / "rwvm.dcm") == []
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("axillary node", "68171009"),
        ("lower lobe nodule", "90572001"),
        ("t11 vertebral body lesion", "12989004"),
        ("l 3 lesion", "36470004"),
        ("hepatic segment vii lesion", "10200004"),
        ("iliac bone lesion", "22356005"),
        ("external iliac node", "65349008"),
        ("perineural node", "59441001"),
        ("adrenal nodule", "23451007"),
        ("gallbladder", "28231008"),
        ("right hilum", "46750007"),
        ("hilar node", "53074004"),
        ("splenic hilum", None),
        ("renal hilum", None),
        ("left renal hilar mass", None),
        ("hepatic hilar node", "59441001"),
        ("splenic hilum node", "59441001"),
        ("left lower lobe", "90572001"),
        ("lower lobe of thyroid", "69748006"),
        ("upper lobe of the left thyroid", "69748006"),
        ("lobe of liver", "10200004"),
        ("t11", "12989004"),
        ("left t11 pedicle", "12989004"),
        ("spinous process of l3", "36470004"),
        ("vertebral body of t11", "12989004"),
        ("t4 tumor of lung", "39607008"),
        ("l3 level retroperitoneal", "82849001"),
        ("soft tissue at l5", None),
        ("soft tissue next to l3 vertebra", None),
        ("l4-5", None),
        ("l4-l5 vertebral bodies", "421060004"),
        ("peripancreatic mass", None),
        ("paraspinal muscle", None),
        ("somewhere", None),
        ("t13", None),
        (None, None),
    ],
)
def test_places_get_the_code_that_dicom_lists_or_none(words: str | None, code: str | None) -> None:
    found = site_code(words)
    assert (None if found is None else found.value) == code


def test_every_place_of_the_table_is_a_concept_of_dicom() -> None:
    assert [name for _, name in (*_NODES, *_PLACES) if _concept(name) is None] == []


def dciodvfy_errors(path: Path) -> list[str]:
    """Error lines of dciodvfy; skips where it is not installed."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("name", ["head_first", "oblique"])
def test_objects_pass_dciodvfy(name: str, tmp_path: Path) -> None:
    pet, source, hot = exported(tmp_path / "pet", **SERIES[name])
    findings = [
        finding(pet, around(pet, hot)),
        finding(pet, np.roll(around(pet, hot), 3, axis=1), "f002", site="unheard of", laterality=None),
    ]
    seg = build_seg(source, findings, case="case")
    seg.save_as(tmp_path / "seg.dcm")
    for reviewer in (None, "Doe^Jane"):
        build_sr(source, seg, findings, case="case", reviewer=reviewer).save_as(tmp_path / "sr.dcm")
        assert dciodvfy_errors(tmp_path / "sr.dcm") == []
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []


def test_acrin_pet_jpeg_ls(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shared_data("acrin_042")
    pet = read_pet(folder)
    hot = np.unravel_index(int(pet.array.argmax()), pet.shape)
    mask = np.zeros(pet.shape, dtype=bool)
    for at in ((0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2)):
        mask[tuple(np.add(hot, at))] = True
    source = read_source(folder, pet, case="acrin")
    assert "AC" in source.datasets[0].SeriesDescription
    assert "NAC" not in source.datasets[0].SeriesDescription
    findings = [finding(pet, mask, site="kidney", laterality="right")]
    seg = build_seg(source, findings, case="acrin")
    seg.save_as(tmp_path / "seg.dcm")
    build_sr(source, seg, findings, case="acrin").save_as(tmp_path / "sr.dcm")
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", pet)[1].array > 0, mask)
    assert np.abs(seg_places(tmp_path / "seg.dcm", 1) - mask_places(pet, mask)).max() < 0.1
    first = pydicom.dcmread(folder / "PET_AC" / "0001.dcm", stop_before_pixels=True)
    assert source.datasets[0].StudyInstanceUID == first.StudyInstanceUID
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
