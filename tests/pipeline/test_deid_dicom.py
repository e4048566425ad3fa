"""DICOM: nothing of an identity is left in the bytes; SUV, geometry, pixels and references are what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dicom_series as series
import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset

from petground.labeling.errors import InputError
from petground.pipeline.deid.actions import action_for
from petground.pipeline.deid.dicom import Subject, deidentify_dataset, lenient
from petground.pipeline.deid.identity import Identity
from petground.pipeline.deid.images import Images, write_images
from petground.pipeline.deid.keys import keyed_uid
from petground.pipeline.deid.profile import Profile
from petground.pipeline.deid.words import load_rules
from petground.pipeline.read import read_exam

KEY = bytes(range(32))
DAYS = -700
SUBJECT = Subject(KEY, "pnewid", DAYS, Identity(("Needle^Zoltan",), ("77665544",)))
NEEDLES = (b"Needle", b"NEEDLE", b"needle", b"77665544", b"19510403")
GE, SIEMENS, PHILIPS = (0x0009, "GEMS_PETD_01"), (0x0071, "SIEMENS MED PT"), (0x7053, "Philips PET Private Group")


def cleaned(source: Path, out: Path, subject: Subject = SUBJECT) -> Images:
    return write_images(source, out, subject)


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.dcm"))


def headers(folder: Path) -> list[Dataset]:
    found = [pydicom.dcmread(path) for path in files(folder)]
    return sorted(found, key=lambda ds: (ds.Modality, int(ds.InstanceNumber)))


def named(ds: Dataset, k: int = 0) -> None:
    """Identities in every place that PET/CT headers have for them."""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Needle^Zoltan", "77665544", "19510403"
    ds.PatientAge, ds.PatientSex, ds.PatientSize = "093Y", "M", "1.7"
    ds.OtherPatientNames = "Needle^Z"
    ds.ReferringPhysicianName, ds.OperatorsName = "Doctor^Needle", "needle"
    ds.InstitutionName, ds.InstitutionAddress = "Needle Hospital", "1 Needle Street"
    ds.AccessionNumber, ds.StudyID, ds.StationName, ds.DeviceSerialNumber = (
        "77665544",
        "77665544",
        "NEEDLE1",
        "77665544",
    )
    ds.StudyDescription, ds.SeriesDescription = "PET for Mr. Needle 77665544", "PET AC Zoltan Needle"
    ds.PatientComments = ds.ImageComments = "Needle called"
    ds.PatientAddress, ds.PatientTelephoneNumbers = "1 Needle Street", "555-201-3344"
    ds.add_new(0x00091001, "LO", "Needle")
    ds.add_new(0x00090010, "LO", "NEEDLE PRIVATE")
    ds.add_new(0x60000010, "US", 5)
    ds.add_new(0x60003000, "OW", b"Needle")
    item = Dataset()
    item.PatientID, item.RequestedProcedureDescription = "77665544", "whole body, Needle"
    item.ScheduledProcedureStepID = "77665544"
    ds.RequestAttributesSequence = [item]
    ds.file_meta.SourceApplicationEntityTitle = "NEEDLE_AE"
    ds.preamble = b"Needle".ljust(128, b"\0")


def test_no_identity_is_left_in_the_bytes(tmp_path: Path) -> None:
    series.write(tmp_path / "in", "PT", named, name="Needle_Zoltan_")
    series.write(tmp_path / "in" / "Needle", "CT", named)
    images = cleaned(tmp_path / "in", tmp_path / "out")
    assert images.written == {"PT": 6, "CT": 6}
    for path in files(tmp_path / "out"):
        content = path.read_bytes()
        assert not [needle for needle in NEEDLES if needle in content or needle.decode() in str(path)]
    first = headers(tmp_path / "out")[0]
    assert first.PatientID == first.PatientName == "pnewid"
    assert first.PatientBirthDate == ""
    assert first.PatientAge == "090Y"
    assert (first.PatientSex, float(first.PatientSize)) == ("M", 1.7)
    assert first.PatientIdentityRemoved == "YES"
    assert first.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [item.CodeValue for item in first.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113105", "113107", "113108", "113111"]
    assert first.SeriesDescription == "PET AC [NAME]"
    assert first.StudyDescription == "PET for Mr. [NAME] [ID]"


def test_every_listed_attribute_with_text_loses_it(tmp_path: Path) -> None:
    """All attributes of the standard's table that can hold text, at the top and within an item."""
    ds = series.data_set("PT", "1.2.3", 0, series.stored()[0])
    inner = Dataset()
    for tag, _, _, options in load_rules("confidentiality")["attributes"]:
        number = int(tag, 16)
        if number < 0x00080000 or not dictionary_has_tag(number) or "d" in options:
            continue
        vr = dictionary_VR(number)
        value: Any = {"PN": "Needle^A", "DA": "19510403", "DT": "19510403101010", "UI": "1.2.77665544"}.get(
            vr, "Needle"
        )
        if vr in ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE", "DA", "DT", "UI"):
            for place in (ds, inner):
                place.add_new(number, vr, value)
    ds.SOPInstanceUID, ds.SOPClassUID = "1.2.77665544.1", series.PET
    ds.RadiopharmaceuticalInformationSequence[0].update(inner)
    with lenient():
        deidentify_dataset(ds, SUBJECT)
        ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    content = (tmp_path / "a.dcm").read_bytes()
    assert not [needle for needle in NEEDLES if needle in content]


