"""DICOMweb against a real Orthanc: what is fetched is what was stored, whole, and only what a reader needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orthanc
import pydicom
import pytest
from dicomweb_archive import accession, archive_at, fetched, rows, write_reports
from pydicom.uid import JPEGLSLossless, RLELossless

from petground.labeling.errors import InputError
from petground.pipeline.cli import main
from petground.pipeline.read import read_exam
from petground.pipeline.schemas import read_table
from petground.pipeline.sources.choose import Offered, choose_series
from petground.pipeline.sources.retrieve import Exam, fetch_exam
from petground.pipeline.sources.web import Server


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with archive_at(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="module")
def labelled(archive: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with exams/ as fetched by the command and work/ as labelled from it."""
    folder = tmp_path_factory.mktemp("labelled")
    reports, exams = write_reports(folder / "r.csv", "ACC1"), folder / "exams"
    assert main(["fetch", "--url", archive.url, "--reports", str(reports), "--out", str(exams)]) == 0
    command = ["label", "--reports", str(reports), "--exams", str(exams), "--out", str(folder / "work")]
    assert main([*command, "--workers", "1"]) == 0
    return folder


def test_an_exam_comes_pixel_equal_and_can_be_labelled(archive: Any, labelled: Path) -> None:
    exams = labelled / "exams"
    row = rows(exams)["ACC1"]
    assert (row["status"], row["images"], row["images_fetched"]) == ("ok", 60, 60)
    left = {item["number"]: item["left_out"] for item in row["series"]}
    assert left == {
        "1": "a localizer",
        "2": None,
        "3": None,
        "4": "not attenuation corrected",
        "9": "another CT of this frame is fetched",
        "10": "a projection",
        "11": "modality OT",
    }
    stored = {str(d.SOPInstanceUID): d for d in archive.sent}
    here = fetched(exams / "ACC1")
    assert len(here) == 60
    for uid, dataset in here.items():
        np.testing.assert_array_equal(dataset.pixel_array, stored[uid].pixel_array)
        assert dataset.ImagePositionPatient == stored[uid].ImagePositionPatient
        assert dataset.get("RescaleSlope") == stored[uid].get("RescaleSlope")
    assert not (exams / ".fetch").exists()
    read = read_exam(exams / "ACC1", case="ACC1")
    hottest = np.unravel_index(int(np.argmax(read.pet.array)), read.pet.shape)
    assert tuple(int(i) for i in hottest) == orthanc.LESION_IJK
    assert read.ct is not None
    (label,) = read_table(labelled / "work" / "labels.parquet", "labels")
    assert (label["voxel_i"], label["voxel_j"], label["voxel_k"]) == orthanc.LESION_IJK


def test_a_second_run_fetches_nothing_and_a_lost_image_alone_comes_back(archive: Any, tmp_path: Path) -> None:
    where = Server(archive.url)
    first = fetch_exam(where, Exam("ACC1"), tmp_path)
    assert fetch_exam(where, Exam("ACC1"), tmp_path)["images_fetched"] == 0
    lost = sorted((tmp_path / "ACC1").rglob("*.dcm"))[7]
    content = lost.read_bytes()
    lost.unlink()
    again = fetch_exam(where, Exam("ACC1"), tmp_path)
    assert (again["images_fetched"], again["images"], first["images"]) == (1, 60, 60)
    assert lost.read_bytes() == content


