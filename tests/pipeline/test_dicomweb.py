"""DICOMweb against a real Orthanc: what is fetched is what was stored, whole, and only what a reader needs."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.cli import main
from petground.pipeline.read import read_exam
from petground.pipeline.schemas import read_table
from petground.pipeline.sources.choose import Offered, choose_series
from petground.pipeline.sources.retrieve import Exam, fetch_exam
from petground.pipeline.sources.web import PASSWORD, Server, server

_SPEC = importlib.util.spec_from_file_location("orthanc", Path(__file__).with_name("orthanc.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
orthanc = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(orthanc)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An Orthanc with one exam, accession number ACC1, that holds what studies hold besides PET and CT."""
    folder = tmp_path_factory.mktemp("orthanc")
    running = orthanc.Orthanc(folder / "server").start()
    exam = orthanc.make_exam(folder / "exam")
    _extra_series(exam)
    running.sent = running.upload(exam, _accession("ACC1"))
    yield running
    running.kill()


def _accession(number: str, **changes: Any) -> Any:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.AccessionNumber = number
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)

    return change


def _extra_series(exam: Path) -> None:
    """A localizer, a MIP, a thick CT of the same body, and a secondary capture."""
    slices = sorted((exam / "CT").rglob("*.dcm"))
    pet = sorted((exam / "PT" / "WB_AC").rglob("*.dcm"))
    extras = {
        "scout": (slices[:2], {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": 1}),
        "thick": (slices[:10], {"SeriesNumber": 9, "SeriesDescription": "CT 5.0"}),
        "mip": (pet[:4], {"SeriesNumber": 10, "SeriesType": ["WHOLE BODY", "REPROJECTION"]}),
        "capture": (pet[:2], {"SeriesNumber": 11, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}),
    }
    for name, (files, changes) in extras.items():
        (exam / name).mkdir()
        for file in files:
            dataset = pydicom.dcmread(file)
            _accession("", **changes)(dataset)
            dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[dataset.SeriesInstanceUID, name])
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[dataset.SOPInstanceUID, name])
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.save_as(exam / name / file.name, enforce_file_format=True)


def write_reports(path: Path, *exams: str, day: str = "") -> Path:
    lines = [f'{exam},"FINDINGS: Hypermetabolic focus, SUVmax 12.0, axial slice 19.",{day}' for exam in exams]
    path.write_text("\n".join(["exam_id,report_text,study_date", *lines]) + "\n", encoding="utf-8")
    return path


def rows(out: Path) -> dict[str, Any]:
    return {row["exam_id"]: row for row in json.loads((out / "fetch.json").read_text(encoding="utf-8"))["exams"]}


def fetched(folder: Path) -> dict[str, pydicom.Dataset]:
    return {str(d.SOPInstanceUID): d for d in (pydicom.dcmread(file) for file in folder.rglob("*.dcm"))}


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
        archive.upload(orthanc.make_exam(tmp_path / name, name, uncorrected=False), _accession("TWICE", StudyDate=day))
    with pytest.raises(InputError, match="2 studies have this AccessionNumber") as caught:
        fetch_exam(Server(archive.url), Exam("TWICE"), tmp_path / "e")
    assert caught.value.reason == "several_studies"
    fetch_exam(Server(archive.url), Exam("TWICE", "2024-06-07"), tmp_path / "e")
    assert {d.StudyDate for d in fetched(tmp_path / "e").values()} == {"20240607"}
    # A CT study under the number of a PET/CT is not meant.
    both, only_ct = orthanc.make_exam(tmp_path / "m1", "m1"), orthanc.make_exam(tmp_path / "m2", "m2") / "CT"
    archive.upload(only_ct, _accession("MIXED", StudyInstanceUID="1.2.3.4.05"))  # a zero that no UID may have
    archive.upload(both, _accession("MIXED", StudyInstanceUID="1.2.3.4.06"))
    assert fetch_exam(Server(archive.url), Exam("MIXED"), tmp_path / "e")["study"] == "1.2.3.4.06"
    archive.upload(orthanc.make_exam(tmp_path / "m3", "m3") / "CT", _accession("NOPET"))
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


def test_basic_authentication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = orthanc.Orthanc(tmp_path / "server", auth=True).start()
    try:
        running.upload(orthanc.make_exam(tmp_path / "exam", uncorrected=False), _accession("A1"))
        reports, out = write_reports(tmp_path / "r.csv", "A1"), tmp_path / "e"
        command = ["fetch", "--url", running.url, "--reports", str(reports), "--out", str(out)]
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert main(command) == 1
        assert "does not let us in" in capsys.readouterr().err
        assert main([*command, "--user", orthanc.USER]) == 2
        assert f"{PASSWORD} is empty" in capsys.readouterr().err
        monkeypatch.setenv(PASSWORD, "wrong")
        assert main([*command, "--user", orthanc.USER]) == 1
        monkeypatch.setenv("TOKEN", "t0ken")
        assert main([*command, "--token-env", "TOKEN"]) == 1
        assert not out.exists()
        monkeypatch.setenv(PASSWORD, orthanc.PASSWORD)
        assert main([*command, "--user", orthanc.USER]) == 0
        said = capsys.readouterr()
        everything = said.out + said.err + (out / "fetch.json").read_text(encoding="utf-8")
        assert orthanc.PASSWORD not in everything
        shutil.rmtree(out)
        entry = f"machine 127.0.0.1 login {orthanc.USER} password {json.dumps(orthanc.PASSWORD)}\n"
        (tmp_path / "netrc").write_text(entry, encoding="utf-8")
        (tmp_path / "netrc").chmod(0o600)
        assert main(command) == 0
    finally:
        running.kill()


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    running = orthanc.Orthanc(tmp_path / "server").start()
    try:
        running.upload(orthanc.make_exam(tmp_path / "exam", uncorrected=False), _accession("A1"))
        came: list[int] = []

        def die(size: int) -> None:
            came.append(size)
            if len(came) == 20:
                running.kill()

        out = tmp_path / "e"
        with pytest.raises(InputError) as caught:
            fetch_exam(Server(running.url, retries=0), Exam("A1"), out, received=die)
        assert caught.value.reason == "unreachable"
        assert "A1" not in str(caught.value)
        assert not (out / "A1").exists(), "half an exam must not be read by anybody"
        kept = len(list((out / ".fetch").rglob("*.dcm")))
        assert 20 <= kept < 60
        (next((out / ".fetch").rglob("*.dcm")).parent / ".x.dcm.1234.part").write_bytes(b"half")
        running.start()
        row = fetch_exam(Server(running.url), Exam("A1"), out)
        assert (row["images"], row["images_fetched"]) == (60, 60 - kept)
        assert len(fetched(out / "A1")) == 60
        assert not list(out.rglob("*.part"))
    finally:
        running.kill()