def test_what_nobody_knows_goes() -> None:
    ds = series.data_set("PT", "1.2.3", 0, series.stored()[0])
    ds.add_new(0x00111001, "LO", "x")
    ds.add_new(0x001830FE, "LT", "Needle")  # a public tag of no edition
    ds.add_new(0x00180FFE, "UN", b"Needle")
    with lenient():
        deidentify_dataset(ds, SUBJECT)
    assert 0x00111001 not in ds
    assert 0x001830FE not in ds
    assert 0x00180FFE not in ds


def half_past_eleven(ds: Dataset, k: int) -> None:
    """Injected before midnight, known by time alone; scanned after it."""
    item = Dataset()
    item.RadiopharmaceuticalStartTime = "233000.5"
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = 400e6, 6586.2
    ds.RadiopharmaceuticalInformationSequence = [item]
    ds.SeriesTime = ds.AcquisitionTime = "003000"


def with_ge(ds: Dataset, k: int) -> None:
    """Series time later than the acquisition: the scan's start stands in GE's private date-time alone."""
    ds.SeriesTime, ds.Manufacturer = "150000", "GE MEDICAL SYSTEMS"
    ds.private_block(*GE, create=True).add_new(0x0D, "DT", "20240305110000.00")


def with_siemens(ds: Dataset, k: int) -> None:
    ds.SeriesTime, ds.Manufacturer = "150000", "SIEMENS"
    ds.private_block(*SIEMENS, create=True).add_new(0x22, "DT", "20240305110000.000000")


def with_philips(ds: Dataset, k: int) -> None:
    ds.Units, ds.Manufacturer = "CNTS", "Philips"
    block = ds.private_block(*PHILIPS, create=True)
    block.add_new(0x00, "DS", "0.000123")
    block.add_new(0x09, "DS", "1.5")
    block.add_new(0x01, "LO", "Needle")


def with_zones(ds: Dataset, k: int) -> None:
    ds.TimezoneOffsetFromUTC = "+0100"
    ds.RadiopharmaceuticalInformationSequence = [series.dose("20240305110000+0200")]


def plain(ds: Dataset, k: int) -> None:
    """As the tests write it: injection as date-time."""