def test_by_study_uid_all_series_and_dry_run(archive: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uid = str(archive.sent[0].StudyInstanceUID)
    reports = write_reports(tmp_path / "r.csv", uid)
    command = ["fetch", "--url", archive.url, "--reports", str(reports), "--out", str(tmp_path / "e")]
    assert main([*command, "--dry-run"]) == 0
    assert "60 images would be fetched" in capsys.readouterr().out
    assert not (tmp_path / "e").exists()
    assert main([*command, "--all-series"]) == 0
    assert len(fetched(tmp_path / "e" / uid)) == len(archive.sent) == 108
    assert main([*command, "--by", "accession"]) == 3
    assert rows(tmp_path / "e")[uid]["reason"] == "no_study"


def test_a_missing_study_is_a_row_and_the_others_come(
    archive: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = write_reports(tmp_path / "r.csv", "ACC9", "ACC1", "acc1x")
    out = tmp_path / "e"
    assert main(["fetch", "--url", archive.url, "--reports", str(reports), "--out", str(out)]) == 3
    got = rows(out)
    assert {name: row["reason"] for name, row in got.items()} == {"ACC9": "no_study", "ACC1": None, "acc1x": "no_study"}
    assert not (out / "ACC9").exists()
    assert "2 exams failed (no_study 2)" in capsys.readouterr().out
    # The server matches without regard to case; the exam that was asked for is another one.
    with pytest.raises(InputError, match="no such study"):
        fetch_exam(Server(archive.url), Exam("acc1"), out)


def test_two_studies_with_one_accession_number(archive: Any, tmp_path: Path) -> None:
    for name, day in (("t1", "20240105"), ("t2", "20240607")):
        archive.upload(orthanc.make_exam(tmp_path / name, name, uncorrected=False), accession("TWICE", StudyDate=day))
    with pytest.raises(InputError, match="2 studies have this AccessionNumber") as caught:
        fetch_exam(Server(archive.url), Exam("TWICE"), tmp_path / "e")
    assert caught.value.reason == "several_studies"
    fetch_exam(Server(archive.url), Exam("TWICE", "2024-06-07"), tmp_path / "e")
    assert {d.StudyDate for d in fetched(tmp_path / "e").values()} == {"20240607"}
    # A CT study under the number of a PET/CT is not meant.
    both, only_ct = orthanc.make_exam(tmp_path / "m1", "m1"), orthanc.make_exam(tmp_path / "m2", "m2") / "CT"
    archive.upload(only_ct, accession("MIXED", StudyInstanceUID="1.2.3.4.05"))  # a zero that no UID may have
    archive.upload(both, accession("MIXED", StudyInstanceUID="1.2.3.4.06"))
    assert fetch_exam(Server(archive.url), Exam("MIXED"), tmp_path / "e")["study"] == "1.2.3.4.06"
    archive.upload(orthanc.make_exam(tmp_path / "m3", "m3") / "CT", accession("NOPET"))
    with pytest.raises(InputError, match="no PET to fetch") as caught:
        fetch_exam(Server(archive.url), Exam("NOPET"), tmp_path / "e")
    assert caught.value.reason == "no_pet"


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_images_come_as_stored(archive: Any, tmp_path: Path, syntax: Any) -> None:
    exam = orthanc.make_exam(tmp_path / "exam", f"z{syntax.name[:3]}", uncorrected=False)
    truth = fetched(exam)
    number = "Z" + syntax.name[:3].upper()

    def compress(dataset: pydicom.Dataset) -> None:
        dataset.AccessionNumber = number
        dataset.compress(syntax, generate_instance_uid=False)

    try:
        archive.upload(exam, compress)
    except (RuntimeError, NotImplementedError):
        pytest.skip(f"no encoder for {syntax.name} is installed")
    fetch_exam(Server(archive.url), Exam(number), tmp_path / "e")
    here = fetched(tmp_path / "e")
    assert set(here) == set(truth)
    assert {d.file_meta.TransferSyntaxUID for d in here.values()} == {syntax}
    for uid, dataset in here.items():
        np.testing.assert_array_equal(dataset.pixel_array, truth[uid].pixel_array)
    hottest = np.argmax(read_exam(tmp_path / "e" / number, case="z").pet.array)
    assert np.unravel_index(int(hottest), (24, 20, 30)) == orthanc.LESION_IJK


def test_send_and_find_it_there(
    archive: Any, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "review"
    assert main(["review", "export", str(labelled / "work"), "--out", str(pack)]) == 0
    files = sorted(pack.rglob("*.dcm"))
    assert {file.name for file in files} >= {"seg.dcm", "sr.dcm"}
    assert main(["send", str(pack), "--url", archive.url, "--dry-run"]) == 0
    capsys.readouterr()
    for _ in range(2):  # what is there already is no failure
        assert main(["send", str(pack), "--url", archive.url]) == 0
        assert f"{len(files)} of {len(files)} objects of 1 studies are on the server" in capsys.readouterr().out
    row = fetch_exam(Server(archive.url), Exam("ACC1"), tmp_path / "back", all_series=True)
    back = {str(d.SOPInstanceUID): d for d in fetched(tmp_path / "back").values()}
    for file in files:
        sent = pydicom.dcmread(file)
        assert back[str(sent.SOPInstanceUID)].SOPClassUID == sent.SOPClassUID
        if "PixelData" in sent:
            assert back[str(sent.SOPInstanceUID)].PixelData == sent.PixelData
    assert {"SEG", "SR"} <= {item["modality"] for item in row["series"]}
    assert main(["send", str(labelled / "exams"), "--url", archive.url]) == 1
    assert "no SEG, SR or value map" in capsys.readouterr().err


def offered(uid: str, modality: str, count: int, **attributes: Any) -> Offered:
    header = pydicom.Dataset()
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return Offered(uid, modality, "1", count, header)


def test_the_choice_keeps_what_it_cannot_judge_and_takes_one_ct_per_frame() -> None:
    pet = offered("p", "PT", 200, FrameOfReferenceUID="1", CorrectedImage=["ATTN", "DECY"])
    series = [
        pet,
        Offered("bare", "PT", None, 1, None),
        offered("nac", "PT", 200, FrameOfReferenceUID="1", SeriesDescription="PET WB NAC"),
        offered("thin", "CT", 800, FrameOfReferenceUID="1", SliceThickness="1.25"),
        offered("fit", "CT", 200, FrameOfReferenceUID="1", SliceThickness="5"),
        offered("neck", "CT", 200, FrameOfReferenceUID="1", SliceThickness="1"),
        offered("coronal", "CT", 200, FrameOfReferenceUID="1", ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        offered("diagnostic", "CT", 300, FrameOfReferenceUID="2", SliceThickness="3"),
    ]
    assert {item.uid for item, why in choose_series(series) if why is None} == {
        "p", "bare", "fit", "diagnostic",
    }  # fmt: skip
    chosen = {item.uid: why for item, why in choose_series([pet, *series[3:]])}
    assert {uid for uid, why in chosen.items() if why is None} == {"p", "fit"}
    assert chosen["diagnostic"] == "another frame of reference than the PET"
    assert {why for _, why in choose_series(series[3:])} >= {"no PET to belong to"}
