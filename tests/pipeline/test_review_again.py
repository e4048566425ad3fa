"""A review folder that is exported into again: what is no longer true leaves it, and is not sent from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from petground.pipeline.cli import main
from petground.pipeline.commands.review import export
from petground.pipeline.schemas import read_table, write_table

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
ODD = "A 3 <b> & c"  # an id that neither a file's name nor HTML can bear as it is


@pytest.fixture
def several(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """WORK with e1 three times over, as exams that came as DICOM and get a SEG each."""

    def write(case: Any, folder: Path, reviewer: str | None) -> None:
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = SEG, pydicom.uid.generate_uid()
        dataset.StudyInstanceUID = dataset.SeriesInstanceUID = pydicom.uid.generate_uid()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        folder.mkdir(exist_ok=True)
        dataset.save_as(folder / "seg.dcm", enforce_file_format=True)

    monkeypatch.setattr("petground.pipeline.review.dicom_out.write_dicom_objects", write)
    for exam_id in ("e1", "e3", ODD):
        (work / "exams" / exam_id).mkdir(parents=True, exist_ok=True)
        (work / "exams" / exam_id / "source.json").write_text(json.dumps({"source": "dicom", "folder": "x"}))
    for name in ("exams", "findings", "labels", "candidates"):
        rows = [row for row in read_table(work / f"{name}.parquet", name) if row["exam_id"] == "e1"]
        more = [{**row, "exam_id": exam_id} for row in rows for exam_id in ("e1", "e3", ODD)]
        write_table(work / f"{name}.parquet", name, more)
    return work


def leave(work: Path, *exam_ids: str) -> None:
    """What `label` leaves once these reports are no longer in the export."""
    for name in ("exams", "findings", "labels", "candidates"):
        rows = read_table(work / f"{name}.parquet", name)
        write_table(work / f"{name}.parquet", name, [row for row in rows if row["exam_id"] not in exam_ids])


def sent(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `send` says that it would send."""
    capsys.readouterr()
    assert main(["send", str(folder), "--url", "http://127.0.0.1:9", "--dry-run"]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_exams_that_left_work_leave_the_folder(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(several, out) == 0
    assert "3 objects of 3 studies would be sent" in sent(out, capsys)
    shutil.copy(out / "e3.html", out / "e3 (for the meeting).html")
    (out / "e3" / "mine.txt").write_text("a physician's notes")
    leave(several, "e3", ODD)
    assert export(several, out) == 0
    assert sorted(p.name for p in out.rglob("*.html")) == ["e1.html", "e3 (for the meeting).html", "index.html"]
    assert [p.parent.name for p in out.rglob("*.dcm")] == ["e1"]
    assert (out / "e3" / "mine.txt").exists()
    assert sent(out, capsys) == "1 objects of 1 studies would be sent"


def test_an_export_of_some_exams_leaves_the_others_but_they_are_not_sent(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    export(several, out)
    export(several, out, exams=["e3"])
    assert (out / "e1.html").exists()
    told = sent(out, capsys)
    assert "2 objects are not sent: the review's index.html does not list their exams" in told
    assert "1 objects of 1 studies would be sent" in told
    assert "0 objects" in sent(out / "e1", capsys)
    (out / "index.html").write_text("<title>another's page</title>")
    assert "3 objects of 3 studies" in sent(out, capsys)