@pytest.mark.parametrize("edit", [plain, half_past_eleven, with_ge, with_siemens, with_philips, with_zones])
def test_suv_geometry_and_pixels_are_what_they_were(tmp_path: Path, edit: Any) -> None:
    def both(ds: Dataset, k: int) -> None:
        named(ds, k)
        for element in [e for e in ds if e.tag.is_private]:
            del ds[element.tag]
        edit(ds, k)

    series.write(tmp_path / "in", "PT", both)
    series.write(tmp_path / "in", "CT", named)
    cleaned(tmp_path / "in", tmp_path / "out")
    before, after = read_exam(tmp_path / "in", case="a"), read_exam(tmp_path / "out", case="a")
    assert after.suv_rule == before.suv_rule
    assert after.suv_factor == before.suv_factor
    np.testing.assert_array_equal(after.pet.array, before.pet.array)
    np.testing.assert_array_equal(after.pet.affine, before.pet.affine)
    assert before.ct is not None
    assert after.ct is not None
    np.testing.assert_array_equal(after.ct.array, before.ct.array)
    mark = np.unravel_index(after.pet.array.argmax(), after.pet.shape)
    assert mark == (*series.MARK[:2], series.MARK[2])
    np.testing.assert_allclose((after.pet.affine @ [*mark, 1])[:3], series.world_of_mark(), atol=1e-9)
    stored = {(ds.Modality, int(ds.InstanceNumber)): ds.PixelData for ds in headers(tmp_path / "in")}
    assert {(ds.Modality, int(ds.InstanceNumber)): ds.PixelData for ds in headers(tmp_path / "out")} == stored
    assert b"Needle" not in b"".join(path.read_bytes() for path in files(tmp_path / "out"))


def test_dates_move_by_the_same_days_everywhere(tmp_path: Path) -> None:
    series.write(tmp_path / "in", "PT", with_ge)
    cleaned(tmp_path / "in", tmp_path / "out")
    ds = headers(tmp_path / "out")[0]
    assert ds.StudyDate == ds.SeriesDate == ds.AcquisitionDate == "20220405"
    assert ds.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime == "20220405100000"
    assert ds[0x0009100D].value == "20220405110000.00"
    assert (ds.SeriesTime, ds.AcquisitionTime) == ("150000", "110000")