def test_a_line_that_breaks_within_a_series_is_taken_up_where_it_broke(archive: Any, tmp_path: Path) -> None:
    exam = orthanc.make_exam(tmp_path / "exam", "wide", uncorrected=False, ct_side=192)
    archive.upload(exam, _accession("WIDE"))
    sizes: list[int] = []
    with orthanc.breaking_line(archive.port, cut_after=1_000_000, times=2) as url:
        row = fetch_exam(Server(url, retries=1), Exam("WIDE"), tmp_path / "e", received=sizes.append)
    assert row["images"] == len(sizes) == len(fetched(tmp_path / "e")) == 60, "no image was fetched twice"
    lost = max((tmp_path / "e").rglob("*.dcm"), key=lambda file: file.stat().st_size)
    lost.unlink()
    with orthanc.breaking_line(archive.port, cut_after=60_000, times=1) as url:  # within a single image
        assert fetch_exam(Server(url, retries=1), Exam("WIDE"), tmp_path / "e")["images_fetched"] == 1
    truth = fetched(exam)
    assert set(truth) == set(fetched(tmp_path / "e"))
    for uid, dataset in fetched(tmp_path / "e").items():
        np.testing.assert_array_equal(dataset.pixel_array, truth[uid].pixel_array)


def test_no_server_at_all_and_a_web_page_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports, out = write_reports(tmp_path / "r.csv", "A1"), tmp_path / "e"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["fetch", "--reports", str(reports), "--out", str(out), "--retries", "0"]
    assert main([*command, "--url", f"http://127.0.0.1:{port}/dicom-web"]) == 1
    assert "cannot be reached" in capsys.readouterr().err

    def answer(listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        assert main([*command, "--url", f"http://127.0.0.1:{listener.getsockname()[1]}"]) == 1
    assert "no DICOM JSON" in capsys.readouterr().err
    assert not out.exists()


def test_a_dead_server_ends_the_run_and_says_which_exams_were_not_tried(
    archive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / "server"
    running = orthanc.Orthanc(dead).start()
    monkeypatch.setattr("petground.pipeline.commands.fetch.check", lambda where: running.kill())
    reports = write_reports(tmp_path / "r.csv", *(f"E{n}" for n in range(30)))
    started = time.monotonic()
    command = ["fetch", "--url", running.url, "--reports", str(reports), "--out", str(tmp_path / "e")]
    assert main([*command, "--retries", "0", "--workers", "2"]) == 3
    reasons = [row["reason"] for row in rows(tmp_path / "e").values()]
    assert len(reasons) == 30
    assert set(reasons) == {"unreachable", "not_tried"}
    assert reasons.count("unreachable") <= 7
    assert time.monotonic() - started < 20


def test_nothing_of_a_patient_gets_into_logs_or_the_record(
    archive: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    reports = write_reports(tmp_path / "r.csv", "ACC1", "ACC9")
    main(["fetch", "--url", archive.url, "--reports", str(reports), "--out", str(tmp_path / "e")])
    logged = "\n".join(record.getMessage() for record in caplog.records)
    said = capsys.readouterr()
    everything = logged + said.out + said.err + (tmp_path / "e" / "fetch.json").read_text(encoding="utf-8")
    assert "Phantom^" not in everything
    assert "P7" not in everything
    assert "SUVmax" not in everything
    assert "ACC" not in logged


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "pacs.example"}, "no http"),
        ({"url": "https://u:secret@pacs.example/dicom-web"}, "holds a password"),
        ({"url": "http://[::1"}, "no http"),
        ({"user": "u", "token_env": "T"}, "both given"),
        ({"ca": Path("/none.pem")}, "no certificate file"),
        ({"retries": -1}, "must be positive"),
        ({"token_env": "NOT_SET_ANYWHERE"}, "is empty"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    usual = {"url": "https://pacs.example", "user": None, "token_env": None, "ca": None, "timeout_s": 9.0, "retries": 1}
    with pytest.raises(ConfigError, match=message) as caught:
        server(**{**usual, **settings})
    assert "secret" not in str(caught.value)
    assert Server("http://pacs.example", "t").exposed
    assert not Server("http://localhost:8042", "t").exposed
    assert not Server("https://pacs.example", "t").exposed


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