def test_a_private_value_that_is_no_date_or_number_goes(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.private_block(*GE, create=True).add_new(0x0D, "LO", "Needle 2024")
        ds.private_block(*PHILIPS, create=True).add_new(0x00, "LO", "Needle")

    series.write(tmp_path / "in", "PT", edit)
    cleaned(tmp_path / "in", tmp_path / "out")
    assert not any(element.tag.is_private for ds in headers(tmp_path / "out") for element in ds)


def test_references_point_at_the_new_objects(tmp_path: Path) -> None:
    series.write(tmp_path / "in", "PT")
    image = headers(tmp_path / "in")[0]
    seg = Dataset()
    seg.file_meta = pydicom.dataset.FileMetaDataset()
    seg.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    seg.SOPClassUID, seg.SOPInstanceUID, seg.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.99", "RTSTRUCT"
    seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.InstanceNumber = image.StudyInstanceUID, "1.2.3.98", 1
    seg.PatientID = image.get("PatientID", "")
    contour, frame, study, inside = Dataset(), Dataset(), Dataset(), Dataset()
    contour.ReferencedSOPClassUID, contour.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    inside.SeriesInstanceUID, inside.ContourImageSequence = image.SeriesInstanceUID, [contour]
    study.ReferencedSOPInstanceUID, study.RTReferencedSeriesSequence = image.StudyInstanceUID, [inside]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = image.FrameOfReferenceUID, [study]
    seg.ReferencedFrameOfReferenceSequence = [frame]
    seg.ROIName = "left axilla"
    seg.save_as(tmp_path / "in" / "seg.dcm", enforce_file_format=True)
    cleaned(tmp_path / "in", tmp_path / "out")
    out = {ds.Modality: ds for ds in headers(tmp_path / "out")}
    new = next(
        ds for ds in headers(tmp_path / "out") if ds.Modality == "PT" and ds.InstanceNumber == image.InstanceNumber
    )
    got = out["RTSTRUCT"].ReferencedFrameOfReferenceSequence[0]
    told = got.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert got.FrameOfReferenceUID == new.FrameOfReferenceUID == keyed_uid(KEY, series.FRAME)
    assert got.RTReferencedStudySequence[0].ReferencedSOPInstanceUID == new.StudyInstanceUID
    assert told.SeriesInstanceUID == new.SeriesInstanceUID
    assert told.ContourImageSequence[0].ReferencedSOPInstanceUID == new.SOPInstanceUID
    assert told.ContourImageSequence[0].ReferencedSOPClassUID == series.PET
    assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID


def test_a_structured_report_is_cleaned_when_the_profile_keeps_it(tmp_path: Path) -> None:
    report = series.data_set("PT", "1.2.3", 0, series.stored()[0])
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.Modality = "SR"
    del report.PixelData
    text, person, pointer = Dataset(), Dataset(), Dataset()
    text.ValueType, text.TextValue = "TEXT", "Mr. Needle, SUVmax 5.4 on 03/04/2024"
    person.ValueType, person.PersonName = "PNAME", "Needle^Zoltan"
    pointer.ValueType, pointer.UID = "UIDREF", "1.2.3.4.5"
    report.ContentSequence = [text, person, pointer]
    (tmp_path / "in").mkdir()
    report.save_as(tmp_path / "in" / "sr.dcm", enforce_file_format=True)
    assert cleaned(tmp_path / "in", tmp_path / "none").left == {"structured_report": 1}
    subject = Subject(KEY, "p", DAYS, SUBJECT.identity, Profile(structured_reports=True))
    cleaned(tmp_path / "in", tmp_path / "out", subject)
    items = pydicom.dcmread(files(tmp_path / "out")[0]).ContentSequence
    assert items[0].TextValue == "Mr. [NAME], SUVmax 5.4 on 04/04/2022"
    assert "Needle" not in str(items[1].PersonName)
    assert keyed_uid(KEY, "1.2.3.4.5") == items[2].UID


def test_files_of_two_people_in_one_exam_are_refused(tmp_path: Path) -> None:
    series.write(tmp_path / "in", "PT", lambda ds, k: setattr(ds, "PatientID", "A" if k < 3 else "B"))
    with pytest.raises(InputError) as caught:
        cleaned(tmp_path / "in", tmp_path / "out")
    assert caught.value.reason == "several_patients"


def test_a_damaged_file_is_told_without_its_name(tmp_path: Path) -> None:
    series.write(tmp_path / "in", "PT")
    (tmp_path / "in" / "Needle_Zoltan.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x08\0\x16\0UI\xff\xff1.2")
    with pytest.raises(InputError) as caught:
        cleaned(tmp_path / "in", tmp_path / "out")
    assert caught.value.reason == "unreadable"
    assert "Needle" not in str(caught.value)


def test_values_against_the_rules_do_not_stop_it(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        with lenient():
            ds.add_new(0x00080022, "DA", "Needle")
            ds.add_new(0x00101010, "AS", "Needle")
            ds.add_new(0x00181030, "LO", "Needle " + "x" * 300)

    with lenient():
        series.write(tmp_path / "in", "PT", edit)
    images = cleaned(tmp_path / "in", tmp_path / "out")
    assert images.written == {"PT": 6}
    assert b"Needle" not in b"".join(path.read_bytes() for path in files(tmp_path / "out"))


def test_the_table_is_the_whole_of_the_standards() -> None:
    rows = load_rules("confidentiality")["attributes"]
    assert len(rows) == len({tag for tag, *_ in rows}) > 640
    kept = frozenset(("PatientAge", "PatientSex", "PatientSize", "PatientWeight"))
    told = {
        keyword_for_tag(int(tag, 16)): action_for(int(tag, 16), vr(tag), kept)
        for tag, *_ in rows
        if dictionary_has_tag(int(tag, 16))
    }
    for keyword, action in {
        "PatientName": "pseudonym", "PatientBirthDate": "empty", "PatientWeight": "keep", "PatientAge": "age",
        "EthnicGroup": "remove", "InstitutionName": "dummy", "StudyDate": "shift", "AcquisitionTime": "check",
        "RadiopharmaceuticalStartDateTime": "shift", "SeriesDescription": "clean", "PatientComments": "remove",
        "FrameOfReferenceUID": "uid", "ReferencedImageSequence": "descend", "IconImageSequence": "remove",
        "OperatorsName": "dummy", "RequestAttributesSequence": "descend", "ContentSequence": "remove",
    }.items():  # fmt: skip
        assert told[keyword] == action, keyword
    assert action_for(0x00091010, "LO", kept) == "remove"
    assert action_for(0x60003000, "OW", kept) == "remove"
    assert action_for(0x00280030, "DS", kept) == "check"
    assert action_for(0x0040A123, "PN", kept) == "dummy"


def vr(tag: str) -> str:
    return dictionary_VR(int(tag, 16))
